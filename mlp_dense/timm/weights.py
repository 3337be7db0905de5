"""URLs of the published ImageNet weights, and the preprocessing of their images."""

from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

RELEASES = 'https://github.com/{}/releases/download/{}/'
HIRE = RELEASES.format('ggjy/Hire-Wave-MLP.pytorch', 'log')
WAVE = RELEASES.format('ggjy/Hire-Wave-MLP.pytorch', 'log-wave')
CYCLE = RELEASES.format('ShoufaChen/CycleMLP', 'v0.1')
MIXER = RELEASES.format('rwightman/pytorch-image-models', 'v0.1-vitjx')
PUBLISHED = {
    **{f'hire_mlp_{arch}': f'{HIRE}hire_mlp_{arch}.pth' for arch in ('tiny', 'small', 'base')},
    **{f'cycle_mlp_b{i}': f'{CYCLE}CycleMLP_B{i}.pth' for i in range(1, 6)},
    **{f'wave_mlp_{arch.lower()}': f'{WAVE}WaveMLP_{arch}.pth.tar' for arch in ('T_dw', 'T', 'S', 'M')},
    'mlp_mixer_b16': MIXER + 'jx_mixer_b16_224-76587d61.pth',
    'mlp_mixer_l16': MIXER + 'jx_mixer_l16_224-92f9adc4.pth',
}
"""URLs by the name of the variant. The weights of AS-MLP and ViP must be downloaded by hand."""
CROPS = dict.fromkeys(['wave_mlp_t_dw', 'wave_mlp_t', 'wave_mlp_s', 'wave_mlp_m', 'vip_s7', 'vip_s14', 'vip_m7'], 0.9)
"""Fraction of an image that is used in a test, if it is not 0.875 (published code)."""
HALF = (0.5, 0.5, 0.5)  # mean and standard deviation of the images of MLP-Mixer's weights


def default_cfg(name: str) -> dict[str, Any]:
    """Return timm's description of a variant's weights and of their images."""
    mean, std = (HALF, HALF) if name.startswith('mlp_mixer') else (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    cfg: dict[str, Any] = dict(
        url=PUBLISHED.get(name, ''), custom_load=True, num_classes=1000, input_size=(3, 224, 224)
    )
    cfg |= dict(fixed_input_size=False, interpolation='bicubic', crop_pct=CROPS.get(name, 0.875), mean=mean, std=std)
    return cfg | dict(first_conv='stem.conv', classifier='head.fc')
