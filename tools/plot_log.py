"""Same as ``mlp-dense plot``."""

from mlp_dense_cli import run

if __name__ == '__main__':
    run('plot')
