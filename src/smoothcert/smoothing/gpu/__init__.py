"""The parts of a run that a GPU does otherwise: rows, votes and their kernels, the referee, and shortcuts by name.

Each shortcut has a plain twin that computes the same, so that all of it runs, and is tested, without a GPU.
"""

from smoothcert.smoothing.gpu.shortcuts import shortcuts

__all__ = ["shortcuts"]
