"""Backbones in other projects: segmentation_models_pytorch, torchvision, and wrappers of timm."""

import random
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('timm', reason='timm is not installed: make test STACK=timm')
import mlp_dense.timm  # noqa: F401
from mlp_dense import CycleMLP
from mlp_dense.backbones import FAMILIES
from support.configs import ROOT
from support.models import SMALL, image
from support.tools import run

NAMES = ('hire_mlp_tiny', 'as_mlp_tiny', 'cycle_mlp_b1', 'wave_mlp_t_dw', 'mlp_mixer_s32', 'vip_s14', 'sparse_mlp_s16')
BY_NAME = pytest.mark.parametrize('name', NAMES)
DECODERS = ('Unet', 'UnetPlusPlus', 'MAnet', 'Linknet', 'FPN', 'PSPNet', 'UPerNet', 'Segformer', 'DPT')


@pytest.fixture
def smp():
    return pytest.importorskip('segmentation_models_pytorch')


@pytest.mark.parametrize(
    ('name', 'decoder'), [*(('cycle_mlp_b1', decoder) for decoder in DECODERS), *((name, 'Unet') for name in NAMES)]
)
def test_decoders_of_segmentation_models_pytorch_train(smp, name, decoder):
    arguments = dict(decoder_readout='ignore') if decoder == 'DPT' else {}  # the networks have no class token
    model = getattr(smp, decoder)(f'tu-{name}', encoder_weights=None, classes=3, in_channels=4, **arguments)
    out = model(image(2, 4, 96, 128))
    assert out.shape == (2, 3, 96, 128)
    out.sum().backward()
    unused = {key.split('.')[-3] for key, parameter in model.named_parameters() if parameter.grad is None}
    assert not unused or decoder in ('PSPNet', 'DPT')  # these do not use all feature maps, or the norm and the head


@BY_NAME
def test_hugging_face_backbone_returns_feature_maps(name):
    transformers = pytest.importorskip('transformers')
    config = transformers.TimmBackboneConfig(backbone=name, use_pretrained_backbone=False, out_indices=(1, 3))
    backbone = transformers.TimmBackbone(config).eval()
    with torch.no_grad():
        maps = backbone(image(1, 3, 64, 96)).feature_maps
    assert [tuple(map.shape[2:]) for map in maps] == [(8, 12), (2, 3)]


@BY_NAME
def test_mmsegs_wrapper_of_timm_returns_feature_maps(name):
    wrapper = pytest.importorskip('mmseg.models.backbones').TIMMBackbone
    backbone = wrapper(name, features_only=True, pretrained=False).eval()
    with torch.no_grad():
        maps = backbone(image(1, 3, 64, 96))
    assert [tuple(map.shape[2:]) for map in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]


@pytest.fixture
def detection(monkeypatch):
    """Yield torchvision's detectors, with this package's NMS if torchvision's is not compiled for this PyTorch."""
    from torchvision.ops import boxes

    from mlp_dense.operators.nms import nms

    try:
        boxes.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except RuntimeError:
        monkeypatch.setattr(boxes, 'nms', nms)
    with torch.compiler.set_stance('force_eager'):  # torchvision would compile its RoIAlign
        yield pytest.importorskip('torchvision.models.detection')


@pytest.mark.parametrize('family', FAMILIES, ids=lambda family: family.__name__)
def test_torchvisions_mask_rcnn_trains_and_predicts(detection, family):
    from mlp_dense.torchvision import BackboneWithFPN

    backbone = BackboneWithFPN(family(SMALL), out_channels=16)
    limits = dict(rpn_post_nms_top_n_train=20, rpn_post_nms_top_n_test=20, box_batch_size_per_image=8)
    model = detection.MaskRCNN(backbone, 3, min_size=64, max_size=96, box_detections_per_img=5, **limits)
    target = dict(boxes=torch.tensor([[8.0, 8, 40, 40]]), labels=torch.tensor([1]), masks=torch.ones(1, 64, 96))
    losses = model([image(3, 64, 96)], [dict(target, masks=target['masks'].byte())])
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in backbone.body.parameters())
    model.eval()
    with torch.no_grad():
        (predicted,) = model([image(3, 64, 96)])
    assert predicted.keys() == {'boxes', 'labels', 'scores', 'masks'} and len(predicted['boxes']) <= 5


def test_backbone_with_fpn_supports_any_image_size(detection):
    from mlp_dense.torchvision import BackboneWithFPN

    backbone = BackboneWithFPN(CycleMLP(SMALL), out_channels=8).eval()
    with torch.no_grad():
        maps = backbone(image(1, 3, 101, 75))
    assert list(maps) == ['0', '1', '2', '3', 'pool'] and {map.shape[1] for map in maps.values()} == {8}


def programs(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding='utf-8')
    return [block.partition('```')[0] for block in text.split('```python\n')[1:]]


def test_programs_of_the_readme_run(detection):
    selected = [program for program in programs('README.md') if 'timm' in program or 'torchvision' in program]
    assert len(selected) == 1
    for program in selected:
        names = {}
        exec(program.replace('pretrained=True, ', ''), names)
        model = names.get('unet', names.get('model')).eval()
        with torch.no_grad():
            model(image(1, 4, 64, 64) if 'unet' in names else [image(3, 64, 64)])


TRAININGS = {  # replacements that make them quick
    'segmentation_models_pytorch': {'range(1000)': 'range(12)', '(256, 192)': '(64, 64)'},
    'MaskRCNN(': {
        'num_classes=91': 'num_classes=91, min_size=96, max_size=128, rpn_post_nms_top_n_train=20, '
        'box_batch_size_per_image=8',
        'enumerate(data)': 'enumerate(data[0] for _ in range(4))',
    },
}


@pytest.mark.slow
@pytest.mark.parametrize('training', TRAININGS)
def test_losses_of_documented_trainings_decrease(shared, detection, capsys, training):
    """The programs are those of docs/other_projects.md, on genuine images."""
    random.seed(0)
    torch.manual_seed(0)
    (program,) = (program for program in programs('docs/other_projects.md') if training in program)
    folders = {'data/camvid': f'{shared}/data/camvid', 'data/coco/': f'{shared}/data/coco_tiny/'}
    for old, new in {**TRAININGS[training], **folders}.items():
        assert old in program or old in folders
        program = program.replace(old, new)
    exec(program, {})
    losses = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines() if line[0].isdigit()]
    assert sum(losses[-2:]) < 0.9 * sum(losses[:2])


WITHOUT_TRANSFORMERS = """
import sys
sys.path.append('{folder}')
import importlib_metadata

original = importlib_metadata.distribution

def distribution(name):
    if name == 'transformers':
        raise importlib_metadata.PackageNotFoundError(name)
    return original(name)

importlib_metadata.distribution = distribution
"""


@pytest.mark.slow
def test_mmpretrain_trains_and_tests(classes, tmp_path):
    """The Runner of mmengine runs the config of docs/other_projects.md on the generated data, with few channels."""
    folder = Path(sys.prefix) / 'mmpretrain'
    if not folder.is_dir():
        pytest.skip(f'mmpretrain is not in {folder}, where make setup STACK=timm installs it')
    (config,) = (program for program in programs('docs/other_projects.md') if 'mmpretrain::' in program)
    (tmp_path / 'cfg.py').write_text(config)
    output = run(
        '-W',
        'ignore',
        '-c',
        f"""{WITHOUT_TRANSFORMERS.format(folder=folder)}
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
""",
    )
    assert "<class 'mlp_dense.backbones.cycle_mlp.CycleMLP'> {'accuracy/top1': " in output
