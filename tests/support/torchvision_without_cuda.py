"""Import of torchvision without its compiled operators: a build for CUDA does not load next to PyTorch for CPUs.

As a script, run by the set-up of STACK=timm, it copies itself into the environment if torchvision cannot be imported.
Every Python of the environment then imports it.
"""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path


class DefineOperators:
    """Import hook that declares the operators that torchvision registers for torch.compile, before its first import."""

    def find_spec(self, name, path=None, target=None):
        if name == 'torchvision':
            sys.meta_path.remove(self)
            import torch

            self.library = torch.library.Library('torchvision', 'DEF')
            for operator in ('nms', 'qnms'):
                self.library.define(f'{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')


if __name__ == '__main__':
    if subprocess.run([sys.executable, '-c', 'import torchvision'], capture_output=True).returncode:
        packages, name = Path(sysconfig.get_path('purelib')), Path(__file__).stem
        shutil.copy(__file__, packages)
        (packages / f'{name}.pth').write_text(f'import {name}\n')
else:
    finder = DefineOperators()  # lives as long as the process, and its library with it
    sys.meta_path.insert(0, finder)
