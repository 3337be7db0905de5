"""Drawing objects and label maps: their names keep a legible size, and stay inside the image."""

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
from PIL import Image, ImageDraw, ImageFont

Size = tuple[int, int] | None  # (height, width)
OPACITY = 0.5
MIN_REGION = 0.004  # share of the image below which the region of a class goes without its name


def enlarged_size(height: int, width: int, min_size: int = 320, max_size: int = 4096) -> tuple[int, int]:
    """The size times a whole number, so that names can be read: the shorter side gets at least ``min_size`` pixels,
    unless the longer one would get more than ``max_size``."""
    factor = max(1, min(-(-min_size // min(height, width)), max_size // max(height, width)))
    return height * factor, width * factor


def draw_labels(
    image: np.ndarray, labels: Sequence, draw: Callable, meta: Mapping, size: Size = None, label_size: Size = None
) -> np.ndarray:
    """Draws on an RGB image (H, W, 3), once for each of `labels` that is not None, from left to right.

    Args:
        draw: :func:`draw_instances` or :func:`draw_label_map`.
        meta: ``classes`` and ``palette``.
        size: of a drawn image; None enlarges small ones.
        label_size: what the labels refer to; None is the image.
    """
    label_size = label_size or image.shape[:2]
    height, width = size or enlarged_size(*image.shape[:2])
    # Enlarged pixels stay squares.
    interpolation = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_NEAREST
    image = cv2.resize(image, (width, height), interpolation=interpolation)
    names = meta['classes'], meta.get('palette')
    return np.concatenate([draw(image, each, label_size, *names) for each in labels if each is not None], axis=1)


def draw_item(item: Mapping[str, Any], labels: Any, max_size: int, keep_size: bool, *how: Any) -> tuple:
    """Draws an item of a data set, at most `max_size` pixels a side, with its ground truth, which refers to the item or
    (`keep_size`) to the original image; `how` is ``draw, meta``. Returns it and the lines of text below it."""
    sample = item['data_samples']
    image = item['inputs'].permute(1, 2, 0).clamp(0, 255).to(torch.uint8).numpy()[..., ::-1]  # from BGR
    height, width = image.shape[:2]
    scale = max_size / max(height, width)
    size = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
    drawn = draw_labels(image, [labels], *how, size, sample.ori_shape if keep_size else None)
    flip = f', flipped {sample.flip_direction}ly' if sample.get('flip') and sample.flip_direction else ''
    sizes = f'{sample.ori_shape[1]} x {sample.ori_shape[0]} became {width} x {height} pixels{flip}'
    return drawn, (Path(sample.img_path).name, sizes)


def colours(palette: Any, count: int) -> list[tuple[int, int, int]]:
    """The palette of a data set, or if it has no colour for each of its `count` classes the same random ones."""
    if not isinstance(palette, Sequence) or isinstance(palette, str) or len(palette) < count:
        palette = np.random.default_rng(0).integers(0, 256, (count, 3)).tolist()
    return [tuple(map(int, colour)) for colour in palette]


def draw_instances(
    image: np.ndarray, instances: InstanceData, label_size: Size, classes: Sequence[str], palette: Any
) -> np.ndarray:
    """Boxes, masks if there are any, class names and scores (percent) of objects on an RGB image (H, W, 3)."""
    palette = colours(palette, len(classes))
    boxes = torch.as_tensor(getattr(instances.bboxes, 'tensor', instances.bboxes)).cpu()
    scale = boxes.new_tensor([image.shape[1] / label_size[1], image.shape[0] / label_size[0]] * 2)
    boxes = (boxes * scale).numpy().round().astype(int)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(-areas, kind='stable')  # the small ones lie on top
    boxes, labels = boxes[order], instances.labels.cpu().numpy()[order]
    drawn = image.copy()
    thickness = max(2, _font(*image.shape[:2]).size // 8)
    own = [palette[label] for label in labels]
    if 'masks' in instances:
        masks = instances.masks
        masks = masks.cpu().numpy() if isinstance(masks, torch.Tensor) else masks.to_ndarray()
        for mask, colour in zip(masks[order], own, strict=True):
            inside = _resize_map(mask, image).astype(np.uint8)
            drawn[inside > 0] = (drawn[inside > 0] * (1 - OPACITY) + np.array(colour) * OPACITY).astype(np.uint8)
            outline = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
            cv2.drawContours(drawn, outline, -1, (255, 255, 255), thickness // 2)
    for (left, top, right, bottom), colour in zip(boxes, own, strict=True):
        cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), colour, thickness)
    names = [classes[label] for label in labels]
    if 'scores' in instances:
        scores = instances.scores.cpu().numpy()[order]
        names = [f'{name} {100 * score:.0f}' for name, score in zip(names, scores, strict=True)]
    return _write(drawn, names, boxes[:, :2], own)


def draw_label_map(image: np.ndarray, labels: PixelData, _: Size, classes: Sequence[str], palette: Any) -> np.ndarray:
    """A label map of any size blended with an RGB image (H, W, 3), with the name of each class on its largest region.
    Pixels of no class, which the training ignores, are hatched in black and white."""
    palette = colours(palette, len(classes))
    labels = _resize_map(labels.data[0].cpu().numpy(), image)
    ignored = labels >= len(classes)
    painted = np.array(palette, dtype=np.uint8)[np.where(ignored, 0, labels)]
    drawn = np.where(ignored[..., None], image, image * (1 - OPACITY) + painted * OPACITY).astype(np.uint8)
    rows, columns = np.indices(labels.shape)
    hatching = (rows + columns) // 4 % 2 * 255
    drawn[ignored] = drawn[ignored] // 4 + hatching[ignored, None] // 4 * 3
    places = {}
    for label in np.unique(labels[~ignored]):
        inside = np.pad((labels == label).astype(np.uint8), 1)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
        if inside.mean() >= MIN_REGION:
            places[label] = np.unravel_index(depth.argmax(), depth.shape)[::-1]
    return _write(drawn, [classes[i] for i in places], places.values(), [palette[i] for i in places], centred=True)


def draw_class(image: np.ndarray, found: InstanceData, _: Size, classes: Sequence[str], palette: Any) -> np.ndarray:
    """The names of classes, the likeliest first, and their probability (percent), on an RGB image (H, W, 3)."""
    palette, labels = colours(palette, len(classes)), found.labels.tolist()
    names = [classes[label] for label in labels]
    if 'probability' in found:
        pairs = zip(names, found.probability.tolist(), strict=True)
        names = [f'{name} {100 * probability:.0f}' for name, probability in pairs]
    line = _font(*image.shape[:2]).size + 9
    places = [(0, line * (i + 1)) for i in range(len(names))]
    return _write(image, names, places, [palette[label] for label in labels])


def contact_sheet(tiles: Sequence[tuple[np.ndarray, Sequence[str]]], size: int) -> Image.Image:
    """Images of at most ``size`` by ``size`` pixels in rows, each above its lines of text."""
    font, gap = _font(size, size), 8
    line = font.size + 5
    lines = max(len(texts) for _, texts in tiles)
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    cell = (size + gap, size + lines * line + 2 * gap)
    sheet = Image.new('RGB', (columns * cell[0] + gap, rows * cell[1] + gap), 'white')
    draw = ImageDraw.Draw(sheet)
    for i, (tile, texts) in enumerate(tiles):
        left, top = gap + i % columns * cell[0], gap + i // columns * cell[1]
        height, width = tile.shape[:2]
        draw.rectangle((left, top, left + size - 1, top + size - 1), fill='gainsboro')
        sheet.paste(Image.fromarray(tile), (left + (size - width) // 2, top + (size - height) // 2))
        for k, text in enumerate(texts):
            draw.text((left, top + size + 3 + k * line), _shortened(text, font, size), fill='black', font=font)
    return sheet


def _resize_map(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(h, w) in the size of an image, each pixel from the nearest."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(image.shape[:2], values.shape, strict=True))
    return values[rows[:, None], columns]


@cache
def _font(height: int, width: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont('DejaVu Sans'), max(13, min(height, width) // 36))


def _write(drawn: np.ndarray, texts: Iterable, places: Iterable, colours: Iterable, centred: bool = False) -> Any:
    """Texts on their colours, above or around their places: moved into the image, and below a text that is there."""
    taken, font = np.zeros(drawn.shape[:2], dtype=bool), _font(*drawn.shape[:2])
    image = Image.fromarray(drawn)
    draw = ImageDraw.Draw(image)
    for text, (x, y), colour in zip(texts, places, colours, strict=True):
        width, height = (int(end) + 4 for end in draw.textbbox((0, 0), text, font=font)[2:])
        x, y = (x - width // 2, y - height // 2) if centred else (x, y - height)
        x, y = max(0, min(x, image.width - width)), max(0, min(y, image.height - height))
        lower = (y, y + height, y + 2 * height)
        free = (top for top in lower if not taken[top : top + height, x : x + width].any())
        y = min(next(free, y), max(0, image.height - height))
        taken[y : y + height, x : x + width] = True
        draw.rectangle((x, y, x + width, y + height), fill=colour)
        dark = np.dot(colour, (0.3, 0.6, 0.1)) < 130
        draw.text((x + 2, y + 1), text, fill='white' if dark else 'black', font=font)
    return np.array(image)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text with its middle left out, if it is too wide."""
    kept = len(text)
    while font.getlength(text) > width and kept > 2:
        kept -= 1
        text = f'{text[: kept // 2]}…{text[-(kept // 2) :]}'
    return text
