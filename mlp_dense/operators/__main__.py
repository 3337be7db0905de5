"""``python -m mlp_dense.operators``, which is ``mlp-dense operators``."""

import sys

from mlp_dense_cli import run

sys.argv[0] = 'python -m mlp_dense.operators'
run('operators')
