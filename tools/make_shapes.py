"""Same as ``mlp-dense data shapes``."""

from mlp_dense_cli import run

if __name__ == '__main__':
    run('data shapes')
