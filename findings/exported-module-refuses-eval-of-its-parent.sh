#!/usr/bin/env bash
# One module made by torch.export makes eval() and train() of every network that holds it raise.
#
# One would guess: eval() of a network reaches all of its parts; a part whose mode is fixed ignores it, as it has nothing
# to change. Wrapping an exported network in nn.Sequential with a normalising layer is then an ordinary network.
# What happens (torch 2.13.0): the module of an exported program raises NotImplementedError for eval() and train(), and
# so does every parent's call, even though the program was exported in eval mode. Copying or hashing tools that call
# eval() first fail on it.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$room/venv/bin/python" - <<'PY'
import torch
from torch import nn

print("torch", torch.__version__)
network = nn.Sequential(nn.Linear(4, 2), nn.Dropout()).eval()
program = torch.export.export(network, (torch.zeros(2, 4),))
parent = nn.Sequential(nn.Identity(), program.module())
print("answers:", tuple(parent(torch.zeros(2, 4)).shape))
for name in ("eval", "train"):
    try:
        getattr(parent, name)()
        outcome = "works"
    except NotImplementedError as error:
        outcome = f"NotImplementedError: {str(error).splitlines()[0]}"
    print(f"{name}() of the parent: {outcome}")
    assert outcome.startswith("NotImplementedError"), outcome
PY
# Seen: NotImplementedError twice.
