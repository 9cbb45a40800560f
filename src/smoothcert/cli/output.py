"""Everything that a person sees of a verb: what it prints, its progress, its errors and its exit codes.

Exit codes: 0 done, 1 failed, 2 usage.
"""

import functools
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from smoothcert.checks import printable
from smoothcert.cli.interrupts import answer_interrupts, say_goodbye
from smoothcert.errors import SmoothcertError
from smoothcert.progress import Event, Progress, Reporter, reporting, silent

T = TypeVar("T")

if TYPE_CHECKING:
    from smoothcert.results.base import Points, StoreResult

def say(text: str, err: bool = False) -> None:
    """Print to standard output or error: everything that a verb prints passes here, except for its progress.

    Names and notes often come from a stranger's store, so what a terminal would obey is shown as an escape.
    """
    typer.echo(printable(text), err=err)


def say_result(result: "StoreResult", points: "Points", as_json: bool) -> None:
    """Print the figures of one store, as every verb that shows them does."""
    from smoothcert.report.shown import render_result, result_json

    say(json.dumps(result_json(result, points)) if as_json else render_result(result, points))


def emit(content: str, out: Path | None) -> None:
    """Print a text, or write it whole into a file."""
    from smoothcert.io.files import make_folder, write_text

    if out is None:
        say(content)
    else:
        make_folder(out.parent)
        write_text(out, printable(content) + "\n")
        say(f"wrote {out}", err=True)


def report_errors(command: Callable[..., T]) -> Callable[..., T]:
    """Print our own errors and interruptions in plain words and set the exit code; let bugs show their traceback."""

    @functools.wraps(command)
    def run_command(*args: Any, **kwargs: Any) -> T:
        try:
            return command(*args, **kwargs)
        except SmoothcertError as error:
            say(f"error: {error}", err=True)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:  # outside `listen`, where nothing is kept
            say(say_goodbye(None), err=True)
            raise typer.Exit(1) from None

    return run_command


def fail_for(problems: Sequence[SmoothcertError]) -> None:
    """Print what went wrong with a part of the work, and exit with 1 if anything did; the rest was done."""
    for problem in problems:
        say(f"error: {problem}", err=True)
    if problems:
        raise typer.Exit(1)


@contextmanager
def listen(quiet: bool, verbose: bool) -> Iterator[None]:
    """Show the progress of what is done within, its warnings and, if asked for, its log, all on standard error; where
    it is interrupted, say what is kept and set the exit code.

    Args:
        quiet: show nothing but errors.
        verbose: show the log of the package too: phases with their times, choices, and what was found in a cache.
    """
    reporter = Reporter()
    try:
        with ExitStack() as stack:
            displays: list[Progress] = []

            def tell(event: Event) -> None:
                if not displays:  # only now, since most commands have none to show
                    from smoothcert.progress.bars import show

                    displays.append(stack.enter_context(show()))
                displays[0](event)

            if quiet:
                stack.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            elif verbose:
                stack.enter_context(_log_to_terminal())
            reporter = stack.enter_context(reporting(silent if quiet else tell))
            stack.enter_context(answer_interrupts(reporter.kept))
            yield
    except KeyboardInterrupt:
        say(say_goodbye(reporter.kept()), err=True)
        raise typer.Exit(1) from None


@contextmanager
def _log_to_terminal() -> Iterator[None]:
    class Saying(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(self.format(record), err=True)

    logger, handler = logging.getLogger("smoothcert"), Saying()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
