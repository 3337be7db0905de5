"""Drawing objects, label maps and classes on images."""

import colorsys
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData
from PIL import Image, ImageDraw

from .labels import captioned, font_for, shortened, write, write_names

Size = tuple[int, int] | None  # (height, width)
OPACITY = 0.5
THIN = 20  # times a line, a box is at least as wide and high, or its line is thinner
MIN_REGION = 0.004  # share of the image below which the region of a class goes without its name


def enlarged_size(height: int, width: int, min_size: int = 320, max_size: int = 4096) -> tuple[int, int]:
    """The size times a whole number, so that names can be read: the shorter side gets at least ``min_size`` pixels,
    unless the longer one would get more than ``max_size``."""
    factor = max(1, min(-(-min_size // min(height, width)), max_size // max(height, width)))
    return height * factor, width * factor


def draw_labels(
    image: np.ndarray,
    labels: Sequence,
    draw: Callable,
    meta: Mapping,
    size: Size = None,
    label_size: Size = None,
    captions: Sequence[str] = (),
) -> np.ndarray:
    """Draws on an RGB image (H, W, 3), once for each of `labels` that is not None, from left to right.

    Args:
        draw: :func:`draw_instances` or :func:`draw_label_map`.
        meta: ``classes`` and ``palette``.
        size: of a drawn image; None enlarges small ones.
        label_size: what the labels refer to; None is the image.
        captions: a line of text above each of `labels`; none without them.
    """
    label_size = label_size or image.shape[:2]
    height, width = size or enlarged_size(*image.shape[:2])
    # Enlarged pixels stay squares.
    interpolation = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_NEAREST
    image = cv2.resize(image, (width, height), interpolation=interpolation)
    names = meta['classes'], meta.get('palette')
    drawn = [draw(image, each, label_size, *names) for each in labels if each is not None]
    if captions:
        drawn = captioned(drawn, [text for text, each in zip(captions, labels, strict=True) if each is not None])
    return np.concatenate(drawn, axis=1)


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
    """The palette of a data set, if it has a colour for each of its `count` classes and no more; else it is that of
    another data set, whose classes the config replaced, or none: distinct colours, the same ones every time."""
    if isinstance(palette, Sequence) and not isinstance(palette, str) and len(palette) == count:
        return [tuple(map(int, colour)) for colour in palette]
    golden = (math.sqrt(5) - 1) / 2  # of a turn between neighbours: no two of the first dozens have nearly the same hue
    shades = ((0.85, 0.95), (0.6, 0.7), (0.45, 1.0))  # saturation and value, in turn
    found = [colorsys.hsv_to_rgb(0.6 + i * golden, *shades[i // 5 % 3]) for i in range(count)]
    return [tuple(round(255 * part) for part in colour) for colour in found]


def draw_instances(
    image: np.ndarray, instances: InstanceData, label_size: Size, classes: Sequence[str], palette: Any
) -> np.ndarray:
    """Boxes, masks if there are any, class names and scores (percent) of objects on an RGB image (H, W, 3). The small
    ones lie on top, with thin lines."""
    palette = colours(palette, len(classes))
    boxes = torch.as_tensor(getattr(instances.bboxes, 'tensor', instances.bboxes)).cpu()
    scale = boxes.new_tensor([image.shape[1] / label_size[1], image.shape[0] / label_size[0]] * 2)
    boxes = (boxes * scale).numpy().round().astype(int)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(-areas, kind='stable')
    boxes, labels = boxes[order], instances.labels.cpu().numpy()[order]
    drawn = image.copy()
    thickness = max(2, font_for(*image.shape[:2]).size // 8)
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
        thin = max(1, min(thickness, (right - left) // THIN, (bottom - top) // THIN))
        cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), colour, int(thin))
    scores = [''] * len(labels)
    if 'scores' in instances:
        scores = [f'{100 * score:.0f}' for score in instances.scores.cpu().numpy()[order]]
    return write_names(drawn, [classes[label] for label in labels], scores, boxes, own)


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
    return write(drawn, [classes[i] for i in places], places.values(), [palette[i] for i in places], centred=True)


def draw_class(image: np.ndarray, found: InstanceData, _: Size, classes: Sequence[str], palette: Any) -> np.ndarray:
    """The names of classes, the likeliest first, and their probability (percent), on an RGB image (H, W, 3)."""
    palette, labels = colours(palette, len(classes)), found.labels.tolist()
    names = [classes[label] for label in labels]
    if 'probability' in found:
        pairs = zip(names, found.probability.tolist(), strict=True)
        names = [f'{name} {100 * probability:.0f}' for name, probability in pairs]
    line = font_for(*image.shape[:2]).size + 9
    places = [(0, line * (i + 1)) for i in range(len(names))]
    return write(image, names, places, [palette[label] for label in labels])


def contact_sheet(tiles: Sequence[tuple[np.ndarray, Sequence[str]]], size: int) -> Image.Image:
    """Images of at most ``size`` by ``size`` pixels in rows, each above its lines of text."""
    font, gap = font_for(size, size), 8
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
            draw.text((left, top + size + 3 + k * line), shortened(text, font, size), fill='black', font=font)
    return sheet


def _resize_map(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(h, w) in the size of an image, each pixel from the nearest."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(image.shape[:2], values.shape, strict=True))
    return values[rows[:, None], columns]
