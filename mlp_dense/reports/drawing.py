"""Drawing objects and label maps: labels keep a legible size, and stay inside of the picture."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from matplotlib.font_manager import findfont
from mmengine.structures import InstanceData, PixelData
from PIL import Image, ImageDraw, ImageFont

OPACITY = 0.5
MIN_REGION = 0.004  # part of a picture below which the region of a class goes without its name


def enlargement(height: int, width: int, min_size: int = 320, max_size: int = 4096) -> int:
    """The whole number by which a picture is enlarged so that labels can be read: until its shorter side has
    ``min_size`` pixels, or its longer side would have more than ``max_size``."""
    return max(1, min(-(-min_size // min(height, width)), max_size // max(height, width)))


def resize_image(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """(H, W, 3) in another size; enlarged pixels stay squares."""
    smaller = height < image.shape[0]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_NEAREST)


def resize_sample(sample: Any, height: int, width: int, new_height: int, new_width: int) -> Any:
    """The labels and predictions of a data sample of mmdet or mmseg for its picture in another size."""
    resized = type(sample)(metainfo=sample.metainfo)
    for name in ('gt_sem_seg', 'pred_sem_seg'):
        if name in sample:
            setattr(resized, name, PixelData(data=_resize_maps(sample.get(name).data, new_height, new_width)))
    for name in ('gt_instances', 'pred_instances'):
        if name in sample:
            old = sample.get(name)
            new = InstanceData(**{key: value for key, value in old.items() if key in ('labels', 'scores')})
            boxes = torch.as_tensor(getattr(old.bboxes, 'tensor', old.bboxes))
            new.bboxes = boxes * boxes.new_tensor([new_width / width, new_height / height] * 2)
            if 'masks' in old:
                masks = old.masks
                masks = masks if isinstance(masks, torch.Tensor) else torch.from_numpy(masks.to_ndarray())
                new.masks = _resize_maps(masks, new_height, new_width)
            setattr(resized, name, new)
    return resized


def draw_sample(
    image: np.ndarray,
    sample: Any,
    sides: Sequence[str],
    draw: Callable[..., np.ndarray],
    meta: Mapping[str, Any],
    size: tuple[int, int] | None = None,
    label_size: tuple[int, int] | None = None,
    score_thr: float = 0.0,
) -> np.ndarray:
    """An image (RGB, (H, W, 3)) with what a data sample of mmdet or mmseg says of it: each side that it has, from left to
    right.

    Args:
        sides: ``gt``, the ground truth, and ``pred``, the predictions.
        draw: the ``draw`` of a task.
        meta: ``classes`` and ``palette``.
        size: (height, width) of a drawn image; None enlarges small ones.
        label_size: (height, width) that boxes and label maps refer to, if not to the image.
        score_thr: predicted objects with a score above it are drawn.
    """
    old = image.shape[:2]
    height, width = size or tuple(enlargement(*old) * side for side in old)
    image = resize_image(image, width, height)
    sample = resize_sample(sample, *(label_size or old), height, width)
    if 'pred_instances' in sample:
        sample.pred_instances = sample.pred_instances[sample.pred_instances.scores > score_thr]
    there = [side for side in sides if f'{side}_instances' in sample or f'{side}_sem_seg' in sample]
    return np.concatenate([draw(image, sample, side, meta['classes'], meta.get('palette')) for side in there], axis=1)


def draw_item(
    item: Mapping[str, Any], draw: Callable[..., np.ndarray], meta: Mapping[str, Any], max_size: int, keep_size: bool
) -> tuple[np.ndarray, tuple[str, str]]:
    """The drawn image of an item of a data set, at most `max_size` by `max_size` pixels, and the lines of text below it.

    Args:
        keep_size: whether its labels refer to the image before the pipeline resized it.
    """
    sample = item['data_samples']
    image = item['inputs'].permute(1, 2, 0).clamp(0, 255).to(torch.uint8).numpy()[..., ::-1]  # from BGR
    height, width = image.shape[:2]
    scale = max_size / max(height, width)
    size = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
    drawn = draw_sample(image, sample, ['gt'], draw, meta, size, sample.ori_shape if keep_size else None)
    flip = f', flipped {sample.flip_direction}ly' if sample.get('flip') and sample.flip_direction else ''
    sizes = f'{sample.ori_shape[1]} x {sample.ori_shape[0]} became {width} x {height} pixels{flip}'
    return drawn, (Path(sample.img_path).name, sizes)


def colours(palette: Any, count: int) -> list[tuple[int, int, int]]:
    """The palette of a data set, or if it has no colour for each of its `count` classes the same random ones."""
    if not isinstance(palette, Sequence) or isinstance(palette, str) or len(palette) < count:
        palette = np.random.default_rng(0).integers(0, 256, (count, 3)).tolist()
    return [tuple(map(int, colour)) for colour in palette]


def draw_instances(picture: np.ndarray, instances: InstanceData, classes: Sequence[str], palette: Any) -> np.ndarray:
    """Boxes, masks if there are any, class names and scores (percent) of objects on an RGB picture (H, W, 3)."""
    palette = colours(palette, len(classes))
    boxes = np.asarray(instances.bboxes.cpu()).round().astype(int)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(-areas, kind='stable')  # the small ones lie on top
    boxes, instances = boxes[order], instances.cpu()[torch.from_numpy(order)]
    drawn = picture.copy()
    thickness = max(2, _font(*picture.shape[:2]).size // 8)
    own = [palette[label] for label in instances.labels]
    for mask, colour in zip(instances.get('masks', ()), own, strict=False):
        inside = np.asarray(mask).astype(np.uint8)
        drawn[inside > 0] = (drawn[inside > 0] * (1 - OPACITY) + np.array(colour) * OPACITY).astype(np.uint8)
        outline = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(drawn, outline, -1, (255, 255, 255), thickness // 2)
    for (left, top, right, bottom), colour in zip(boxes, own, strict=True):
        cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), colour, thickness)
    names = [classes[label] for label in instances.labels]
    if 'scores' in instances:
        names = [f'{name} {100 * score:.0f}' for name, score in zip(names, instances.scores.tolist(), strict=True)]
    return _write(drawn, names, boxes[:, :2], own)


def draw_label_map(picture: np.ndarray, labels: np.ndarray, classes: Sequence[str], palette: Any) -> np.ndarray:
    """A label map (H, W) blended with an RGB picture (H, W, 3), with the name of each class on its largest region.
    Pixels of no class, which the training ignores, are hatched in black and white."""
    palette = colours(palette, len(classes))
    ignored = labels >= len(classes)
    painted = np.array(palette, dtype=np.uint8)[np.where(ignored, 0, labels)]
    drawn = np.where(ignored[..., None], picture, picture * (1 - OPACITY) + painted * OPACITY).astype(np.uint8)
    rows, columns = np.indices(labels.shape)
    hatching = (rows + columns) // 4 % 2 * 255
    drawn[ignored] = drawn[ignored] // 4 + hatching[ignored, None] // 4 * 3
    names, places = [], []
    for label in np.unique(labels[~ignored]):
        inside = np.pad((labels == label).astype(np.uint8), 1)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
        if inside.mean() >= MIN_REGION:
            names.append(label)
            places.append(np.unravel_index(depth.argmax(), depth.shape)[::-1])
    return _write(drawn, [classes[i] for i in names], places, [palette[i] for i in names], centred=True)


def contact_sheet(tiles: Sequence[tuple[np.ndarray, Sequence[str]]], size: int) -> Image.Image:
    """Pictures of at most ``size`` by ``size`` pixels in rows, each above its lines of text."""
    font, gap = _font(size, size), 8
    line = font.size + 5
    lines = max(len(texts) for _, texts in tiles)
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    cell = (size + gap, size + lines * line + 2 * gap)
    sheet = Image.new('RGB', (columns * cell[0] + gap, rows * cell[1] + gap), 'white')
    draw = ImageDraw.Draw(sheet)
    for i, (picture, texts) in enumerate(tiles):
        left, top = gap + i % columns * cell[0], gap + i // columns * cell[1]
        height, width = picture.shape[:2]
        draw.rectangle((left, top, left + size - 1, top + size - 1), fill='gainsboro')
        sheet.paste(Image.fromarray(picture), (left + (size - width) // 2, top + (size - height) // 2))
        for k, text in enumerate(texts):
            draw.text((left, top + size + 3 + k * line), _shortened(text, font, size), fill='black', font=font)
    return sheet


def _resize_maps(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(N, H, W) to (N, height, width), each pixel from the nearest."""
    rows = (torch.arange(height) * maps.shape[-2]).div(height, rounding_mode='floor')
    columns = (torch.arange(width) * maps.shape[-1]).div(width, rounding_mode='floor')
    return maps[:, rows.to(maps.device)][:, :, columns.to(maps.device)]


@cache
def _font(height: int, width: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont('DejaVu Sans'), max(13, min(height, width) // 36))


def _write(
    picture: np.ndarray, texts: Sequence[str], places: Sequence, colours: Sequence, centred: bool = False
) -> np.ndarray:
    """Texts on their colours, above or around their places: moved into the picture, and below a text that is there."""
    taken = np.zeros(picture.shape[:2], dtype=bool)
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    font = _font(*picture.shape[:2])
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
