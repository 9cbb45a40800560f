"""Everything that a person sees of a verb: what it prints, its progress, its errors and its exit codes.

Exit codes: 0 done, 1 failed, 2 usage.
"""

import functools
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

from smoothcert.checks import printable
from smoothcert.errors import SmoothcertError
from smoothcert.progress import Progress, silent

T = TypeVar("T")

if TYPE_CHECKING:
    from smoothcert.results.base import Points, StoreResult

_LINE_EVERY = 15.0


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

    def interrupt(number: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    @functools.wraps(command)
    def run_command(*args: Any, **kwargs: Any) -> T:
        signal.signal(signal.SIGTERM, interrupt)
        try:
            return command(*args, **kwargs)
        except SmoothcertError as error:
            say(f"error: {error}", err=True)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            say("interrupted: what was finished is kept; the same command goes on from there", err=True)
            raise typer.Exit(1) from None

    return run_command


def fail_for(problems: Sequence[SmoothcertError]) -> None:
    """Print what went wrong with a part of the work, and exit with 1 if anything did; the rest was done."""
    for problem in problems:
        say(f"error: {problem}", err=True)
    if problems:
        raise typer.Exit(1)


@contextmanager
def show_progress(unit: str, quiet: bool) -> Iterator[Progress]:
    """Give a run a function to call with its progress, which is shown on standard error.

    A terminal shows a bar; elsewhere a line is printed now and then. `unit` is the plural of what is counted.
    """
    if quiet:
        yield silent
        return
    from rich.console import Console  # imported here, since --help does without it

    console = Console(stderr=True)
    if console.is_terminal:
        from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
        from rich.text import Text

        class Rate(ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text("" if not task.speed else f"{task.speed:.3g} {unit}/s")

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
                   Rate(), TimeRemainingColumn())
        with Bar(*columns, console=console) as bar:
            task = bar.add_task("starting", total=None)
            yield lambda done, total, words: bar.update(task, completed=done, total=total,
                                                        description=printable(words))
    else:
        yield _print_lines(console, unit)


def _print_lines(console: Any, unit: str) -> Progress:
    """Return a function that prints a line every `_LINE_EVERY` seconds, with the rate and the time that is left."""
    started = last = time.monotonic()
    first: int | None = None

    def progress(done: int, total: int, words: str) -> None:
        nonlocal first, last
        first = done if first is None else first  # images of an earlier run say nothing about the pace of this one
        now = time.monotonic()
        if now - last < _LINE_EVERY and not (done == total and now - started >= _LINE_EVERY):
            return
        last, seconds, pace = now, now - started, ""
        if done > first and seconds > 0:
            pace = f"  {(done - first) / seconds:.3g} {unit}/s"
            if total > done:
                pace += f", {timedelta(seconds=round((total - done) * seconds / (done - first)))} left"
        console.print(f"{done} of {total} {unit}  {printable(words)}{pace}", markup=False, highlight=False,
                      soft_wrap=True)

    return progress
