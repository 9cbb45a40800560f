"""Errors as a person should see them, and the exit codes: 0 done, 1 failed, 2 usage."""

import functools
import signal
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import typer

from smoothcert.cli.output import say
from smoothcert.errors import SmoothcertError


def reported(command: Callable[..., None]) -> Callable[..., None]:
    """Print our own errors and interruptions in plain words and set the exit code; let bugs show their traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            command(*args, **kwargs)
        except SmoothcertError as error:
            say(f"error: {error}", err=True)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            say("interrupted: what was finished is kept; the same command goes on from there", err=True)
            raise typer.Exit(1) from None

    return wrapped


def fail_for(problems: Sequence[SmoothcertError]) -> None:
    """Print what went wrong with a part of the work, and exit with 1 if anything did; the rest was done."""
    for problem in problems:
        say(f"error: {problem}", err=True)
    if problems:
        raise typer.Exit(1)


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt
