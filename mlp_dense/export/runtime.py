"""Exported files: their metadata, and running them."""

import io
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from .. import backbones  # noqa: F401  registers operators that a program may call
from ..errors import UserError, command, explained_imports
from . import boxes  # noqa: F401  registers operators that a program may call

KEYS = (
    *('outputs', 'classes', 'palette', 'preprocessing', 'task', 'part', 'precision', 'config', 'versions'),
    *('checkpoint', 'checkpoint_sha256'),
)


class ExportedFile:
    """A file written by ``tools/export.py``, as a function of images, with ``metadata`` (docs/deployment.md).

    Args:
        content: path of the file, or its bytes.
        suffix: ``.onnx`` or ``.pt2``; required with bytes.

    Raises:
        UserError: the file is missing, unreadable or not from ``tools/export.py``.
    """

    def __init__(self, content: Path | bytes, suffix: str = ''):
        self.name = 'the exported model'
        if isinstance(content, Path):
            if not content.is_file():
                raise UserError(f'{content} does not exist; pass a file that {command("export")} wrote.')
            self.name, suffix, content = str(content), content.suffix, content.read_bytes()
        self._run, texts = self._load_onnx(content) if suffix == '.onnx' else self._load_pt2(content)
        try:
            self.metadata = {key: json.loads(text) for key, text in texts.items() if key in KEYS and text}
        except ValueError:
            self.metadata = {}
        if not {'outputs', 'classes', 'palette', 'task', 'part'} <= self.metadata.keys():
            raise UserError(f'{self.name} was not written by {command("export")}; export the checkpoint with it.')

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs by name for images (B, C, H, W) as in :meth:`images`; raise UserError if the run fails."""
        return dict(zip(self.metadata['outputs'], self._run(images), strict=True))

    def images(self, inputs: torch.Tensor) -> np.ndarray:
        """Return images (B, C, H, W) in the dtype of the file: uint8 in BGR, or float32 for other bands and bits.

        Raises UserError if their number of bands or their values do not fit.
        """
        description = self.metadata['preprocessing']['images']
        bands = description.get('bands', 3)
        if inputs.shape[1] != bands:
            raise UserError(f'{self.name} takes images of {bands} bands, not {inputs.shape[1]}; pass such images.')
        return inputs.float().cpu().numpy() if description['dtype'] == 'float32' else to_uint8(inputs)

    def __deepcopy__(self, memo: dict) -> 'ExportedFile':
        """Share the file: it does not change, and a session of onnxruntime cannot be copied."""
        return self

    def check(self, task: str, classes: Sequence[str] | None) -> None:
        """Raise UserError unless the file is a whole model of a task (``mmdet``, ``mmseg``) with these classes."""
        part, exported_task = self.metadata['part'], self.metadata['task']
        if (part, exported_task) != ('model', task):
            raise UserError(
                f'{self.name} contains the {part} of a model of {exported_task}; '
                f'export a whole model of {task} ({command("export")} without --part).'
            )
        if classes is not None and list(classes) != self.metadata['classes']:
            raise UserError(f'{self.name} has other classes than the data of the config; use the config of its export.')

    def _load_onnx(self, content: bytes) -> tuple[Callable, dict[str, str]]:
        with explained_imports():
            import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # its warnings concern its own graph passes
        with explained(f'onnxruntime cannot run {self.name}'):
            session = onnxruntime.InferenceSession(content, options, ['CPUExecutionProvider'])

        def run(images: np.ndarray) -> list[np.ndarray]:
            with explained(f'onnxruntime cannot run {self.name} on images {images.shape}'):
                return session.run(self.metadata['outputs'], {'images': images})

        return run, session.get_modelmeta().custom_metadata_map

    def _load_pt2(self, content: bytes) -> tuple[Callable, dict[str, str]]:
        texts = dict.fromkeys(KEYS, '')
        log = logging.getLogger('torch.export')
        disabled, log.disabled = log.disabled, True  # it prints the traceback of the error that is raised
        try:
            program = torch.export.load(io.BytesIO(content), extra_files=texts).module()
        except Exception as error:  # of any type
            problem = f'{self.name} cannot be read as a program of torch.export by PyTorch {torch.__version__}'
            raise UserError(f'{problem}: it is damaged or of another version; export it again.') from error
        finally:
            log.disabled = disabled

        def run(images: np.ndarray) -> list[np.ndarray]:
            with explained(f'PyTorch cannot run {self.name} on images {images.shape}'), torch.inference_mode():
                return [output.numpy() for output in program(torch.from_numpy(images))]

        return run, texts


@contextmanager
def explained(problem: str) -> Iterator[None]:
    """Raise UserError with a problem and the first cause of an error of an exporter or a runtime, of any type."""
    try:
        yield
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        raise UserError(f'{problem}: {" ".join(str(cause).split())[:300]}') from error


def to_uint8(inputs: torch.Tensor) -> np.ndarray:
    """Return float images as uint8; raise UserError if their values are not of 8 bits."""
    images = inputs.to(torch.uint8)
    if not torch.equal(images.to(inputs.dtype), inputs):
        raise UserError('An exported model takes 8-bit images: remove normalization from the pipeline.')
    return images.cpu().numpy()
