"""What is done otherwise on a GPU: rows, votes and their kernels, the referee, and the shortcuts that can be left out.

Each shortcut has a plain twin that computes the same, so that all of it runs, and is tested, without a GPU.
"""

from smoothcert.smoothing.gpu.shortcuts import shortcuts

__all__ = ["shortcuts"]
