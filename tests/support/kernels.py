"""Where tests run Triton's kernels: on a GPU where there is one, else in Triton's interpreter (see conftest.py)."""

import importlib.util

import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
_HAS_TRITON = importlib.util.find_spec("triton") is not None

needs_triton = pytest.mark.skipif(not _HAS_TRITON, reason="needs Triton, which torch brings on Linux with CUDA")
needs_interpreter = pytest.mark.skipif(
    not _HAS_TRITON or DEVICE.type == "cuda", reason="needs Triton's interpreter, which takes the place of a GPU")
