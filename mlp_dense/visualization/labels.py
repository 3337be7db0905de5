"""Text on drawn images, in a legible size and inside the image."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache

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
    """Write texts on their colours above positions (x, y), or `centred` on them.

    Texts are moved into the image, and below a text that is already there.
    """
    canvas = _Canvas(image)
    for text, (x, y), colour in zip(texts, positions, colours, strict=True):
        width, height = canvas.size_of(text)
        left, top = (x - width // 2, y - height // 2) if centred else (x, y - height)
        left, top = canvas.moved_inside(left, top, width, height)
        free = (y for y in (top, top + height, top + 2 * height) if not canvas.is_taken(left, y, width, height))
        canvas.write(text, *canvas.moved_inside(left, next(free, top), width, height), colour)
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
            size = canvas.size_of(text)
            positions = list(_positions(boxes[i], *size, inside=not small[i]))
            free = [position for position in positions if canvas.is_free(*position, *size)]
            if free or i in largest:
                canvas.write(text, *canvas.moved_inside(*(free or positions)[0], *size), colours[i])
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

    def moved_inside(self, x: int, y: int, width: int, height: int) -> tuple[int, int]:
        return max(0, min(x, self.width - width)), max(0, min(y, self.height - height))

    def is_taken(self, x: int, y: int, width: int, height: int) -> bool:
        return bool(self.taken[y : y + height, x : x + width].any())

    def is_free(self, x: int, y: int, width: int, height: int) -> bool:
        is_inside = 0 <= x <= self.width - width and 0 <= y <= self.height - height
        return is_inside and not self.is_taken(x, y, width, height)

    def write(self, text: str, x: int, y: int, colour: Colour) -> None:
        width, height = self.size_of(text)
        self.taken[y : y + height, x : x + width] = True
        self.draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
        is_dark = np.dot(colour, (0.3, 0.6, 0.1)) < 130
        self.draw.text((x + 2, y + 1), text, fill='white' if is_dark else 'black', font=self.font)


def _positions(box: np.ndarray, width: int, height: int, inside: bool) -> Iterator[tuple[int, int]]:
    """Yield the positions of a text of this size at a box, the best first, if `inside` also inside the box."""
    left, top, right, bottom = box.tolist()
    yield left, top - height
    if inside:
        yield max(0, left), max(0, top)
    yield right - width, top - height
    yield left, bottom
    yield right - width, bottom
    yield right, top
    yield left - width, top
    if inside:
        yield left, bottom - height
        yield right - width, top
        yield right - width, bottom - height
