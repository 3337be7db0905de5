"""What mmcv's compiled operators give, to the last index and to 1e-9."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from mlp_dense.operators import nms, roi_align
from support.operators import boxes
...
