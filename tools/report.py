"""Same as ``mlp-dense report``."""

from mlp_dense_cli import run

if __name__ == '__main__':
    run('report')
