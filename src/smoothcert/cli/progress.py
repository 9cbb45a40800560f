"""Progress on standard error: a bar in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from smoothcert.checks import printable
from smoothcert.progress import Progress as Told
from smoothcert.progress import silent

_LINE_EVERY = 15.0


@contextmanager
def shown(unit: str, quiet: bool) -> Iterator[Told]:
    """A callable for a run to tell its progress to; `unit` is what it counts."""
    console = Console(stderr=True)
    if quiet:
        yield silent
    elif console.is_terminal:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
                   _Rate(unit), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("starting", total=None)

            def told(done: int, total: int, words: str) -> None:
                bar.update(task, completed=done, total=total, description=printable(words))

            yield told
    else:
        yield _lines(console, unit)


def _lines(console: Console, unit: str) -> Told:
    started = last = time.monotonic()
    first: int | None = None

    def told(done: int, total: int, words: str) -> None:
        nonlocal first, last
        first = done if first is None else first  # what an earlier run did says nothing of this one's pace
        now = time.monotonic()
        if now - last >= _LINE_EVERY or (done == total and now - started >= _LINE_EVERY):
            last = now
            pace = _pace(done - first, total - done, now - started, unit.rstrip("s"))
            console.print(f"{done} of {total} {unit}  {printable(words)}{pace}", markup=False, highlight=False,
                          soft_wrap=True)

    return told


def _pace(done: int, left: int, seconds: float, unit: str) -> str:
    """Units a second, and the time that the rest will take at that rate."""
    if not done or seconds <= 0:
        return ""
    rest = timedelta(seconds=round(left * seconds / done))
    return f"  {done / seconds:.3g} {unit}s/s" + (f", {rest} left" if left else "")


class _Rate(ProgressColumn):
    """Units a second."""

    def __init__(self, unit: str):
        super().__init__()
        self._unit = unit.rstrip("s")

    def render(self, task) -> Text:
        return Text("" if not task.speed else f"{task.speed:.3g} {self._unit}s/s")
