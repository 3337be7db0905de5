"""Same as ``mlp-dense checkpoint``."""

from mlp_dense_cli import run

if __name__ == '__main__':
    run('checkpoint')
