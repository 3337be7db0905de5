"""``python -m mlp_dense_cli``, which launchers such as torchrun accept with ``-m``."""

from . import main

main()
