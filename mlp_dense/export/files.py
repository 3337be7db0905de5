"""Exported files: what they say of themselves, and running them."""

import io
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from ..kernels import experts  # noqa: F401  whose operator a program may call
from . import operators  # noqa: F401  the same
from .conversion import check_installed

TEXTS = ('outputs', 'classes', 'palette', 'preprocessing', 'versions', 'task', 'part', 'precision', 'config')
KEYS = (*TEXTS, 'checkpoint', 'checkpoint_sha256')


class ExportedFile:
    """A file that ``tools/export.py`` wrote, as a function of images. UserError when it is called: it cannot run.

    Args:
        content: the file, or what is in it.
        threads: of onnxruntime; 0 leaves the choice to it.

    Attributes:
        metadata: what the file says of itself, by name; see docs/deployment.md.

    Raises:
        UserError: it is no such file, or onnxruntime cannot run it.
        NotInstalledError: onnxruntime or onnx is missing.
    """

    def __init__(self, content: Path | bytes, suffix: str = '', threads: int = 0):
        self.name = content if isinstance(content, Path) else 'the exported model'
        self.suffix, self.threads = suffix or Path(content).suffix, threads
        if isinstance(content, Path) and not content.is_file():
            raise UserError(f'{content} does not exist.')
        self.content = content.read_bytes() if isinstance(content, Path) else content
        self.metadata = self._metadata()
        if 'outputs' not in self.metadata:
            raise UserError(f'{self.name} is not a file that tools/export.py wrote.')

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Images (B, 3, H, W), of 8 bits, to the outputs by name."""
        names = self.metadata['outputs']
        if self.suffix == '.onnx':
            try:
                return dict(zip(names, self._session.run(names, {'images': images}), strict=True))
            except Exception as error:  # it has classes of its own for each kind
                raise self._refused(f' on images {images.shape}', error) from error
        with torch.inference_mode():
            outputs = self._program(torch.from_numpy(images))
        return {name: output.numpy() for name, output in zip(names, outputs, strict=True)}

    def check(self, task: str, classes: Sequence[str] | None) -> None:
        """UserError: it is not a whole model of a task (``mmdet``, ``mmseg``), or has not these classes."""
        if self.metadata['part'] != 'model' or self.metadata['task'] != task:
            what = f'the {self.metadata["part"]} of a model of {self.metadata["task"]}'
            raise UserError(f'{self.name} is {what}; give a whole model of {task} (tools/export.py without --part).')
        if classes is not None and list(classes) != self.metadata['classes']:
            raise UserError(f'{self.name} was exported with other classes than those of the data of this config.')

    @property
    def dataset_meta(self) -> dict[str, Any]:
        """The names of the classes and a colour for each, (R, G, B) from 0 to 255."""
        return dict(classes=tuple(self.metadata['classes']), palette=[tuple(each) for each in self.metadata['palette']])

    @cached_property
    def _session(self) -> Any:
        check_installed('onnxruntime')
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or torch.get_num_threads()
        options.log_severity_level = 4  # what it warns of is its own
        try:
            return onnxruntime.InferenceSession(self.content, options, providers=['CPUExecutionProvider'])
        except Exception as error:
            raise self._refused('', error) from error

    def _refused(self, where: str, error: Exception) -> UserError:
        return UserError(f'onnxruntime cannot run {self.name}{where}: {" ".join(str(error).split())[:300]}')

    @cached_property
    def _program(self) -> torch.nn.Module:
        return self._loaded[0].module()

    @cached_property
    def _loaded(self) -> tuple[Any, dict[str, str]]:
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
            texts = {each.key: each.value for each in model.metadata_props}
        else:
            texts = self._loaded[1]
        return {key: json.loads(text) for key, text in texts.items() if key in KEYS and text}


def as_texts(metadata: Mapping[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in metadata.items()}


def images_of(inputs: torch.Tensor) -> np.ndarray:
    """What a graph takes, of images that a data preprocessor made float. UserError: they are not of 8 bits."""
    images = inputs.to(torch.uint8)
    if not torch.equal(images.to(inputs.dtype), inputs):
        raise UserError(
            'An exported model takes images of 8 bits: leave to_float32 and normalization out of the pipeline.'
        )
    return images.cpu().numpy()
