"""Tiny files as the tools really write them."""

import json

import pytest

from mlp_dense.formats import read

ROBOFLOW = dict(
    info=dict(year='2026', version='1', description='Exported from roboflow.com', contributor='', url='',
              date_created='2026-01-05T10:00:00+00:00'),
    licenses=[dict(id=1, url='https://creativecommons.org/licenses/by/4.0/', name='CC BY 4.0')],
    categories=[dict(id=0, name='fruits', supercategory='none'), dict(id=1, name='apple', supercategory='fruits'),
                dict(id=2, name='pear', supercategory='fruits')],
    images=[dict(id=0, license=1, file_name='a_jpg.rf.0f1e.jpg', height=40, width=60, date_captured='2026-01-05')],
    annotations=[dict(id=0, image_id=0, category_id=2, bbox=[10, 5.5, 20, 10.25], area=205, segmentation=[],
                      iscrowd=0)],
)  # fmt: skip
CVAT_COCO = dict(
    licenses=[dict(name='', id=0, url='')],
    info=dict(contributor='', date_created='', description='', url='', version='', year=''),
    categories=[dict(id=1, name='apple', supercategory=''), dict(id=2, name='pear', supercategory='')],
    images=[dict(id=1, width=60, height=40, file_name='a.jpg', license=0, flickr_url='', coco_url='', date_captured=0)],
    annotations=[
        dict(id=1, image_id=1, category_id=2, segmentation=[], area=205.0, bbox=[10.0, 5.5, 20.0, 10.25], iscrowd=0,
             attributes=dict(occluded=False, rotation=0.0)),
        dict(id=2, image_id=1, category_id=1, segmentation=dict(counts=[0, 2, 2398], size=[40, 60]), area=2.0,
             bbox=[0.0, 0.0, 1.0, 2.0], iscrowd=1, attributes=dict(occluded=False)),
    ],
)  # fmt: skip
LABEL_STUDIO = dict(
    images=[dict(width=60, height=40, id=0, file_name='images\\1a2b-a.jpg')],
    categories=[dict(id=0, name='apple'), dict(id=1, name='pear')],
    annotations=[dict(id=0, image_id=0, category_id=1, segmentation=[], bbox=[10.0, 5.5, 20.0, 10.25], ignore=0,
                      iscrowd=0, area=205.0)],
    info=dict(year=2026, version='1.0', description='', contributor='Label Studio', url='', date_created=''),
)  # fmt: skip
ROBOFLOW_YAML = """train: ../train/images
val: ../valid/images
test: ../test/images

nc: 2
names: ['apple', 'pear']

roboflow:
  workspace: mine
  project: fruits
  version: 1
"""
ULTRALYTICS_YAML = """# comment
path: ../datasets/fruits # dataset root dir
train: images/train
val: images/val
test: # optional

names:
  0: apple
  1: pear
"""
OBJ_DATA = 'classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n'
ROW = '1 0.333333333 0.265625 0.333333333 0.25625\n'
LABELIMG = """<annotation>
\t<folder>images</folder>
\t<filename>a.jpg</filename>
\t<path>C:\\Users\\me\\images\\a.jpg</path>
\t<source>
\t\t<database>Unknown</database>
\t</source>
\t<size>
\t\t<width>60</width>
\t\t<height>40</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>
\t<object>
\t\t<name>pear</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>0</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>10</xmin>
\t\t\t<ymin>5.5</ymin>
\t\t\t<xmax>30</xmax>
\t\t\t<ymax>15.75</ymax>
\t\t</bndbox>
\t</object>
</annotation>
"""
PASCAL = """<annotation>
<folder>VOC2007</folder><filename>a.jpg</filename>
<source><database>The VOC2007 Database</database><annotation>PASCAL VOC2007</annotation><image>flickr</image></source>
<size><width>60</width><height>40</height><depth>3</depth></size><segmented>0</segmented>
<object><name>pear</name><pose>Left</pose><truncated>1</truncated><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>6</ymin><xmax>60</xmax><ymax>40</ymax></bndbox>
<part><name>head</name><bndbox><xmin>3</xmin><ymin>7</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>
</object></annotation>
"""
LABELME = dict(
    version='5.4.1',
    flags={},
    shapes=[
        dict(label='pear', points=[[30.0, 15.75], [10.0, 5.5]], group_id=None, description='',
             shape_type='rectangle', flags={}, mask=None),
        dict(label='apple', points=[[1.0, 1.0], [5.0, 1.0], [5.0, 4.0]], group_id=7, shape_type='polygon', flags={}),
        dict(label='apple', points=[[8.0, 1.0], [9.0, 1.0], [9.0, 6.0]], group_id=7, shape_type='polygon', flags={}),
        dict(label='apple', points=[[40.0, 20.0], [40.0, 25.0]], group_id=None, shape_type='circle', flags={}),
        dict(label='apple', points=[[4.0, 2.0]], group_id=None, shape_type='point', flags={}),
    ],
    imagePath='..\\images\\a.jpg',
    imageData=None,
    imageHeight=40,
    imageWidth=60,
)  # fmt: skip
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><job><id>3</id><size>1</size><mode>annotation</mode>
    <labels>
      <label><name>pear</name><color>#33ddff</color><type>any</type><attributes></attributes></label>
      <label><name>apple</name><color>#fa3253</color><type>any</type><attributes></attributes></label>
    </labels></job>
    <dumped>2026-01-05 10:00:00+00:00</dumped>
  </meta>
  <image id="0" name="a.jpg" subset="Validation" task_id="1" width="60" height="40">
    <box label="pear" source="manual" occluded="0" xtl="10.00" ytl="5.50" xbr="30.00" ybr="15.75" z_order="0">
      <attribute name="ripe">yes</attribute>
    </box>
    <polygon label="apple" source="manual" occluded="0" points="1.00,1.00;5.00,1.00;5.00,4.00" z_order="0"/>
    <mask label="apple" source="manual" occluded="0" rle="1, 2, 3" left="2" top="3" width="3" height="2" z_order="0"/>
    <polyline label="apple" source="manual" occluded="0" points="1.00,1.00;5.00,1.00" z_order="0"/>
    <box label="pear" source="manual" occluded="0" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90.00" z_order="0"/>
  </image>
