#!/usr/bin/env bash
# `weight.contiguous(memory_format=torch.channels_last)` leaves a kernel of one channel as it is, and the network after it
# computes in NCHW; `weight.to(memory_format=torch.channels_last)` does not.
#
# One would guess: the two calls give the same tensor, so a loop over all weights with either puts a network into
# channels_last, as `network.to(memory_format=torch.channels_last)` does.
# What happens (torch 2.13.0): a kernel (20, 1, 5, 5) lies in memory alike in both layouts, so `contiguous` returns it with
# the strides of NCHW, while `to` writes the strides of channels_last. A convolution reads its layout from the strides of
# its rows and of its kernel, and rows of one channel do not tell either; its output is NCHW, and so are those of the
# layers after it, although their own kernels are channels_last. A LeNet on MNIST so took 1.6 times as long on a CPU
# (one thread, batches of 127). With three channels in front nothing is lost.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet numpy torch==2.13.0
"$room/venv/bin/python" - <<'PY'
import torch
from torch import nn

print("torch", torch.__version__)
last = torch.channels_last
ways = {"contiguous": lambda w: w.contiguous(memory_format=last), "to": lambda w: w.to(memory_format=last)}
found = {}
for channels in (1, 3):
    for name, lay_out in ways.items():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(channels, 20, 5), nn.ReLU(), nn.Conv2d(20, 50, 5))
        for layer in (network[0], network[2]):
            layer.weight.data = lay_out(layer.weight.data)
        rows = torch.zeros(4, channels, 28, 28).contiguous(memory_format=last)
        hidden = network[:2](rows)
        found[channels, name] = hidden.is_contiguous(memory_format=last)
        print(f"{channels} channel(s), {name}: kernel strides {network[0].weight.stride()}, hidden rows in "
              f"{'channels_last' if found[channels, name] else 'NCHW'}")
assert found == {(1, "contiguous"): False, (1, "to"): True, (3, "contiguous"): True, (3, "to"): True}, found
PY
