"""Triton's kernels compiled for a GPU that is not there."""

import os
import subprocess
import sys

_COMPILE = """
import importlib, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

module, name, types, constants = sys.argv[1], sys.argv[2], eval(sys.argv[3]), eval(sys.argv[4])
kernel = getattr(importlib.import_module(module), name)
try:
    source = ASTSource(fn=kernel, signature={**types, **dict.fromkeys(constants, "constexpr")}, constexprs=constants)
except TypeError:  # before Triton 3.3
    source = ASTSource(fn=kernel, signature=types, constants=constants)
options = {"enable_fp_fusion": False}
print(triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"])
"""


def compile_kernel(cache, module, name, types, constants):
    """Return the PTX of a kernel for a Hopper GPU, compiled as its module launches it."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache), "TRITON_INTERPRET": "0"}
    run = subprocess.run([sys.executable, "-c", _COMPILE, module, name, repr(types), repr(constants)],
                         env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout
