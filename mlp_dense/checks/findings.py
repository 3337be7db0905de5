"""Findings of the checks of data, as a table of text and as JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

SEVERITIES = ('error', 'warning', 'note')
STOPS = 'files or settings would stop the run'
"""Problem of images and labels whose example is a complete sentence."""
ADD_IMAGES = 'add or move images with them, or remove the classes'


@dataclass(frozen=True)
class Finding:
    """A problem of the data; `count` is the number of images, annotations or classes that have it."""

    severity: str  # one of SEVERITIES
    data: str  # train, val or test
    problem: str  # a clause in the plural
    count: int = 1
    examples: tuple[str, ...] = ()  # at most three files, ids or classes
    remedy: str = ''  # imperative clause

    def line(self) -> str:
        """Return the row of the table."""
        shown = self.examples[:1] if self.problem == STOPS else self.examples
        more = f' and {self.count - len(shown)} more' if self.count > len(shown) else ''
        examples = f': {", ".join(shown)}{more}' if shown else ''
        row = f'{self.severity:<7} {self.data:<5} {self.count:>6}  {self.problem}{examples}'
        return f'{row}\n{" " * 22}-> {self.remedy}' if self.remedy else row

    def sentence(self) -> str:
        """Return the message of the error."""
        if self.problem == STOPS:
            return self.examples[0]
        examples = f', for example {self.examples[0]}' if self.examples else ''
        return f'The {self.data} data: {self.problem}: {self.count}{examples}; {self.remedy}.'


def stop(data: str, sentence: str) -> Finding:
    """Return the error of a file or setting that would stop a run; the sentence contains a remedy."""
    return Finding('error', data, STOPS, 1, (sentence,))


def listing(severity: str, data: str, problem: str, items: Sequence[str], remedy: str = '') -> Finding:
    """Return a finding that counts files or classes, with the first three of them as examples."""
    return Finding(severity, data, problem, len(items), tuple(items[:3]), remedy)


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings with equal problems and remedies as one, errors first."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.data, finding.problem, finding.remedy), []).append(finding)
    rows = []
    for (severity, data, problem, remedy), group in groups.items():
        examples = tuple(example for finding in group for example in finding.examples)[:3]
        rows.append(Finding(severity, data, problem, sum(finding.count for finding in group), examples, remedy))
    return sorted(rows, key=lambda finding: SEVERITIES.index(finding.severity))


def table(findings: Iterable[Finding]) -> str:
    """Return a row for each finding, and its remedy below."""
    return '\n'.join(finding.line() for finding in findings)


def to_json(findings: Iterable[Finding], **facts: object) -> str:
    """Return the `facts` and the findings, with an exit status, as JSON."""
    rows = list(findings)
    return json.dumps(dict(facts, status=exit_status(rows), findings=[asdict(row) for row in rows]), indent=1)


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 2 if there is an error, 1 if there is a warning, else 0."""
    return max((dict(error=2, warning=1, note=0)[finding.severity] for finding in findings), default=0)
