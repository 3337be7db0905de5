"""Random ground truth and detections in COCO's format: hits, near misses, wrong classes, duplicates, crowds."""

import numpy as np
from pycocotools import mask as masks


def random_coco(images: int, classes: int, seed: int, size: tuple[int, int] = (240, 320)) -> tuple[dict, list[dict]]:
    """Return the content of an annotation file, and detections with every type of error.

    Every class has objects, and all scores differ.
    """
    random, (height, width) = np.random.default_rng(seed), size
    content = dict(
        images=[dict(id=7 * i + 3, width=width, height=height, file_name=f'{i:06}.jpg') for i in range(images)],
        annotations=[],
        categories=[dict(id=2 * i + 1, name=f'class{i}') for i in range(classes)],
    )
    detections = []

    def box() -> np.ndarray:
        sides = np.exp(random.normal(3.5, 0.9, 2)).clip(4, (width - 2, height - 2))
        return np.concatenate([random.uniform(0, (width, height) - sides), sides])

    def mask(box: np.ndarray) -> dict:
        """Return the RLE of an ellipse in a box."""
        y, x = np.mgrid[:height, :width]
        (left, top, w, h) = box
        inside = ((x - left - w / 2) / (w / 2)) ** 2 + ((y - top - h / 2) / (h / 2)) ** 2 <= 1
        rle = masks.encode(np.asfortranarray(inside.astype(np.uint8)))
        return dict(rle, counts=rle['counts'].decode())

    def add(image: int, label: int, box: np.ndarray) -> None:
        segmentation = mask(box)
        detections.append(
            dict(image_id=image, category_id=2 * label + 1, bbox=box.tolist(), score=float(random.random()),
                 segmentation=segmentation)
        )  # fmt: skip

    for number, image in enumerate(content['images']):
        for k in range(int(random.integers(0, 7))):
            label, object_box = int((number + k) % classes), box()
            segmentation, crowd = mask(object_box), int(random.random() < 0.08)
            content['annotations'].append(
                dict(id=len(content['annotations']) + 1, image_id=image['id'], category_id=2 * label + 1,
                     bbox=object_box.tolist(), area=float(masks.area(segmentation)), iscrowd=crowd,
                     segmentation=segmentation)
            )  # fmt: skip
            if random.random() < 0.8:
                for _ in range(int(random.integers(1, 3))):
                    moved = object_box + random.normal(0, 0.1, 4) * np.tile(object_box[2:], 2)
                    moved[2:] = moved[2:].clip(2)
                    other = random.random() < 0.25
                    add(image['id'], int(random.integers(classes)) if other else label, moved)
        for _ in range(int(random.integers(0, 6))):
            add(image['id'], int(random.integers(classes)), box())
    return content, detections
