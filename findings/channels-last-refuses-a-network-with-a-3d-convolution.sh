#!/usr/bin/env bash
# A network with one 3-d convolution cannot be moved to channels_last, though its other layers could.
#
# One would guess: `module.to(memory_format=torch.channels_last)` changes the layout of the tensors with four axes and
# leaves all others as they are, as it does with biases, vectors and the weights of 1-d convolutions.
# What happens (torch 2.13.0): tensors with one to three axes are left alone, but one with five axes is changed as well,
# which that layout does not allow: the whole call ends in a RuntimeError, and the layers before it have been changed.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$room/venv/bin/python" - <<'PY'
import torch
from torch import nn

print("torch", torch.__version__)
flat = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv1d(2, 3, 3), nn.Linear(2, 3))
flat.to(memory_format=torch.channels_last)
print("Conv2d, Conv1d, Linear: moved,", flat[0].weight.is_contiguous(memory_format=torch.channels_last))
deep = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv3d(2, 3, 3))
try:
    deep.to(memory_format=torch.channels_last)
except RuntimeError as error:
    print("Conv2d, Conv3d:", error)
    assert "rank 4" in str(error), error
else:
    raise SystemExit("a network with a 3-d convolution was moved")
PY
