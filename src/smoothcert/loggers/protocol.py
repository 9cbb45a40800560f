"""The protocol of loggers."""

import importlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from smoothcert.errors import MissingExtraError, SmoothcertError
from smoothcert.io.files import read_json, write_json
from smoothcert.io.paths import Place

NOTE = ".loggers.json"
"""A hidden file in a run's folder: what other programs call the run, so that a resumed run goes on there."""


class Logger(Protocol):
    """Shows the figures of a run as they come. It never changes a result, and is no part of a run's identity."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take figures by name, such as train/loss.

        Args:
            step: finished epochs of a training, or finished images; a resumed run goes on where it stopped.
        """
        ...

    def close(self) -> None:
        """End: no more figures come, for now or for good."""
        ...


class Figures(Protocol):
    """A function that takes the figures of a step."""

    def __call__(self, step: int, values: Mapping[str, float], /) -> None: ...


def import_library(name: str) -> Any:
    """Import the package of a logger, which its extra is named after. Raises MissingExtraError where it is absent."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(name, name, f"the logger {name}") from error


def recall_name(run: Place, logger: str) -> str | None:
    """Return what a logger calls the run in this folder; None where it has not met it."""
    with suppress(SmoothcertError):
        known = read_json(run / NOTE) if (run / NOTE).is_file() else {}
        name = known.get(logger) if isinstance(known, dict) else None
        return name if isinstance(name, str) else None
    return None


def note_name(run: Place, logger: str, name: str) -> None:
    """Note what a logger calls the run in this folder. Raises FileError."""
    known = read_json(run / NOTE) if (run / NOTE).is_file() else {}
    write_json(run / NOTE, {**(known if isinstance(known, dict) else {}), logger: name})
