"""How a run tells its caller how far it is."""

from typing import Protocol


class Progress(Protocol):
    """Told how far a run is: units done, units in all, a few words."""

    def __call__(self, done: int, total: int, words: str) -> None: ...


def silent(done: int, total: int, words: str) -> None:
    """Tells nobody."""
