"""Factories whose networks have random weights, found by calling them twice."""

import random
import time
from contextlib import suppress

import numpy as np
import torch
from torch import nn

from smoothcert.models.loaded import LoadedModel
from smoothcert.models.weights import keep_generators

_MOST_PARAMETERS = 30_000_000
"""Of networks that are built a second time: those of a larger one would take long, and much memory."""


def has_random_weights(loaded: LoadedModel, seconds: float) -> bool:
    """Tell if a factory gives other weights at each call, as one that loads none does.

    The factory is called once more, in another state of the global generators, which are put back afterwards. Models
    of other kinds, large networks and slow factories are taken at their word, and so are factories that seed the
    generators themselves.

    Args:
        seconds: the time that the first call took.
    """
    if loaded.again is None or not isinstance(loaded.model, nn.Module) or seconds > 2:
        return False
    state = loaded.model.state_dict()
    if not 0 < sum(parameter.numel() for parameter in loaded.model.parameters()) <= _MOST_PARAMETERS:
        return False
    with keep_generators(), suppress(Exception):  # a factory that cannot be called twice
        seed = (torch.initial_seed() + time.monotonic_ns()) % 2**32
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also seeds a GPU that is not in use yet
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        again = loaded.again().state_dict()
        return any(isinstance(tensor, torch.Tensor) and not torch.equal(tensor, again[name])
                   for name, tensor in state.items())
    return False
