"""The callback by which a run reports its progress."""

from typing import Protocol


class Progress(Protocol):
    """Called with the units done, the units in all, and a few words."""

    def __call__(self, done: int, total: int, words: str) -> None: ...


def silent(done: int, total: int, words: str) -> None:
    """Report nothing."""
