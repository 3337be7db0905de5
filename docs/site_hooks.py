"""Hooks of the documentation site, for files of the repository that are not pages of the site."""

import re
from typing import Any

SOURCE = 'https://github.com/mlp-dense/mlp_dense/blob/main'


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace relative links to files outside docs/ by URLs of the repository."""
    markdown = re.sub(r'\]\(\.\./([^)\s]+)\)', rf']({SOURCE}/\1)', markdown)
    return re.sub(r'\]\(([\w/]+\.json|evidence)\)', rf']({SOURCE}/docs/\1)', markdown)
