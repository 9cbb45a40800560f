#!/usr/bin/env bash
# After a torch optimiser was made, TRITON_INTERPRET=1 no longer makes kernels that use tl.max run.
#
# One would guess: a kernel runs in Triton's interpreter where TRITON_INTERPRET=1 is set when the kernel is defined (the
# decorator reads it), and an optimiser on the CPU has nothing to do with Triton.
# What happens (torch 2.13.0, triton 3.6.0): making an optimiser imports torch._dynamo, and that imports Triton wherever
# it is installed. Triton's own functions, such as tl.max, are decorated at that import, for the GPU. A kernel that is
# defined later with TRITON_INTERPRET=1 is interpreted until it calls one of them: "Cannot call @triton.jit'd outside of
# the scope of a kernel". Kernels of plain operations go on working, so a suite of tests fails in some orders alone. The
# variable has to be set before the process makes its first optimiser.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet numpy torch==2.13.0 triton==3.6.0
cat > "$room/kernel.py" <<'PY'
import os
import sys

import torch

if "optimiser" in sys.argv:
    before = "triton" in sys.modules
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    print("Triton is imported before the optimiser:", before, "and after it:", "triton" in sys.modules)
    assert (before, "triton" in sys.modules) == (False, True)
os.environ["TRITON_INTERPRET"] = "1"
import triton
import triton.language as tl


@triton.jit
def double(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, 2 * tl.load(x + i))


@triton.jit
def largest(x, out, N: tl.constexpr):
    tl.store(out, tl.max(tl.load(x + tl.arange(0, N)), axis=0))


print("torch", torch.__version__, "triton", triton.__version__)
x, twice, most = torch.arange(8.0), torch.zeros(8), torch.zeros(1)
double[(1,)](x, twice, 8)
assert torch.equal(twice, 2 * x)
print("a kernel of plain operations is right")
try:
    largest[(1,)](x, most, 8)
except Exception as error:
    print("a kernel with tl.max:", error)
    assert "optimiser" in sys.argv and "outside of the scope of a kernel" in str(error)
else:
    print("a kernel with tl.max is right")
    assert most.item() == 7 and "optimiser" not in sys.argv
PY
"$room/venv/bin/python" "$room/kernel.py"
"$room/venv/bin/python" "$room/kernel.py" optimiser
