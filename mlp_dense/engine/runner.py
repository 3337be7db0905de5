"""mmengine's Runner, made safe and loud."""

from typing import Any

import cv2
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner

from ..checkpoint import read_checkpoint
from ..errors import CheckpointError, UserError
from ..loading import load_weights


class DenseRunner(Runner):
    """mmengine's Runner, with checkpoints read safely and loudly, and unreadable pictures reported by name."""

    def load_checkpoint(self, filename: str, map_location: Any = 'cpu', strict: bool = False, **_: Any) -> dict:
        """Testing and resuming need every tensor of the model; a training that starts from `load_from` may differ in
        its heads (mmengine logs how), but never in the backbone.

        Raises:
            CheckpointError: the file is unusable, or does not fit.
        """
        checkpoint = read_checkpoint(filename, map_location)
        if self._resume and not {'meta', 'optimizer', 'message_hub'} <= checkpoint.keys():
            raise CheckpointError(
                f'{filename} holds weights but no state of a training, so nothing can be resumed from it; '
                'start a new training from it with --cfg-options load_from=FILE.'
            )
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        fine_tuning = isinstance(self._train_loop, BaseLoop) and not self._resume  # built only when training
        load_weights(model, checkpoint, filename, strict=strict or not fine_tuning)
        self._has_loaded = True
        self.logger.info(f'Loaded checkpoint {filename}')
        return checkpoint

    @staticmethod
    def build_dataloader(dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            loader = Runner.build_dataloader(dataloader, *args, **kwargs)
        except ValueError as error:
            if 'need at least one array' not in str(error):  # what mmengine's data sets say when they are empty
                raise
            wanted = {key: dataloader['dataset'].get(key) for key in ('data_root', 'data_prefix', 'img_suffix')}
            described = ', '.join(f'{key}={value}' for key, value in wanted.items() if value)
            raise UserError(f'There is no picture where the config looks ({described}); correct it.') from error
        dataset = loader.dataset
        while hasattr(dataset, 'dataset'):  # wrappers, such as RepeatDataset
            dataset = dataset.dataset
        classes, found = dataset.metainfo.get('classes', ()), getattr(dataset, 'cat_ids', None)
        if found is not None and len(found) != len(classes):
            raise UserError(
                f'{dataset.ann_file} names {len(found)} of the {len(classes)} classes of the data set '
                f'({", ".join(classes[:5])}, ...); set metainfo=dict(classes=...) to the names in the file.'
            )
        for i, transform in enumerate(dataset.pipeline.transforms):
            if type(transform).__name__.startswith('Load'):
                dataset.pipeline.transforms[i] = _Reading(transform)
        return loader


class _Reading:
    """Runs a loading transform; what cannot be read becomes an error that names the file."""

    def __init__(self, transform: Any):
        self.transform = transform

    def __call__(self, results: dict) -> dict:
        try:
            return self.transform(results)
        except UserError:
            raise
        except Exception as error:  # whatever the decoders of OpenCV and Pillow raise
            files = [results[key] for key in ('img_path', 'seg_map_path') if results.get(key)]
            bad = [file for file in files if not _decodes(file)]
            if not bad:
                raise
            raise UserError(
                f'{bad[0]} is missing or no readable picture; replace it, or remove it from the data.'
            ) from error


def _decodes(file: str) -> bool:
    return cv2.imread(str(file), cv2.IMREAD_UNCHANGED) is not None
