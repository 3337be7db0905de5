import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Puts the configs, the tools and the index of models where mim looks for them: in ``mlp_dense/.mim``."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, 'mlp_dense', '.mim')
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            for folder in ('configs', 'tools'):
                shutil.copytree(folder, target / folder, ignore=shutil.ignore_patterns('__pycache__'))
            shutil.copy('model-index.yml', target)


COMMON = [
    'numpy>=1.26',
    'Pillow>=10.0',
    'opencv-python>=4.8',
    'safetensors>=0.4',  # checkpoints that cannot hold code
    'matplotlib>=3.7.2',  # tools/plot_log.py; mmengine draws with it too, and asks for no version
    'Jinja2>=3.0',  # the pages of reports; PyTorch needs it too
]
"""What the packages of OpenMMLab need or use in any version, and this package from these on."""


setup(
    name='mlp_dense',
    version='0.1.0',
    description='The vision MLPs of the literature as exact, fast backbones for detection and segmentation',
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    cmdclass={'build_py': BuildWithConfigs},
    packages=find_packages(include=['mlp_dense', 'mlp_dense.*']),
    package_data={'mlp_dense.reports': ['template/*'], 'mlp_dense': ['py.typed']},
    python_requires='>=3.10',
    install_requires=['torch>=2.7'],  # 2.7: the first with torch.compiler.is_exporting; torch.load is safe since 2.6
    extras_require={
        # Optional, and without mmcv or mmcv-lite, which install the same files: whichever somebody has stays.
        'mim': [
            'mmengine>=0.10.4,<1',
            'mmdet>=3.3.0,<4',  # it accepts mmcv from 2.0.0 to below 2.2.0
            'mmsegmentation>=1.2.2,<2',
            'ftfy',  # imported by mmsegmentation 1.2.2, which forgets to declare it
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
        # mlp_dense.timm; timm needs a torchvision that is built for the PyTorch beside it.
        'timm': ['timm>=1.0.31,<2', 'Pillow>=10.0,<13', 'numpy>=1.26', 'safetensors>=0.4'],
        # tools/export.py; PyTorch's own exporter writes ONNX through onnxscript
        'export': ['onnx>=1.23', 'onnxscript>=0.7', 'onnxruntime>=1.32'],
        'timm-tests': ['segmentation-models-pytorch', 'transformers'],
        'dev': ['pytest', 'pytest-xdist', 'hypothesis', 'ruff', 'codespell', 'mypy'],
    },
)
