"""Gradients that can be repeated."""

import pytest
import torch

from smoothcert.smoothing.precision import repeatable


@pytest.mark.parametrize("before", [False, True])
def test_repeatable_keeps_all_bits_and_puts_all_back(before):
    """cuDNN's flags allow TF32 in convolutions unless they are told otherwise, on a CPU build too."""
    cudnn, threads = torch.backends.cudnn, torch.get_num_threads()
    found = cudnn.allow_tf32
    try:
        cudnn.allow_tf32 = before
        with repeatable():
            assert not cudnn.allow_tf32
            assert cudnn.deterministic
            assert torch.get_float32_matmul_precision() == "highest"
            assert torch.get_num_threads() == 1
        assert cudnn.allow_tf32 == before
        assert torch.get_num_threads() == threads
    finally:
        cudnn.allow_tf32 = found
