"""Same as ``mlp-dense export``."""

from mlp_dense_cli import run

if __name__ == '__main__':
    run('export')
