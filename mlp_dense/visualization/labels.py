"""Text on drawn images: it keeps a legible size, and stays inside the image."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

SMALL = 6  # times the area of its name: a box below it is not covered by text
Colour = tuple[int, int, int]


@cache
def font_for(height: int, width: int) -> ImageFont.FreeTypeFont:
    """The font for an image of this size."""
    return ImageFont.truetype(findfont('DejaVu Sans'), max(13, min(height, width) // 36))


def write(
    drawn: np.ndarray, texts: Iterable[str], places: Iterable, colours: Iterable[Colour], centred: bool = False
) -> np.ndarray:
    """Texts on their colours, above or around their places: moved into the image, and below a text that is there."""
    paper = _Paper(drawn)
    for text, (x, y), colour in zip(texts, places, colours, strict=True):
        width, height = paper.size_of(text)
        x, y = (x - width // 2, y - height // 2) if centred else (x, y - height)
        x, y = max(0, min(x, paper.width - width)), max(0, min(y, paper.height - height))
        lower = (y, y + height, y + 2 * height)
        free = (top for top in lower if not paper.taken[top : top + height, x : x + width].any())
        paper.write(text, x, min(next(free, y), max(0, paper.height - height)), colour)
    return np.array(paper.image)


def write_names(
    drawn: np.ndarray, names: Sequence[str], scores: Sequence[str], boxes: np.ndarray, colours: Sequence[Colour]
) -> np.ndarray:
    """The names and scores (or '') of objects at their boxes, (N, 4) and the larger ones first, on their colours.

    No text covers another or a small box. An object whose text has no such place at its box has its score alone, or
    none: its colour is that of its class, whose largest object is always named.
    """
    paper = _Paper(drawn)
    heights, widths = boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]
    texts = [f'{name} {score}'.strip() for name, score in zip(names, scores, strict=True)]
    small = [h * w < SMALL * np.prod(paper.size_of(text)) for h, w, text in zip(heights, widths, texts, strict=True)]
    for left, top, right, bottom in boxes[small]:
        paper.taken[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True
    first = [i for i, name in enumerate(names) if name not in names[:i]]
    for i in sorted(range(len(names)), key=lambda i: (i not in first, i)):
        for text in filter(None, (texts[i], scores[i])):
            size = paper.size_of(text)
            places = list(_places(boxes[i], *size, inside=not small[i]))
            free = [place for place in places if paper.is_free(*place, *size)]
            if free or i in first:
                x, y = (free or places)[0]
                x, y = max(0, min(x, paper.width - size[0])), max(0, min(y, paper.height - size[1]))
                paper.write(text, x, y, colours[i])
                break
    return np.array(paper.image)


def captioned(images: Sequence[np.ndarray], texts: Sequence[str]) -> list[np.ndarray]:
    """Images (H, W, 3), each below a line of text on white."""
    done = []
    for image, text in zip(images, texts, strict=True):
        font = font_for(*image.shape[:2])
        head = Image.new('RGB', (image.shape[1], font.size + 8), 'white')
        ImageDraw.Draw(head).text((4, 2), shortened(text, font, head.width - 8), fill='black', font=font)
        done.append(np.concatenate([np.array(head), image]))
    return done


def shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text with its middle left out, if it is too wide."""
    kept = len(text)
    while font.getlength(text) > width and kept > 2:
        kept -= 1
        text = f'{text[: kept // 2]}…{text[-(kept // 2) :]}'
    return text


class _Paper:
    """An image that is written on, and where it is already."""

    def __init__(self, drawn: np.ndarray):
        self.image, self.taken = Image.fromarray(drawn), np.zeros(drawn.shape[:2], dtype=bool)
        self.height, self.width = drawn.shape[:2]
        self.draw, self.font = ImageDraw.Draw(self.image), font_for(self.height, self.width)

    def size_of(self, text: str) -> tuple[int, int]:
        """(width, height) of a text with its margin."""
        width, height = (int(end) + 4 for end in self.draw.textbbox((0, 0), text, font=self.font)[2:])
        return width, height

    def is_free(self, x: int, y: int, width: int, height: int) -> bool:
        inside = 0 <= x <= self.width - width and 0 <= y <= self.height - height
        return inside and not self.taken[y : y + height, x : x + width].any()

    def write(self, text: str, x: int, y: int, colour: Colour) -> None:
        width, height = self.size_of(text)
        self.taken[y : y + height, x : x + width] = True
        self.draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
        dark = np.dot(colour, (0.3, 0.6, 0.1)) < 130
        self.draw.text((x + 2, y + 1), text, fill='white' if dark else 'black', font=self.font)


def _places(box: np.ndarray, width: int, height: int, inside: bool) -> Iterator[tuple[int, int]]:
    """Where a text of this size may begin, the best first: around the box, or `inside`, too."""
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
