"""The published ImageNet weights, and what their images are like."""

from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

RELEASES = 'https://github.com/{}/releases/download/{}/'
HIRE = RELEASES.format('ggjy/Hire-Wave-MLP.pytorch', 'log')
WAVE = RELEASES.format('ggjy/Hire-Wave-MLP.pytorch', 'log-wave')
CYCLE = RELEASES.format('ShoufaChen/CycleMLP', 'v0.1')
MIXER = RELEASES.format('rwightman/pytorch-image-models', 'v0.1-vitjx')
PUBLISHED = {
    'hire_mlp_tiny': HIRE + 'hire_mlp_tiny.pth',
    'hire_mlp_small': HIRE + 'hire_mlp_small.pth',
    'hire_mlp_base': HIRE + 'hire_mlp_base.pth',
    'cycle_mlp_b1': CYCLE + 'CycleMLP_B1.pth',
    'cycle_mlp_b2': CYCLE + 'CycleMLP_B2.pth',
    'cycle_mlp_b3': CYCLE + 'CycleMLP_B3.pth',
    'cycle_mlp_b4': CYCLE + 'CycleMLP_B4.pth',
    'cycle_mlp_b5': CYCLE + 'CycleMLP_B5.pth',
    'wave_mlp_t_dw': WAVE + 'WaveMLP_T_dw.pth.tar',
    'wave_mlp_t': WAVE + 'WaveMLP_T.pth.tar',
    'wave_mlp_s': WAVE + 'WaveMLP_S.pth.tar',
    'wave_mlp_m': WAVE + 'WaveMLP_M.pth.tar',
    'mlp_mixer_b16': MIXER + 'jx_mixer_b16_224-76587d61.pth',
    'mlp_mixer_l16': MIXER + 'jx_mixer_l16_224-92f9adc4.pth',
}
"""The published weights that have an address; those of AS-MLP and ViP are downloaded by hand."""
CROPS = dict.fromkeys(['wave_mlp_t_dw', 'wave_mlp_t', 'wave_mlp_s', 'wave_mlp_m'], 0.9)
CROPS |= dict.fromkeys(['vip_s7', 'vip_s14', 'vip_m7'], 0.9)
"""What part of an image a test looks at, where that is not 0.875 (the published code)."""
HALF = (0.5, 0.5, 0.5)  # mean and deviation of an image's colours for MLP-Mixer's weights


def default_cfg(name: str) -> dict[str, Any]:
    """What timm asks of a model's weights: where they are, and what their images are like."""
    is_mixer = name.startswith('mlp_mixer')
    return dict(
        url=PUBLISHED.get(name, ''),
        custom_load=True,
        num_classes=1000,
        input_size=(3, 224, 224),
        fixed_input_size=False,
        interpolation='bicubic',
        crop_pct=CROPS.get(name, 0.875),
        mean=HALF if is_mixer else IMAGENET_DEFAULT_MEAN,
        std=HALF if is_mixer else IMAGENET_DEFAULT_STD,
        first_conv='stem.conv',
        classifier='head.fc',
    )
