"""The learning rate of the published trainings on ImageNet."""

from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from timm.scheduler import CosineLRScheduler

from ..registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class CosineLR(LRSchedulerMixin, _ParamScheduler):
    """timm's CosineLRScheduler: a linear warm-up, then a cosine over the whole training, whose beginning the warm-up
    takes the place of, then a constant rest. mmengine's own schedules begin the cosine after the warm-up.

    Args:
        length: epochs, or iterations if not `by_epoch`, until `lr_min`.
        lr_min: the last learning rate.
        warmup: epochs or iterations at the beginning.
        warmup_lr: the first learning rate.
    """

    def __init__(
        self, optimizer: Any, *args: Any, length: int, lr_min: float, warmup: int, warmup_lr: float, **kwargs: Any
    ):
        self.settings = dict(t_initial=length, lr_min=lr_min, warmup_t=warmup, warmup_lr_init=warmup_lr)
        super().__init__(optimizer, *args, **kwargs)

    @classmethod
    def build_iter_from_epoch(cls, *args: Any, epoch_length: int, by_epoch: bool = True, **kwargs: Any) -> 'CosineLR':
        """The same with a step in every iteration, for an epoch of so many."""
        in_epochs = [key for key in ('begin', 'end', 'length', 'warmup') if key in kwargs]
        kwargs |= {key: kwargs[key] * epoch_length for key in in_epochs}
        return cls(*args, by_epoch=False, **kwargs)

    def _get_value(self) -> list[float]:
        groups = self.optimizer.param_groups
        rates = [group['lr'] for group in groups]
        schedule = CosineLRScheduler(self.optimizer, initialize=False, **self.settings)
        for group, rate in zip(groups, rates, strict=True):  # it sets them when it is made
            group['lr'] = rate
        return schedule._get_lr(self.last_step)
