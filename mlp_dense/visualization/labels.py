"""Text on drawn images, in a legible size and inside the image."""

import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

SMALL = 6  # text does not cover a box with an area below this multiple of its name's area
Colour = tuple[int, int, int]


@cache
def font_for(height: int, width: int) -> ImageFont.FreeTypeFont:
    """Return the font for an image of this size."""
    return ImageFont.truetype(findfont('DejaVu Sans'), max(13, min(height, width) // 36))


def write(
    image: np.ndarray, texts: Iterable[str], positions: Iterable, colours: Iterable[Colour], centred: bool = False
) -> np.ndarray:
    """Write texts on their colours above positions (x, y) or `centred`, moved into the image and below other texts."""
    canvas = _Canvas(image)
    for text, (x, y), colour in zip(texts, positions, colours, strict=True):
        width, height = canvas.size_of(text)
        left, top = canvas.inside(*((x - width // 2, y - height // 2) if centred else (x, y - height)), width, height)
        canvas.place(text, [(left, top), (left, top + height), (left, top + 2 * height)], colour, required=True)
    return np.array(canvas.image)


def write_names(
    image: np.ndarray, names: Sequence[str], scores: Sequence[str], boxes: np.ndarray, colours: Sequence[Colour]
) -> np.ndarray:
    """Write the names and scores (or '') of objects at their boxes (N, 4), sorted by descending area.

    A text does not cover another text or a small box. If its object has no such place, the score is written alone, or
    nothing. The largest object of each class is always named.
    """
    canvas = _Canvas(image)
    areas = (boxes[:, 3] - boxes[:, 1]) * (boxes[:, 2] - boxes[:, 0])
    texts = [f'{name} {score}'.strip() for name, score in zip(names, scores, strict=True)]
    small = [area < SMALL * np.prod(canvas.size_of(text)) for area, text in zip(areas, texts, strict=True)]
    for left, top, right, bottom in boxes[small]:
        canvas.taken[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True
    largest = [names.index(name) for name in dict.fromkeys(names)]
    for i in sorted(range(len(names)), key=lambda i: (i not in largest, i)):
        for text in filter(None, (texts[i], scores[i])):
            positions = _positions(boxes[i], *canvas.size_of(text), inside=not small[i])
            if canvas.place(text, positions, colours[i], required=i in largest):
                break
    return np.array(canvas.image)


def captioned(images: Sequence[np.ndarray], texts: Sequence[str]) -> list[np.ndarray]:
    """Return images (H, W, 3), each below a line of text on white."""
    results = []
    for image, text in zip(images, texts, strict=True):
        font = font_for(*image.shape[:2])
        header = Image.new('RGB', (image.shape[1], int(font.size) + 8), 'white')
        ImageDraw.Draw(header).text((4, 2), shortened(text, font, header.width - 8), fill='black', font=font)
        results.append(np.concatenate([np.array(header), image]))
    return results


def shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Return a text without its middle if it is wider than `width` pixels."""
    length = len(text)
    while font.getlength(text) > width and length > 2:
        length -= 1
        text = f'{text[: length // 2]}…{text[-(length // 2) :]}'
    return text


def distinct_names(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Return the names of runs; equal names are followed by the path components in which they differ."""
    components = [path.absolute().parts for path in paths]
    start = len(os.path.commonprefix(components))
    end = len(os.path.commonprefix([path[start:][::-1] for path in components]))
    different = ['/'.join(path[start : len(path) - end]) or '.' for path in components]
    pairs = zip(names, different, strict=True)
    return [f'{name} ({where})' if names.count(name) > 1 else name for name, where in pairs]


class _Canvas:
    """An image to write on, and a mask of the pixels that text must not cover."""

    def __init__(self, image: np.ndarray):
        self.image, self.taken = Image.fromarray(image), np.zeros(image.shape[:2], dtype=bool)
        self.height, self.width = image.shape[:2]
        self.draw, self.font = ImageDraw.Draw(self.image), font_for(self.height, self.width)

    def size_of(self, text: str) -> tuple[int, int]:
        """Return width and height of a text with its margin."""
        width, height = (int(end) + 4 for end in self.draw.textbbox((0, 0), text, font=self.font)[2:])
        return width, height

    def inside(self, x: int, y: int, width: int, height: int) -> tuple[int, int]:
        """Return a position moved into the image."""
        return max(0, min(x, self.width - width)), max(0, min(y, self.height - height))

    def place(self, text: str, positions: Sequence[tuple[int, int]], colour: Colour, required: bool) -> bool:
        """Write a text at the first free position, or if `required` at the first one; return whether it was written."""
        width, height = self.size_of(text)
        right, bottom = self.width - width, self.height - height
        inside = [(x, y) for x, y in positions if 0 <= x <= right and 0 <= y <= bottom]
        free = [(x, y) for x, y in inside if not self.taken[y : y + height, x : x + width].any()]
        if free or required:
            self.write(text, *self.inside(*(free or positions)[0], width, height), colour)
        return bool(free or required)

    def write(self, text: str, x: int, y: int, colour: Colour) -> None:
        width, height = self.size_of(text)
        self.taken[y : y + height, x : x + width] = True
        self.draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
        is_dark = np.dot(colour, (0.3, 0.6, 0.1)) < 130
        self.draw.text((x + 2, y + 1), text, fill='white' if is_dark else 'black', font=self.font)


def _positions(box: np.ndarray, width: int, height: int, inside: bool) -> list[tuple[int, int]]:
    """Return the positions of a text of this size at a box, the best first, if `inside` also inside the box."""
    left, top, right, bottom = box.tolist()
    above, *around = [(x, y) for y in (top - height, bottom) for x in (left, right - width)]
    around += [(right, top), (left - width, top)]
    if not inside:
        return [above, *around]
    corners = [(left, bottom - height), (right - width, top), (right - width, bottom - height)]
    return [above, (max(0, left), max(0, top)), *around, *corners]
