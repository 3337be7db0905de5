"""Vision MLP backbones for dense prediction with OpenMMLab."""

try:
    import mmengine  # noqa: F401
except ImportError as error:
    raise ImportError(
        "mlp_dense needs mmengine; install the OpenMMLab packages with: pip install 'mlp_dense[mim]'"
    ) from error

from .backbones import ASMLP, CycleMLP, HireMLP
from .fusion import fuse
from .inference import load_model

__all__ = ['ASMLP', 'CycleMLP', 'HireMLP', 'fuse', 'load_model']
