"""Errors of annotations are sentences with the file, the line or id, and the remedy."""

import json
import re

import pytest

from mlp_dense.errors import UserError
from mlp_dense.formats import read

IMAGE = dict(id=1, file_name='a.jpg', width=8, height=8)
OBJECT = dict(id=17, image_id=1, category_id=1, bbox=[1, 1, 2, 2], area=4, iscrowd=0)
CATEGORY = dict(id=1, name='cat')
BOX = '<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>'


def coco(images=(IMAGE,), annotations=(OBJECT,), categories=(CATEGORY,)) -> dict:
    return {'a.json': json.dumps(dict(images=images, annotations=annotations, categories=categories)), 'a.jpg': (8, 8)}


def yolo(row: str, yaml: str = 'train: images\nnames: [cat, dog]') -> dict:
    return {'data.yaml': yaml, 'images/a.jpg': (8, 8), 'labels/a.txt': f'0 .5 .5 .5 .5\n{row}\n'}


def voc(objects: str, before: str = '') -> dict:
    return {'a.xml': f'{before}<annotation>{objects}</annotation>', 'a.jpg': (8, 8)}


def cvat(shapes: str) -> dict:
    labels = '<meta><task><labels><label><name>cat</name></label></labels></task></meta>'
    image = f'<image id="5" name="a.jpg" width="8" height="8">{shapes}</image>'
    return {'annotations.xml': f'<annotations>{labels}{image}</annotations>', 'a.jpg': (8, 8)}


def labelme(**changes) -> dict:
    content = dict(shapes=[], imagePath='a.jpg', imageWidth=8, imageHeight=8) | changes
    return {'a.json': json.dumps(content), 'a.jpg': (8, 8)}


