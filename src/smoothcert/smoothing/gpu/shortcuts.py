"""Shortcuts on a GPU by name, to be left out or taken where their worth is measured: none changes a float32 count."""

from collections.abc import Iterator
from contextlib import contextmanager

from smoothcert.checks import check_known

_taken = {
    "noise_kernel": True,  # rows are drawn on the GPU; else on the host, by the same format
    "vote_kernel": True,  # two launches a batch in place of a dozen operations of torch
    "fused_convolutions": True,  # a convolution with its bias, ReLU and sum in one call of cuDNN
    "row_layout": True,  # rows are written as the network reads them: with the channels last, in 16 bits
    "layout_trial": True,  # float32 with the channels first, where a trial finds it faster
    "cuda_graph": True,  # a batch's draw, forward pass and votes replayed in one launch, where a trial finds it faster
    "batch_trial": True,  # a smaller batch in long runs, where a trial of recorded batches finds it faster
}
NAMES = tuple(_taken)


def is_taken(name: str) -> bool:
    """Tell whether a shortcut is taken where it can be."""
    return _taken[name]


@contextmanager
def shortcuts(**wanted: bool) -> Iterator[None]:
    """Take or leave shortcuts meanwhile, for what is opened within.

    >>> with shortcuts(vote_kernel=False):
    ...     pass

    Raises UnknownNameError for one that does not exist.
    """
    for name in wanted:
        check_known("shortcut", name, _taken)
    before = dict(_taken)
    _taken.update(wanted)
    try:
        yield
    finally:
        _taken.update(before)
