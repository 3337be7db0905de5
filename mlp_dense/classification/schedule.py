"""Learning rate of the published trainings on ImageNet."""

from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from timm.scheduler import CosineLRScheduler

from ..registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class CosineLR(LRSchedulerMixin, _ParamScheduler):
    """timm's CosineLRScheduler: a cosine over the complete training, whose beginning a linear warm-up replaces.

    mmengine's own cosine would begin after the warm-up.

    Args:
        length: Epochs, or iterations if not `by_epoch`, until `lr_min`.
        lr_min: The last learning rate.
        warmup: Epochs or iterations of the warm-up.
        warmup_lr: The first learning rate.
    """

    def __init__(
        self, optimizer: Any, *args: Any, length: int, lr_min: float, warmup: int, warmup_lr: float, **kwargs: Any
    ):
        self.settings = dict(t_initial=length, lr_min=lr_min, warmup_t=warmup, warmup_lr_init=warmup_lr)
        super().__init__(optimizer, *args, **kwargs)

    @classmethod
    def build_iter_from_epoch(cls, *args: Any, epoch_length: int, by_epoch: bool = True, **kwargs: Any) -> 'CosineLR':
        """Build a schedule that steps in every iteration from settings in epochs of `epoch_length` iterations."""
        in_epochs = [key for key in ('begin', 'end', 'length', 'warmup') if key in kwargs]
        kwargs |= {key: kwargs[key] * epoch_length for key in in_epochs}
        return cls(*args, by_epoch=False, **kwargs)

    def _get_value(self) -> list[float]:
        groups = self.optimizer.param_groups
        rates = [group['lr'] for group in groups]
        schedule = CosineLRScheduler(self.optimizer, initialize=False, **self.settings)
        for group, rate in zip(groups, rates, strict=True):  # restore the rates that the constructor changed
            group['lr'] = rate
        return schedule._get_lr(self.last_step)
