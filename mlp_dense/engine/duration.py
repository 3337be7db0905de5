"""How long a training is: what ``--epochs`` and ``--iters`` change in a config."""

from collections.abc import Callable
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import UserError
from .configs import Edits, need

FOREVER = 10**9
WARMUP = 0.1  # of the training at most: of a warm-up whose share of it is unknown
MOST = 10  # validations of a training that counts iterations; and as many lines of the log at least
LEAST = dict(milestones=1, step_size=1, T_max=1, total_iters=1, total_steps=1, periods=1, length=1)
FRACTIONS = ('begin', 'end', 'length', 'warmup')  # that need not be whole where epochs are converted to iterations
SWITCHES = ('switch_epoch', 'num_last_epochs', 'begin_epoch', 'begin_iter', 'switch_iter')  # of hooks


def set_duration(edits: Edits, cfg: Config, epochs: int | None = None, iters: int | None = None) -> None:
    """Makes a training so many epochs or iterations long; its schedule, warm-up, validations and checkpoints keep their
    share of it. A config that counts the other way counts so from now on. UserError: the number is impossible."""
    if epochs is None and iters is None:
        return
    option, new = ('--epochs', epochs) if iters is None else ('--iters', iters)
    if new < 1:
        raise UserError(f'{option} {new}: give 1 or more.')
    need(cfg, 'train_cfg')
    loop = cfg.train_cfg
    by_epoch = 'max_epochs' in loop
    old = loop.get('max_epochs' if by_epoch else 'max_iters')
    if not isinstance(old, int) or old < 1:
        raise UserError(f'{option}: {cfg.filename} has neither train_cfg.max_epochs nor train_cfg.max_iters.')
    to_epochs = iters is None
    ratio = new / old
    _set_loop(edits, cfg, by_epoch, to_epochs, new, ratio)
    schedulers = cfg.get('param_scheduler') or []
    several = isinstance(schedulers, list)
    kept = []
    for i, scheduler in enumerate(schedulers if several else [schedulers]):
        path = f'param_scheduler.{i}' if several else 'param_scheduler'
        _set_scheduler(edits, scheduler, path, by_epoch, to_epochs, new, ratio)
        if _is_nothing(scheduler):
            edits.lines.append(f'{path}: {scheduler.type} -> left out, it would be shorter than 2 iterations')
        else:
            kept.append(scheduler)
    if len(kept) < (len(schedulers) if several else 1):
        cfg.param_scheduler = kept
    for i, hook in enumerate(cfg.get('custom_hooks') or ()):
        for key in SWITCHES:
            if isinstance(hook.get(key), int) and hook[key] > 0:
                edits.set(hook, key, max(1, round(hook[key] * ratio)), f'custom_hooks.{i}.{key}')


def without_nothing(schedulers: Any, epoch_length: Callable[[], int]) -> Any:
    """The schedules of a learning rate without linear and constant parts that are converted from epochs, of so many
    iterations, to less than two iterations: they would never reach their end. The log names them."""
    if not isinstance(schedulers, list):
        return schedulers
    kept = []
    for each in schedulers:
        converted = isinstance(each, dict) and each.get('convert_to_iter_based')
        if converted and _is_nothing(each, epoch_length()):
            print_log(f'{each["type"]} is left out: it would be shorter than 2 iterations.', logger='current')
        else:
            kept.append(each)
    return kept


