"""Same as ``mlp-dense browse``."""

from mlp_dense_cli import run

if __name__ == '__main__':
    run('browse')
