"""The backbones inside of other projects: segmentation_models_pytorch, torchvision, Hugging Face's and mmseg's
wrappers of timm."""

import pytest
import torch

pytest.importorskip('timm', reason='timm is not installed: make test STACK=timm')
import mlp_dense.timm  # noqa: F401
from mlp_dense import CycleMLP
from mlp_dense.backbones import FAMILIES
from mlp_dense.errors import UserError
from support.configs import ROOT
from support.models import SMALL, image

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


def test_programs_of_the_readme(detection):
    page = (ROOT / 'README.md').read_text(encoding='utf-8')
    programs = [part.partition('```')[0] for part in page.split('```python\n')[1:]]
    programs = [each for each in programs if 'timm' in each or 'torchvision' in each]
    assert len(programs) == 2
    for program in programs:
        names = {}
        exec(program.replace('pretrained=True, ', ''), names)
        model = names.get('unet', names.get('model')).eval()
        with torch.no_grad():
            model(image(1, 4, 64, 64) if 'unet' in names else [image(3, 64, 64)])
