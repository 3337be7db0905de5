"""Image files, whose names may be of any encoding: functions of OpenCV that receive such a name crash the process."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..errors import UserError

PILLOW_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""Errors of Pillow for an image that it cannot decode."""


def decode(content: bytes, flag: int) -> np.ndarray | None:
    """Decode an image with a flag of OpenCV; return None if that fails."""
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flag) if content else None
    except cv2.error:
        return None


def read_file(file: Path, flag: int) -> np.ndarray | None:
    """Read an image with a flag of OpenCV; return None if it is missing or cannot be decoded."""
    try:
        return decode(file.read_bytes(), flag)
    except OSError:
        return None


def write_image(file: Path, image: np.ndarray, options: Sequence[int] = ()) -> None:
    """Write a BGR image or a label map; raise UserError if OpenCV has no such format or the file cannot be written."""
    try:
        content = cv2.imencode(file.suffix, image, options)[1]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.tobytes())
    except cv2.error as error:
        raise UserError(f'{file}: OpenCV cannot write this format; use a name that ends in .png or .jpg.') from error
    except OSError as error:
        raise UserError(f'{file} cannot be written ({error.strerror}); choose another folder.') from error
