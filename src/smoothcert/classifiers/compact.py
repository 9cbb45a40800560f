"""Weights in few bytes: int8 with a scale for each output channel, or bfloat16.

A network that is given them has float32 weights near those that were trained: it is another network. The product of an
int8 and a float32 number is rounded once, alike on every machine.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from smoothcert.checks import check_known
from smoothcert.errors import FileError, ModelError

DTYPES = ("int8", "bf16")

_LARGEST = 127  # symmetric: -128 is never used
_SCALE = ".scale"


def compact(state: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Return a state dict with the float32 tensors of two or more axes in `dtype`; all others stay as they are.

    int8 is symmetric, with one scale for each index of the first axis (of convolutions and dense layers the output
    channel): w is stored as round(w / scale), scale = max |w| / 127, and the scales as float32 beside it.

    Raises:
        UnknownNameError: a dtype that is not one of DTYPES. ModelError: weights that are not finite.
    """
    check_known("dtype", dtype, DTYPES)
    small: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if tensor.dtype != torch.float32 or tensor.dim() < 2:
            small[name] = tensor
        elif not tensor.isfinite().all():
            raise ModelError(f"the weights {name} are not all finite numbers")
        elif dtype == "bf16":
            small[name] = tensor.bfloat16()
        else:
            small[name], small[name + _SCALE] = _quantised(tensor)
    return small


def expanded(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return a state dict with float32 tensors in place of the int8 ones that have scales beside them.

    bfloat16 stays: a network takes it over into its own float32.

    Args:
        path: the file that it was read from, for errors.
    Raises:
        FileError: scales that are not one finite float32 number for each output channel.
    """
    scaled = [name for name, tensor in state.items() if tensor.dtype == torch.int8 and name + _SCALE in state]
    full = {name: tensor for name, tensor in state.items() if name.removesuffix(_SCALE) not in scaled}
    for name in scaled:
        scale, shape = state[name + _SCALE], state[name].shape
        if scale.dtype != torch.float32 or scale.shape != shape[:1] or not shape or not scale.isfinite().all():
            raise FileError(f"the weights {path} are corrupt: {name}{_SCALE} must be one finite float32 number for "
                            f"each output channel of {name}")
        full[name] = state[name].float() * _beside(scale, state[name])
    return {name: full[name] for name in state if name in full}


def _quantised(tensor: Tensor) -> tuple[Tensor, Tensor]:
    largest = tensor.flatten(1).abs().amax(1)
    scale = (largest / _LARGEST).clamp(min=torch.finfo(torch.float32).tiny)  # a channel of zeros has a scale, too
    return (tensor / _beside(scale, tensor)).round().clamp(-_LARGEST, _LARGEST).to(torch.int8), scale


def _beside(scale: Tensor, tensor: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (tensor.dim() - 1))