</annotations>
"""
PEAR = (10.0, 5.5, 20.0, 10.25)


def objects(data):
    """Return pairs (class, box) of the only image."""
    (record,) = data.records()
    return [(data.classes[annotation.label], tuple(annotation.box)) for annotation in record.annotations]


def test_roboflow_coco(write_files):
    root = write_files({'valid/_annotations.coco.json': json.dumps(ROBOFLOW), 'valid/a_jpg.rf.0f1e.jpg': (60, 40)})
    data = read(root)
    assert data.classes == ['apple', 'pear'] and list(data.splits) == ['val'] and objects(data) == [('pear', PEAR)]
    assert 'fruits' in data.notes[0]


def test_cvat_coco_with_a_brush_mask(write_files):
    file = 'annotations/instances_default.json'
    data = read(write_files({file: json.dumps(CVAT_COCO), 'images/default/a.jpg': (60, 40)}))
    assert list(data.splits) == ['train'] and objects(data) == [('pear', PEAR), ('apple', (0.0, 0.0, 1.0, 2.0))]
    (record,) = data.records()
    assert record.annotations[1].crowd and record.annotations[1].rle == dict(counts=[0, 2, 2398], size=[40, 60])


def test_label_studio_coco(write_files):
    data = read(write_files({'result.json': json.dumps(LABEL_STUDIO), 'images/1a2b-a.jpg': (60, 40)}))
    assert objects(data) == [('pear', PEAR)] and data.classes == ['apple', 'pear']


@pytest.mark.parametrize(
    'files',
    [
        {'data.yaml': ROBOFLOW_YAML, 'train/images/a.jpg': (60, 40), 'train/labels/a.txt': ROW,
         'valid/images/b.jpg': (60, 40), 'valid/labels/b.txt': ROW},
        {'fruits.yaml': ULTRALYTICS_YAML, 'images/train/a.jpg': (60, 40), 'labels/train/a.txt': ROW,
         'images/val/b.jpg': (60, 40), 'labels/val/b.txt': ROW},
    ],
    ids=['roboflow', 'ultralytics'],
)  # fmt: skip
def test_yolo_yaml(files, write_files):
    data = read(write_files(files))
    assert data.classes == ['apple', 'pear'] and list(data.splits) == ['train', 'val']
    assert [annotation.box for record in data.records() for annotation in record.annotations] == [PEAR] * 2


@pytest.mark.parametrize(
    'files',
    [
        {'obj.data': OBJ_DATA, 'obj.names': 'apple\npear\n', 'train.txt': 'data/obj_train_data/a.jpg\n',
         'obj_train_data/a.jpg': (60, 40), 'obj_train_data/a.txt': ROW},
        {'classes.txt': 'apple\npear\n', 'a.jpg': (60, 40), 'a.txt': ROW},
        {'classes.txt': 'apple\npear\n', 'notes.json': '{"categories": []}', 'images/a.jpg': (60, 40),
         'labels/a.txt': ROW},
    ],
    ids=['cvat', 'labelimg', 'label_studio'],
)  # fmt: skip
def test_yolo_without_yaml(files, write_files):
    assert objects(read(write_files(files))) == [('pear', PEAR)]


def test_voc_of_labelimg(write_files):
    assert objects(read(write_files({'a.xml': LABELIMG, 'a.jpg': (60, 40)}))) == [('pear', PEAR)]


def test_original_voc_counts_pixels_from_1(write_files):
    files = {'VOC2007/Annotations/a.xml': PASCAL, 'VOC2007/JPEGImages/a.jpg': (60, 40)}
    data = read(write_files(files | {'VOC2007/ImageSets/Main/pear_train.txt': 'a  1\n'}))
    assert objects(data) == [('pear', (0.0, 5.0, 60.0, 35.0))]
    assert any('count pixels from 1' in note for note in data.notes)
    assert any('"difficult" is not read' in line for line in data.losses.lines())


def test_labelme(write_files):
    data = read(write_files({'labels/a.json': json.dumps(LABELME), 'images/a.jpg': (60, 40)}))
    assert objects(data) == [
        ('pear', PEAR), ('apple', (1.0, 1.0, 8.0, 5.0)), ('apple', (35.0, 15.0, 10.0, 10.0))
    ]  # fmt: skip
    _, joined, circle = next(data.records()).annotations
    assert joined.polygons == ((1, 1, 5, 1, 5, 4), (8, 1, 9, 1, 9, 6))
    assert abs(circle.polygons[0][0] - 45) < 1e-3 and len(circle.polygons) == 1
    lines = data.losses.lines()
    assert len(lines) == 2 and "of the type 'point'" in lines[0] and 'circles become outlines' in lines[1]


def test_cvat_for_images(write_files):
    data = read(write_files({'annotations.xml': CVAT, 'images/a.jpg': (60, 40)}))
    assert data.classes == ['pear', 'apple'] and list(data.splits) == ['val']
    turned = ('pear', (15.0, 5.0, 10.0, 20.0))
    # the mask has runs of 1, 2 and 3 pixels in rows of 3
    assert objects(data) == [('pear', PEAR), ('apple', (1.0, 1.0, 4.0, 3.0)), ('apple', (3.0, 3.0, 2.0, 1.0)), turned]
    assert "left out: they are of the type 'polyline'" in data.losses.lines()[0]
