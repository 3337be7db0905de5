"""The backbones inside of other projects: segmentation_models_pytorch, torchvision, Hugging Face's and mmseg's
wrappers of timm."""

import random
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('timm', reason='timm is not installed: make test STACK=timm')
import mlp_dense.timm  # noqa: F401
from mlp_dense import CycleMLP
from mlp_dense.backbones import FAMILIES
from mlp_dense.errors import UserError
from support.configs import ROOT
from support.models import SMALL, image
from support.tools import run

NAMES = ('hire_mlp_tiny', 'as_mlp_tiny', 'cycle_mlp_b1', 'wave_mlp_t_dw', 'mlp_mixer_s32', 'vip_s14', 'sparse_mlp_s16')
BY_NAME = pytest.mark.parametrize('name', NAMES)
DECODERS = ('Unet', 'UnetPlusPlus', 'MAnet', 'Linknet', 'FPN', 'PSPNet', 'UPerNet', 'Segformer', 'DPT')


@pytest.fixture
def smp():
    return pytest.importorskip('segmentation_models_pytorch')


@pytest.mark.parametrize('decoder', DECODERS)
@BY_NAME
def test_segmentation_models_pytorch(smp, name, decoder):
    if (decoder, name) == ('DPT', 'vip_s14'):
        pytest.skip('DPT doubles and halves the stride of the classifier, which is 14')
    more = dict(decoder_readout='ignore') if decoder == 'DPT' else {}  # there is no class token
    model = getattr(smp, decoder)(f'tu-{name}', encoder_weights=None, classes=3, in_channels=4, **more)
    out = model(image(2, 4, 96, 128))
    assert out.shape == (2, 3, 96, 128)
    out.sum().backward()
    unused = {key.split('.')[-3] for key, parameter in model.named_parameters() if parameter.grad is None}
    assert not unused or decoder in ('PSPNet', 'DPT')  # they leave feature maps, or the norm and the head, unused


@pytest.mark.parametrize('decoder', ['DeepLabV3', 'DeepLabV3Plus', 'PAN'])
def test_decoders_that_ask_for_another_stride(smp, decoder):
    with pytest.raises(UserError, match='has an output_stride of 32 only'):
        getattr(smp, decoder)('tu-cycle_mlp_b1', encoder_weights=None)


@BY_NAME
def test_hugging_face(name):
    transformers = pytest.importorskip('transformers')
    config = transformers.TimmBackboneConfig(backbone=name, use_pretrained_backbone=False, out_indices=(1, 3))
    backbone = transformers.TimmBackbone(config).eval()
    with torch.no_grad():
        maps = backbone(image(1, 3, 64, 96)).feature_maps
    assert [tuple(map.shape[2:]) for map in maps] == [(8, 12), (2, 3)]


@BY_NAME
def test_mmsegs_wrapper_of_timm(name):
    wrapper = pytest.importorskip('mmseg.models.backbones').TIMMBackbone
    backbone = wrapper(name, features_only=True, pretrained=False).eval()
    with torch.no_grad():
        maps = backbone(image(1, 3, 64, 96))
    assert [tuple(map.shape[2:]) for map in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]


@pytest.fixture
def detection(monkeypatch):
    """torchvision's detectors, with this package's NMS where torchvision's own is not compiled for this PyTorch."""
    from torchvision.ops import boxes

    from mlp_dense.operators.nms import nms

    try:
        boxes.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except RuntimeError:
        monkeypatch.setattr(boxes, 'nms', nms)
    with torch.compiler.set_stance('force_eager'):  # it would compile its RoIAlign in Python
        yield pytest.importorskip('torchvision.models.detection')


@pytest.mark.parametrize('family', FAMILIES, ids=lambda family: family.__name__)
def test_torchvision(detection, family):
    from mlp_dense.torchvision import BackboneWithFPN

    backbone = BackboneWithFPN(family(SMALL), out_channels=16)
    few = dict(rpn_post_nms_top_n_train=20, rpn_post_nms_top_n_test=20, box_batch_size_per_image=8)
    model = detection.MaskRCNN(backbone, 3, min_size=64, max_size=96, box_detections_per_img=5, **few)
    target = dict(boxes=torch.tensor([[8.0, 8, 40, 40]]), labels=torch.tensor([1]), masks=torch.ones(1, 64, 96))
    losses = model([image(3, 64, 96)], [dict(target, masks=target['masks'].byte())])
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in backbone.body.parameters())
    model.eval()
    with torch.no_grad():
        (found,) = model([image(3, 64, 96)])
    assert found.keys() == {'boxes', 'labels', 'scores', 'masks'} and len(found['boxes']) <= 5


