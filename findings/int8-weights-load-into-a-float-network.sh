#!/usr/bin/env bash
# torch copies int8 tensors into float32 parameters as they are, without their scales and without a word.
#
# One would guess: load_state_dict(strict=True) refuses a tensor of another kind (integers for a float parameter), as it
# refuses one of another shape, or at least warns; so weights that were stored as int8 with a scale elsewhere, in a
# second file or in the header of the same one, cannot pass for the network's own.
# What happens (torch 2.13.0, safetensors 0.8.0): it succeeds, reports no missing and no unexpected key, and the float32
# parameter holds -127 ... 127. Where every output channel has a scale of its own, the network answers with other classes.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet torch==2.13.0 safetensors==0.8.0 numpy==2.4.6
ROOM="$room" "$room/venv/bin/python" - <<'PY'
import os
import warnings

import safetensors
import torch
from safetensors.torch import load_file, save_file

print("torch", torch.__version__, "safetensors", safetensors.__version__)
torch.manual_seed(0)
layer = torch.nn.Linear(64, 10)
layer.weight.data *= torch.linspace(0.2, 2, 10)[:, None]  # channels of different sizes, as trained networks have
scale = layer.weight.detach().abs().amax(1, keepdim=True) / 127
stored = {"weight": (layer.weight.detach() / scale).round().to(torch.int8), "bias": layer.bias.detach()}
file = os.path.join(os.environ["ROOM"], "weights.safetensors")
save_file(stored, file, metadata={"scales": str(scale.flatten().tolist())})

other = torch.nn.Linear(64, 10)
with warnings.catch_warnings():
    warnings.simplefilter("error")
    report = other.load_state_dict(load_file(file), strict=True)
rows = torch.randn(2000, 64)
same = float((layer(rows).argmax(1) == other(rows).argmax(1)).float().mean())
restored = torch.nn.functional.linear(rows, scale * stored["weight"], layer.bias)
right = float((layer(rows).argmax(1) == restored.argmax(1)).float().mean())
print(f"load_state_dict(strict=True) says {report}; the parameter is {other.weight.dtype}, "
      f"its largest entry {float(other.weight.detach().abs().max()):g} (was {float(layer.weight.detach().abs().max()):.3f})")
print(f"the same class for {same:.1%} of 2,000 rows; with the scales for {right:.1%}")
assert not report.missing_keys and not report.unexpected_keys
assert other.weight.dtype == torch.float32 and float(other.weight.detach().abs().max()) == 127
assert same < 0.75 < 0.95 < right, (same, right)
try:
    other.load_state_dict({**stored, "weight": stored["weight"][:9]})
except RuntimeError as error:
    print("another shape is refused:", str(error).splitlines()[1].strip()[:60])
else:
    raise AssertionError("another shape was taken")
PY
# Seen: "All keys matched successfully", a largest entry of 127 (was 0.244), the same class for 61.2 % of the rows; 99.8 % with the scales.
