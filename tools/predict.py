"""Same as ``mlp-dense predict``."""

from mlp_dense_cli import run

if __name__ == '__main__':
    run('predict')
