"""Packaging of mlp_dense."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).parent
REPOSITORY = 'https://github.com/mlp-dense/mlp_dense'
MIM_FILES = ('configs', 'tools', 'model-index.yml')


class BuildWithConfigs(build_py):
    """Puts configs, tools and the model index into ``mlp_dense/.mim``, where mmengine and mim look for them.

    In an editable installation these are links to the files of the repository.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            link_mim_files()
            return
        target = Path(self.build_lib, 'mlp_dense', '.mim')
        shutil.rmtree(target, ignore_errors=True)  # left by an earlier build
        for path in mim_files():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, target / path)


class EditableOnPath(editable_wheel):
    """Puts the repository on ``sys.path``.

    The default, an import hook, comes after the folders of ``sys.path``: in the folder that contains the clone,
    ``import mlp_dense`` would find the clone as an empty namespace package.
    """

    def finalize_options(self) -> None:
        super().finalize_options()
        self.mode = self.mode or 'compat'


def link_mim_files() -> None:
    """Make ``mlp_dense/.mim`` a folder of relative links to configs, tools and the model index."""
    target = ROOT / 'mlp_dense' / '.mim'
    target.mkdir(exist_ok=True)
    for name in MIM_FILES:
        link = target / name
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.join('..', '..', name))


def mim_files() -> Iterator[Path]:
    """Yield the paths of configs, tools and the model index, without files that git does not track.

    A config that somebody adds inside the clone is theirs and does not belong in the wheel.
    """
    git = ['git', 'ls-files', '-z', '--', *MIM_FILES]
    if (ROOT / '.git').exists() and shutil.which('git'):
        names = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split('\0')
        yield from (Path(name) for name in names if name and (ROOT / name).is_file())
        return
    for name in MIM_FILES:
        paths = (ROOT / name).rglob('*') if (ROOT / name).is_dir() else [ROOT / name]
        yield from (path.relative_to(ROOT) for path in paths if path.is_file() and '__pycache__' not in path.parts)


def version() -> str:
    """Return ``mlp_dense.__version__`` without importing the package."""
    text = (ROOT / 'mlp_dense' / '__init__.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '(.+)'$", text, re.MULTILINE)[1]


COMMON = [  # required by the packages of OpenMMLab in any version, and by this package from these versions on
    'numpy>=1.26',
    'Pillow>=10.0',
    'opencv-python>=4.8',
    'safetensors>=0.4',  # checkpoints that cannot hold code
    'matplotlib>=3.7.2',  # tools/plot_log.py; mmengine requires it in any version
    'Jinja2>=3.0',  # the pages of reports; PyTorch requires it as well
]


setup(
    name='mlp_dense',
    version=version(),
    description='Vision-MLP backbones for detection and segmentation with mmdet and mmsegmentation',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The mlp_dense developers',
    url=REPOSITORY,
    project_urls={
        'Documentation': f'{REPOSITORY}/tree/main/docs',
        'Changelog': f'{REPOSITORY}/blob/main/CHANGELOG.md',
        'Issues': f'{REPOSITORY}/issues',
    },
    license='Apache-2.0',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in range(10, 14)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    keywords='computer vision, MLP, backbone, object detection, segmentation, mmdetection, mmsegmentation',
    cmdclass={'build_py': BuildWithConfigs, 'editable_wheel': EditableOnPath},
    packages=find_packages(include=['mlp_dense', 'mlp_dense.*', 'mlp_dense_cli']),
    entry_points={'console_scripts': ['mlp-dense = mlp_dense_cli:main']},
    package_data={'mlp_dense.reports': ['template/*'], 'mlp_dense': ['py.typed']},
    python_requires='>=3.10',
    install_requires=['torch>=2.7'],  # 2.7: the first with torch.compiler.is_exporting; torch.load is safe since 2.6
    extras_require={
        # Optional, and without mmcv or mmcv-lite, which install the same files: the installed package stays.
        'mim': [
            'mmengine>=0.10.4,<1',
            'mmdet>=3.3.0,<4',  # accepts mmcv from 2.0.0 to below 2.2.0
            'mmsegmentation>=1.2.2,<2',
            'ftfy',  # imported by mmsegmentation 1.2.2, which does not declare it
            'regex',  # the same
            *COMMON,
        ],
        # The packages that continue these under the same import names; never together with them.
        'onedl': [
            'onedl-mmengine>=0.10.12,<1',
            'onedl-mmcv>=2.3.6,<3',
            'onedl-mmdetection>=3.5.1,<4',
            'onedl-mmsegmentation>=1.4.2,<2',
            'faster-coco-eval',  # without it onedl-mmdetection warns whenever it is imported
            *COMMON,
        ],
        # mlp_dense.timm; timm requires a torchvision that was built for the installed PyTorch.
        'timm': ['timm>=1.0.31,<2', 'Pillow>=10.0,<13', 'numpy>=1.26', 'safetensors>=0.4'],
        # tools/export.py; PyTorch's own exporter writes ONNX through onnxscript
        'export': ['onnx>=1.23', 'onnxscript>=0.7', 'onnxruntime>=1.32'],
        # images with other bands than R, G, B
        'data': ['tifffile>=2024.1.30'],
        'timm-tests': ['segmentation-models-pytorch', 'transformers'],
        'docs': ['mkdocs-material'],
        'dev': ['pytest', 'pytest-xdist', 'hypothesis', 'ruff', 'codespell', 'mypy'],
    },
)
