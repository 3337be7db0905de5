"""Objects, label maps, classes and text drawn on RGB images."""

import colorsys
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from matplotlib.font_manager import findfont
from mmengine.structures import InstanceData, PixelData
from PIL import Image, ImageDraw, ImageFont, ImageOps

Size = tuple[int, int]  # (height, width)
Colour = tuple[int, int, int]
OPACITY = 0.5
THIN = 20  # the line of a box is at most the width or height of the box divided by this
GAP = 4  # white pixels around an image of a contact sheet
SMALL = 6  # text does not cover a box with an area below this multiple of its name's area
MIN_REGION = 0.004  # classes below this fraction of the image have no name


def enlarged_size(height: int, width: int, min_size: int = 320, max_size: int = 4096) -> Size:
    """Return a size times an integer: at least `min_size` pixels, unless the longer side would exceed `max_size`."""
    factor = max(1, min(-(-min_size // min(height, width)), max_size // max(height, width)))
    return height * factor, width * factor


def draw_labels(
    image: np.ndarray,
    labels: Sequence,
    draw: Callable[..., np.ndarray],
    meta: Mapping,
    size: Size | None = None,
    label_size: Size | None = None,
    captions: Sequence[str] = (),
    bgr: bool = False,
) -> np.ndarray:
    """Draw labels on copies of an RGB image (H, W, 3), from left to right; with `bgr`, image and result are BGR.

    `labels` are ground truth or predictions; None is skipped. `draw` is :func:`draw_instances`, :func:`draw_label_map`
    or :func:`draw_class`. `meta` has ``classes`` and ``palette``. A drawn image gets `size`; without it, small images
    are enlarged. Labels refer to `label_size`, by default the size of the image. Each label can have a caption.
    """
    image = np.ascontiguousarray(image[..., ::-1]) if bgr else image
    label_size = label_size or image.shape[:2]
    height, width = size or enlarged_size(*image.shape[:2])
    interpolation = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_NEAREST  # enlarged pixels stay squares
    image = cv2.resize(image, (width, height), interpolation=interpolation)
    tiles = []
    for i, item in enumerate(labels):
        if item is not None:
            drawn = draw(image, item, label_size, meta['classes'], meta.get('palette'))
            tiles.append(captioned(drawn, captions[i]) if captions else drawn)
    result = np.concatenate(tiles, axis=1)
    return np.ascontiguousarray(result[..., ::-1]) if bgr else result


def draw_item(
    item: Mapping[str, Any],
    labels: Any,
    max_size: int,
    keep_size: bool,
    draw: Callable[..., np.ndarray],
    meta: Mapping,
    to_rgb: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[np.ndarray, tuple[str, str]]:
    """Draw an item of a data set with its ground truth; return the RGB image and two lines of text about it.

    The longer side gets `max_size` pixels. Labels refer to the item, or with `keep_size` to the original image.
    `to_rgb` converts images (H, W, C) to RGB; by default they are BGR with values from 0 to 255.
    """
    sample, image = item['data_samples'], item['inputs'].permute(1, 2, 0)
    image = to_rgb(image.numpy()) if to_rgb else image.clamp(0, 255).to(torch.uint8).numpy()[..., ::-1]
    height, width = image.shape[:2]
    scale = max_size / max(height, width)
    size = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
    drawn = draw_labels(image, [labels], draw, meta, size, sample.ori_shape if keep_size else None)
    sizes = f'{sample.ori_shape[1]} x {sample.ori_shape[0]} became {width} x {height} pixels'
    return drawn, (Path(sample.img_path).name, sizes)


def colours(palette: Any, count: int) -> list[Colour]:
    """Return the palette of a data set if it has exactly `count` colours, else the same distinct colours every time.

    Another number of colours means that the config replaced the classes of the data set.
    """
    if isinstance(palette, Sequence) and not isinstance(palette, str) and len(palette) == count:
        return [(int(red), int(green), int(blue)) for red, green, blue in palette]
    golden = (math.sqrt(5) - 1) / 2  # turns between neighbours, so that dozens of hues differ
    shades = ((0.85, 0.95), (0.6, 0.7), (0.45, 1.0))  # saturation and value, in turn
    generated = [colorsys.hsv_to_rgb(0.6 + i * golden, *shades[i // 5 % 3]) for i in range(count)]
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in generated]


def draw_instances(
    image: np.ndarray, instances: InstanceData, label_size: Size, classes: Sequence[str], palette: Any
) -> np.ndarray:
    """Draw boxes, masks, class names and scores (percent) on an RGB image (H, W, 3), small objects last and thinly."""
    palette = colours(palette, len(classes))
    boxes = torch.as_tensor(getattr(instances.bboxes, 'tensor', instances.bboxes)).cpu()
    scale = boxes.new_tensor([image.shape[1] / label_size[1], image.shape[0] / label_size[0]] * 2)
    corners = (boxes * scale).numpy().round().astype(int)
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    order = np.argsort(-areas, kind='stable')
    corners, labels = corners[order], instances.labels.cpu().numpy()[order]
    drawn = image.copy()
    thickness = max(2, int(font_for(*image.shape[:2]).size) // 8)
    object_colours = [palette[label] for label in labels]
    if 'masks' in instances:
        masks = instances.masks
        masks = masks.cpu().numpy() if isinstance(masks, torch.Tensor) else masks.to_ndarray()
        for mask, colour in zip(masks[order], object_colours, strict=True):
            inside = _resize_map(mask, image).astype(np.uint8)
            drawn[inside > 0] = (drawn[inside > 0] * (1 - OPACITY) + np.array(colour) * OPACITY).astype(np.uint8)
            contours = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
            cv2.drawContours(drawn, contours, -1, (255, 255, 255), thickness // 2)
    for (left, top, right, bottom), colour in zip(corners, object_colours, strict=True):
        line = max(1, min(thickness, (right - left) // THIN, (bottom - top) // THIN))
        cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), colour, int(line))
    scores = instances.scores.cpu().numpy()[order] if 'scores' in instances else ()
    texts = [f'{100 * score:.0f}' for score in scores] or [''] * len(labels)
    return write_names(drawn, [classes[label] for label in labels], texts, corners, object_colours)


def draw_label_map(image: np.ndarray, labels: PixelData, _: Any, classes: Sequence[str], palette: Any) -> np.ndarray:
    """Blend a label map of any size with an RGB image (H, W, 3); name each class at its largest region.

    Pixels without a class, which training ignores, are hatched in black and white.
    """
    palette = colours(palette, len(classes))
    label_map = _resize_map(labels.data[0].cpu().numpy(), image)
    ignored = label_map >= len(classes)
    painted = np.array(palette, dtype=np.uint8)[np.where(ignored, 0, label_map)]
    drawn = np.where(ignored[..., None], image, image * (1 - OPACITY) + painted * OPACITY).astype(np.uint8)
    hatching = np.indices(label_map.shape).sum(0) // 4 % 2 * 255
    drawn[ignored] = drawn[ignored] // 4 + hatching[ignored, None] // 4 * 3
    positions = {}
    for label in np.unique(label_map[~ignored]).tolist():
        inside = np.pad((label_map == label).astype(np.uint8), 1)
        if inside.mean() >= MIN_REGION:
            depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
            positions[label] = divmod(int(depth.argmax()), depth.shape[1])[::-1]
    names, name_colours = [classes[label] for label in positions], [palette[label] for label in positions]
    return write(drawn, names, positions.values(), name_colours, centred=True)


def draw_class(image: np.ndarray, label: InstanceData, _: Any, classes: Sequence[str], palette: Any) -> np.ndarray:
    """Write the names of the top classes and their probability (percent) on an RGB image (H, W, 3)."""
    palette, indices = colours(palette, len(classes)), label.labels.tolist()
    names = [classes[i] for i in indices]
    if 'probability' in label:
        names = [f'{name} {100 * p:.0f}' for name, p in zip(names, label.probability.tolist(), strict=True)]
    line = font_for(*image.shape[:2]).size + 9
    positions = [(0, line * (i + 1)) for i in range(len(names))]
    return write(image, names, positions, [palette[i] for i in indices])


def contact_sheet(tiles: Sequence[tuple[np.ndarray, Sequence[str]]], size: int) -> Image.Image:
    """Arrange RGB images of at most `size` by `size` pixels in rows, each below its lines of text."""
    cells = []
    for tile, texts in tiles:
        cell = np.array(ImageOps.pad(Image.fromarray(tile), (size, size), color='gainsboro'))
        for text in reversed(texts):
            cell = captioned(cell, text)
        cells.append(np.pad(cell, ((GAP, GAP), (GAP, GAP), (0, 0)), constant_values=255))
    columns = math.ceil(math.sqrt(len(cells)))
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    rows = [np.concatenate(cells[i : i + columns], axis=1) for i in range(0, len(cells), columns)]
    return Image.fromarray(np.concatenate(rows))


def _resize_map(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Resize an array (h, w) to the size of an image with nearest-neighbour interpolation."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(image.shape[:2], values.shape, strict=True))
    return values[rows[:, None], columns]


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


def captioned(image: np.ndarray, text: str) -> np.ndarray:
    """Return an image (H, W, 3) below a line of text on white."""
    font = font_for(*image.shape[:2])
    header = Image.new('RGB', (image.shape[1], int(font.size) + 8), 'white')
    ImageDraw.Draw(header).text((4, 2), shortened(text, font, header.width - 8), fill='black', font=font)
    return np.concatenate([np.array(header), image])


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

    def inside(self, x: int, y: int, width: int, height: int) -> tuple[int, int]:
        """Return a position moved into the image."""
        return max(0, min(x, self.width - width)), max(0, min(y, self.height - height))

    def place(self, text: str, positions: Sequence[tuple[int, int]], colour: Colour, required: bool) -> bool:
        """Write a text at the first free position, or if `required` at the first one; return whether it was written."""
        width, height = self.size_of(text)
        inside = [(x, y) for x, y in positions if self.inside(x, y, width, height) == (x, y)]
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
    above = left, top - height
    around = [(right - width, top - height), (left, bottom), (right - width, bottom), (right, top), (left - width, top)]
    if not inside:
        return [above, *around]
    corners = [(left, bottom - height), (right - width, top), (right - width, bottom - height)]
    return [above, (max(0, left), max(0, top)), *around, *corners]
