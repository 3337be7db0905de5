"""Learning rates that decay layer by layer."""

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from ..errors import UserError
from ..registry import CONSTRUCTORS


@CONSTRUCTORS.register_module()
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """A constructor whose learning rates fall towards the input of a backbone (BEiT, arXiv 2106.08254, appendix).

    With n layers (``backbone.layers()``: the stem, then every block), the learning rate of layer k (from 0) is
    multiplied by ``paramwise_cfg.layer_decay_rate ** (n - k)``. Output norms, pyramid, neck and heads keep theirs.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise UserError(f'paramwise_cfg.layer_decay_rate is {rate!r}; use a number above 0 and up to 1.')

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        super().add_params(params, module, prefix=prefix, **kwargs)
        if prefix:  # called for every submodule; the whole model comes last
            return
        rate = self.paramwise_cfg['layer_decay_rate']
        backbone = getattr(module, 'backbone', module)
        layers = backbone.layers()
        scales: dict[int, float] = {}
        for k, layer in enumerate(layers):
            for module in layer:
                scales |= dict.fromkeys(map(id, module.parameters()), rate ** (len(layers) - k))
        for group in params:
            group['lr'] = group.get('lr', self.base_lr) * scales.get(id(group['params'][0]), 1.0)
        print_log(f'{len(layers)} layers: learning rates fall by {rate} from one to the next.', logger='current')