def _set_loop(edits: Edits, cfg: Config, by_epoch: bool, to_epochs: bool, new: int, ratio: float) -> None:
    loop, hooks = cfg.train_cfg, cfg.get('default_hooks') or {}
    if by_epoch != to_epochs:
        counted = 'max_epochs' if by_epoch else 'max_iters'
        edits.remove(loop, counted, f'train_cfg.{counted}')
        loop.pop('by_epoch', None)
        edits.set(loop, 'type', 'EpochBasedTrainLoop' if to_epochs else 'IterBasedTrainLoop', 'train_cfg.type')
        _count_otherwise(edits, cfg, to_epochs)
    key = 'max_epochs' if to_epochs else 'max_iters'
    edits.set(loop, key, new, f'train_cfg.{key}')
    default = 1 if by_epoch else 1000  # mmengine's
    least = 1 if to_epochs else max(1, new // MOST)
    edits.set(loop, 'val_interval', _scaled(loop.get('val_interval', default), ratio, least), 'train_cfg.val_interval')
    if loop.get('val_begin', 1) > 1:
        edits.set(loop, 'val_begin', _scaled(loop.val_begin, ratio, 1), 'train_cfg.val_begin')
    if loop.get('dynamic_intervals'):
        pairs = [(_scaled(begin, ratio, 0), _scaled(every, ratio, least)) for begin, every in loop.dynamic_intervals]
        edits.set(loop, 'dynamic_intervals', pairs, 'train_cfg.dynamic_intervals')
    saving = hooks.get('checkpoint') or {}
    counts_alike = by_epoch == to_epochs or saving.get('by_epoch', True) == to_epochs
    if isinstance(saving.get('interval'), int) and saving.interval > 0 and counts_alike:
        interval = _scaled(saving.interval, ratio, least)
        edits.set(saving, 'interval', interval, 'default_hooks.checkpoint.interval')
    logger = hooks.get('logger') or {}
    if not to_epochs and 'type' in logger:
        interval = min(logger.get('interval', 10), max(1, new // MOST))
        edits.set(logger, 'interval', interval, 'default_hooks.logger.interval')


def _count_otherwise(edits: Edits, cfg: Config, to_epochs: bool) -> None:
    """What logs, saves and samples knows what the training counts."""
    hooks, sampler = cfg.get('default_hooks') or {}, cfg.train_dataloader.get('sampler') or {}
    if 'checkpoint' in hooks and hooks.checkpoint.get('by_epoch', True) != to_epochs:
        edits.set(hooks.checkpoint, 'by_epoch', to_epochs, 'default_hooks.checkpoint.by_epoch')
    if 'logger' in hooks:
        edits.set(hooks.logger, 'log_metric_by_epoch', to_epochs, 'default_hooks.logger.log_metric_by_epoch')
    if 'log_processor' in cfg:
        edits.set(cfg.log_processor, 'by_epoch', to_epochs, 'log_processor.by_epoch')
    if to_epochs and sampler.get('type') == 'InfiniteSampler':  # has no end
        edits.set(sampler, 'type', 'DefaultSampler', 'train_dataloader.sampler.type')
        # As before, every batch is a full one.
        edits.set(cfg.train_dataloader, 'drop_last', True, 'train_dataloader.drop_last')


def _set_scheduler(
    edits: Edits, scheduler: Any, path: str, by_epoch: bool, to_epochs: bool, new: int, ratio: float
) -> None:
    in_epochs = scheduler.get('by_epoch', True)
    if by_epoch != to_epochs and in_epochs and not by_epoch:  # a step at the end, if that
        return
    if by_epoch != to_epochs and in_epochs != by_epoch:
        # A warm-up in iterations of a training in epochs: nobody knows yet how many iterations those have.
        ratio = min(1.0, WARMUP * new / scheduler['end']) if scheduler.get('end', FOREVER) < FOREVER else 1.0
    elif by_epoch != to_epochs:
        edits.set(scheduler, 'by_epoch', to_epochs, f'{path}.by_epoch')
        if to_epochs:
            edits.set(scheduler, 'convert_to_iter_based', True, f'{path}.convert_to_iter_based')
        else:
            edits.remove(scheduler, 'convert_to_iter_based', f'{path}.convert_to_iter_based')
    fractional = scheduler.get('convert_to_iter_based', False)
    for key in ('begin', 'end', 'warmup', *LEAST):
        value = scheduler.get(key)
        if isinstance(value, (list, tuple)):
            last = max(1, new - 1) if key == 'milestones' else FOREVER
            scaled = [min(last, _scaled(each, ratio, LEAST[key])) for each in value]
        elif not isinstance(value, (int, float)) or value >= FOREVER:
            continue
        else:
            exact = round(value * ratio, 6)
            whole = exact == int(exact) or not (fractional and key in FRACTIONS)
            scaled = _scaled(value, ratio, LEAST.get(key, 0)) if whole else exact
        edits.set(scheduler, key, scaled, f'{path}.{key}')


def _is_nothing(scheduler: Any, epoch_length: int | None = None) -> bool:
    """Whether a part of a schedule has no iteration, or as a warm-up none after the first, whose factor would stay."""
    begin, end = scheduler.get('begin', 0), scheduler.get('end', FOREVER)
    if scheduler.get('convert_to_iter_based'):
        if epoch_length is None:  # it is not known yet
            return False
        begin, end = int(begin * epoch_length), int(end * epoch_length)
    return end - begin < (2 if str(scheduler['type']).startswith(('Linear', 'Constant')) else 1)


def _scaled(value: float, ratio: float, least: int) -> int:
    return max(least, round(value * ratio))
