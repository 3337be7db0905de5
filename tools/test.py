"""Same as ``mlp-dense test``."""

from mlp_dense_cli import run

if __name__ == '__main__':
    run('test')
