"""Same as ``mlp-dense train``."""

from mlp_dense_cli import run

if __name__ == '__main__':
    run('train')
