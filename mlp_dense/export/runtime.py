"""Exported files: their metadata, and running them."""

import io
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import backbones  # noqa: F401  registers operators that a program may call
from ..errors import UserError
from . import boxes  # noqa: F401  registers operators that a program may call
from .conversion import check_installed

KEYS = (
    *('outputs', 'classes', 'palette', 'preprocessing', 'task', 'part', 'precision', 'config', 'versions'),
    *('checkpoint', 'checkpoint_sha256'),
)


class ExportedFile:
    """A file written by ``tools/export.py``, as a function of images.

    Args:
        content: path of the file, or its bytes.
        suffix: ``.onnx`` or ``.pt2``; required with bytes.
        threads: threads of onnxruntime; 0 uses as many as PyTorch.

    Attributes:
        metadata: values by name, see docs/deployment.md.

    Raises:
        UserError: the file is missing, unreadable or not from ``tools/export.py``.
        NotInstalledError: onnxruntime or onnx is missing.
    """

    def __init__(self, content: Path | bytes, suffix: str = '', threads: int = 0):
        self.name, self.suffix, self.threads = 'the exported model', suffix, threads
        if isinstance(content, Path):
            if not content.is_file():
                raise UserError(f'{content} does not exist.')
            self.name, self.suffix = str(content), suffix or content.suffix
            content = content.read_bytes()
        self.content = content
        self.metadata = self._metadata()
        if 'outputs' not in self.metadata:
            raise UserError(f'{self.name} was not written by tools/export.py; export the checkpoint with this tool.')

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs by name for uint8 images (B, 3, H, W) in BGR.

        Raises:
            UserError: onnxruntime cannot run the model on these images.
        """
        names = self.metadata['outputs']
        if self.suffix == '.onnx':
            try:
                return dict(zip(names, self._session.run(names, {'images': images}), strict=True))
            except Exception as error:  # onnxruntime's errors have no common base class
                raise self._runtime_error(f' on images {images.shape}', error) from error
        with torch.inference_mode():
            outputs = self._program(torch.from_numpy(images))
        return {name: output.numpy() for name, output in zip(names, outputs, strict=True)}

    def check(self, task: str, classes: Sequence[str] | None) -> None:
        """Raise UserError unless the file is a whole model of a task (``mmdet``, ``mmseg``) with these classes."""
        if self.metadata['part'] != 'model' or self.metadata['task'] != task:
            raise UserError(
                f'{self.name} contains the {self.metadata["part"]} of a model of {self.metadata["task"]}; '
                f'export a whole model of {task} (tools/export.py without --part).'
            )
        if classes is not None and list(classes) != self.metadata['classes']:
            raise UserError(
                f'{self.name} was exported with other classes than those of the data of this config; '
                'use the config that it was exported with.'
            )

    @property
    def dataset_meta(self) -> dict[str, Any]:
        """Class names, and an (R, G, B) colour from 0 to 255 for each."""
        return dict(classes=tuple(self.metadata['classes']), palette=[tuple(rgb) for rgb in self.metadata['palette']])

    @cached_property
    def _session(self) -> Any:
        check_installed('onnxruntime')
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or torch.get_num_threads()
        options.log_severity_level = 4  # its warnings concern its own graph passes
        try:
            return onnxruntime.InferenceSession(self.content, options, providers=['CPUExecutionProvider'])
        except Exception as error:
            raise self._runtime_error('', error) from error

    def _runtime_error(self, context: str, error: Exception) -> UserError:
        return UserError(f'onnxruntime cannot run {self.name}{context}: {" ".join(str(error).split())[:300]}')

    @cached_property
    def _program(self) -> torch.nn.Module:
        return self._program_and_texts[0].module()

    @cached_property
    def _program_and_texts(self) -> tuple[Any, dict[str, str]]:
        texts = dict.fromkeys(KEYS, '')
        try:
            return torch.export.load(io.BytesIO(self.content), extra_files=texts), texts
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            raise UserError(f'{self.name} cannot be read as a program of torch.export: {error}') from error

    def _metadata(self) -> dict[str, Any]:
        if self.suffix == '.onnx':
            check_installed('onnx')
            import onnx
            from google.protobuf.message import DecodeError

            try:
                model = onnx.load_model_from_string(self.content)
            except DecodeError as error:
                raise UserError(f'{self.name} cannot be read as ONNX: {error}') from error
            texts = {entry.key: entry.value for entry in model.metadata_props}
        else:
            texts = self._program_and_texts[1]
        return {key: json.loads(text) for key, text in texts.items() if key in KEYS and text}


def as_texts(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata as JSON texts, as files store it."""
    return {key: json.dumps(value) for key, value in metadata.items()}


def to_uint8(inputs: torch.Tensor) -> np.ndarray:
    """Return float images of a data preprocessor as uint8; raise UserError if their values are not of 8 bits."""
    images = inputs.to(torch.uint8)
    if not torch.equal(images.to(inputs.dtype), inputs):
        raise UserError('An exported model takes 8-bit images: remove to_float32 and normalization from the pipeline.')
    return images.cpu().numpy()
