#!/usr/bin/env bash
# torch.fx traces g += 1 as if it made a new tensor, so that other names of the tensor miss the change.
#
# One would guess: symbolic tracing either records an in-place addition or refuses it, so that a traced network that runs
# gives the answers of the network.
# What happens (torch 2.13.0): Proxy has no __iadd__, so Python falls back to g = g + 1. In a forward where another name
# of the same tensor is returned, or used later, the traced graph leaves the addition out and gives other answers,
# without a word. Written g.add_(1), the same forward is traced as it is.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$room/venv/bin/python" - <<'PY'
import torch
from torch import fx, nn

print("torch", torch.__version__)


class Augmented(nn.Module):
    def forward(self, x):
        h = x * 2
        g = h
        g += 1
        return h


class Method(nn.Module):
    def forward(self, x):
        h = x * 2
        g = h
        g.add_(1)
        return h


x = torch.ones(3)
found = {}
for kind in (Augmented, Method):
    network = kind()
    found[kind.__name__] = (network(x).tolist(), fx.symbolic_trace(network)(x).tolist())
    print(f"{kind.__name__}: the network gives {found[kind.__name__][0]}, its trace {found[kind.__name__][1]}")
assert found["Augmented"] == ([3.0] * 3, [2.0] * 3), found
assert found["Method"] == ([3.0] * 3, [3.0] * 3), found
PY
# Seen: Augmented: [3.0, 3.0, 3.0] and [2.0, 2.0, 2.0]; Method: [3.0, 3.0, 3.0] twice.