@pytest.mark.parametrize(
    ('files', 'message'),
    [
        (coco(annotations=[dict(OBJECT, category_id=3)]), 'annotation 17 has the category 3, which is not listed'),
        (coco(annotations=[dict(OBJECT, bbox=[1, 2, 3])]), 'annotation 17 has a bbox of 3 numbers; set [left, top'),
        (coco(annotations=[dict(OBJECT, bbox=[1, 2, 3, 'x'])]), "annotation 17 has 'x' instead of a finite number"),
        (coco(annotations=[dict(OBJECT, bbox=[])]), 'annotation 17 has neither a bbox nor a polygon; remove it'),
        (coco(annotations=[dict(OBJECT, segmentation=dict(size=[8, 8], counts=[3]))]),
         'annotation 17 has an invalid run-length encoding'),
        (coco(annotations=[None]), 'annotation number 1 is None; remove it'),
        (coco(images=[IMAGE, dict(IMAGE, file_name='b.jpg')]) | {'b.jpg': (8, 8)},
         'a.jpg and b.jpg have the image id 1; give each its own'),
        (coco(images=[IMAGE, dict(IMAGE, id=2, file_name='b.jpg')]), '1 of 2 images of a.json do not exist (b.jpg)'),
        (coco(images=[dict(id=1)]), "the image {'id': 1} has no file_name"),
        (coco(categories=[CATEGORY, dict(id=1, name='dog')]), "two categories have the id 1 or the name 'dog'"),
        (coco(categories=[dict(id=1)]), "the category {'id': 1} has no id or name"),
        (coco(categories=[]), 'a.json has no categories'),
        (yolo('2 .5 .5 .1 .1'), 'labels/a.txt:2 has the class 2, but the classes are 0 to 1 (cat, dog)'),
        (yolo('-1 .5 .5 .1 .1'), 'labels/a.txt:2 has the class -1'),
        (yolo('0.5 .5 .5 .1 .1'), 'labels/a.txt:2 has the class 0.5'),
        (yolo('cat .5 .5 .1 .1'), "labels/a.txt:2 has 'cat' instead of a finite number"),
        (yolo('0 .5 .5 .1 nan'), "labels/a.txt:2 has 'nan' instead of a finite number"),
        (yolo('0 .5 .5 .1'), 'labels/a.txt:2 has 4 values; write class, x, y, width, height, or class and points.'),
        (yolo('0 .5 .5 .1 .1 .9'), 'If the last number is a score, this is a prediction'),
        (yolo('0 320 200 64 64'), 'labels/a.txt:2 has the coordinate 320, which is not a fraction of the image'),
        (yolo('', 'train: images\nnames: {0: cat, 2: dog}'), 'the keys of names are 0, 2; set 0 to 1'),
        (yolo('', 'train: images\nnames: [cat, cat]'), "the classes 0 and 1 are both 'cat'; rename one"),
        (yolo('', 'train: images\nnc: 3\nnames: [cat]'), 'nc is 3, but there are 1 names'),
        (yolo('', 'train: photos\nnames: [cat]'), "train is 'photos', which does not exist below"),
        (yolo('', 'train: images\nkpt_shape: [17, 3]\nnames: [cat]'), 'labels of keypoints are not read'),
        (yolo('', 'train: list.txt\nnames: [cat]') | {'list.txt': 'images/a.jpg\n\nimages/b.jpg\n'},
         "list.txt:3 lists the image 'images/b.jpg', which does not exist"),
        ({'data.yaml': 'train: images\nnames: [cat]', 'images/a.jpg': (8, 8)}, 'has a label file; put a.txt into'),
        (voc(f'<object>{BOX}</object>'), 'a.xml: object 1 has no name'),
        (voc('<object><name>cat</name></object>'), 'a.xml: object 1 (cat) has no bndbox with xmin, ymin, xmax'),
        (voc(f'<object><name>cat</name>{BOX.replace("3", "inf")}</object>'), "object 1 has 'inf' instead of a finite"),
        (voc('', '<!DOCTYPE a [<!ENTITY b "c">]>'), "a.xml is not read: it declares a document type ('a')"),
        (voc('<object>'), 'a.xml is not XML'),
        ({'a.xml': '<annotation/>', 'b.jpg': (8, 8)}, '1 XML file of 1 have no image (a.xml)'),
        ({'Annotations/a.xml': '<annotation/>', 'a.jpg': (8, 8), 'ImageSets/Main/train.txt': 'a\nb\n'},
         'train.txt:2: '),
        (voc(f'<object><name>cat</name>{BOX}</object>') | {'labelmap.txt': 'dog:::\n'},
         'does not list the classes cat'),
        (cvat('<box label="dog" xtl="1" ytl="1" xbr="2" ybr="2"/>'),
         "image 5: box 1 has the label 'dog', which the header does not list"),
        (cvat('<box label="cat" xtl="1" ytl="1" xbr="2"/>'), 'image 5: box 1 has None instead of a finite number'),
        (cvat('<polygon label="cat" points="1,1;2,2"/>'), 'image 5: polygon 1 has 4 coordinates'),
        (cvat('<mask label="cat" rle="1, 2" left="0" top="0" width="2" height="2"/>'),
         'image 5: mask 1 has runs of 3 pixels in 2x2'),
        ({'a.xml': '<annotations><track id="0"/></annotations>'}, '"CVAT for video", whose tracks are not read'),
        (cvat('') | {'annotations.xml': '<annotations><image id="0" name="b.jpg"/></annotations>'},
         '1 of 1 image of annotations.xml do not exist (b.jpg)'),
        (labelme(imagePath='b.jpg') | {'a.jpg': b'', 'c.jpg': (8, 8)}, 'a.jpg is missing or not a readable image'),
        ({'a.json': json.dumps(dict(shapes=[], imagePath='b.jpg', imageData='?'))}, 'a.json has an invalid imageData'),
        ({'a.json': json.dumps(dict(shapes=[], imagePath='b.jpg'))}, '1 of 1 image of LabelMe files do not exist'),
        (labelme(shapes=[dict(label='cat', points=[[1, None]] * 3)]), 'a.json: shape 1 has None instead of a finite'),
        (labelme(shapes=[dict(label='cat', points=[[1, 1]] * 2, shape_type='mask')]), 'shape 1 has an invalid mask'),
        (labelme(shapes=[dict(label='cat', points=[])]) | {'labels.txt': 'dog\n'}, 'does not list the classes cat'),
    ],
)  # fmt: skip
def test_error_names_the_place_and_the_remedy(files, message, write_files):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        read(write_files(files))
    assert str(error.value).endswith('.') and len(re.findall(r'[;,] |\. ', str(error.value))) >= 1