def test_backbone_with_fpn_in_a_detector_of_another_size(detection):
    from mlp_dense.torchvision import BackboneWithFPN

    backbone = BackboneWithFPN(CycleMLP(SMALL), out_channels=8).eval()
    with torch.no_grad():
        maps = backbone(image(1, 3, 101, 75))
    assert list(maps) == ['0', '1', '2', '3', 'pool'] and {map.shape[1] for map in maps.values()} == {8}


def programs(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding='utf-8')
    return [part.partition('```')[0] for part in text.split('```python\n')[1:]]


def test_programs_of_the_readme(detection):
    found = [each for each in programs('README.md') if 'timm' in each or 'torchvision' in each]
    assert len(found) == 2
    for program in found:
        names = {}
        exec(program.replace('pretrained=True, ', ''), names)
        model = names.get('unet', names.get('model')).eval()
        with torch.no_grad():
            model(image(1, 4, 64, 64) if 'unet' in names else [image(3, 64, 64)])


TRAININGS = {  # what makes them quick
    'segmentation_models_pytorch': {'range(1000)': 'range(12)', '(256, 192)': '(64, 64)'},
    'MaskRCNN(': {
        'num_classes=91': 'num_classes=91, min_size=96, max_size=128, rpn_post_nms_top_n_train=20, '
        'box_batch_size_per_image=8',
        'enumerate(data)': 'enumerate(data[0] for _ in range(4))',
    },
}


@pytest.mark.slow
@pytest.mark.parametrize('kind', TRAININGS)
def test_trainings_on_genuine_pictures(shared, detection, capsys, kind):
    """The losses of the programs of docs/other_projects.md fall."""
    random.seed(0)
    torch.manual_seed(0)
    (program,) = (each for each in programs('docs/other_projects.md') if kind in each)
    places = {'data/camvid': f'{shared}/data/camvid', 'data/coco/': f'{shared}/data/coco_tiny/'}
    for old, new in {**TRAININGS[kind], **places}.items():
        assert old in program or old in places
        program = program.replace(old, new)
    exec(program, {})
    losses = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines() if line[0].isdigit()]
    assert sum(losses[-2:]) < 0.9 * sum(losses[:2])


WITHOUT_TRANSFORMERS = """
import sys
sys.path.append('{apart}')
import importlib_metadata

found = importlib_metadata.distribution

def distribution(name):
    if name == 'transformers':
        raise importlib_metadata.PackageNotFoundError(name)
    return found(name)

importlib_metadata.distribution = distribution
"""


@pytest.mark.slow
def test_mmpretrain(classes, tmp_path):
    """Its own Runner trains and tests the config of docs/other_projects.md, on the embedded data with few channels."""
    apart = Path(sys.prefix) / 'mmpretrain'
    if not apart.is_dir():
        pytest.skip(f'mmpretrain is not in {apart}, where make setup STACK=timm puts it')
    (config,) = (each for each in programs('docs/other_projects.md') if 'mmpretrain::' in each)
    (tmp_path / 'cfg.py').write_text(config)
    said = run(
        '-W',
        'ignore',
        '-c',
        f"""{WITHOUT_TRANSFORMERS.format(apart=apart)}
from mmengine.config import Config
from mmengine.runner import Runner

cfg = Config.fromfile('{tmp_path}/cfg.py')
for name, split in dict(train='train', val='val', test='val').items():
    loader = cfg[name + '_dataloader']
    loader.update(batch_size=4, num_workers=0, persistent_workers=False)
    pipeline = loader.dataset.pipeline
    loader.dataset = dict(type='CustomDataset', data_root='{classes}', data_prefix=split, pipeline=pipeline)
cfg.model.backbone.arch = dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))
cfg.model.head.update(num_classes=5, in_channels=32)
cfg.data_preprocessor.num_classes = 5
cfg.train_cfg.max_epochs, cfg.work_dir = 1, '{tmp_path}'
runner = Runner.from_cfg(cfg)
runner.train()
print(type(runner.model.backbone), runner.test())

import mlp_dense.timm
import torch
from mmpretrain.registry import MODELS

wrapped = MODELS.build(dict(type='TIMMBackbone', model_name='vip_s14', features_only=True, pretrained=False))
print([tuple(maps.shape[2:]) for maps in wrapped(torch.ones(1, 3, 64, 96))])
""",
    )
    assert "<class 'mlp_dense.backbones.cycle_mlp.CycleMLP'> {'accuracy/top1': " in said
    assert '[(16, 24), (8, 12), (4, 6), (2, 3)]' in said
