"""The progress as a person sees it: a bar in a terminal, the same in a notebook, plain lines anywhere else."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from smoothcert.checks import printable
from smoothcert.progress.pace import describe_seconds
from smoothcert.progress.reports import Event, Progress

_KEPT = 1.0  # seconds of a phase, from which on its bar stays
_FIRST, _LONGEST = 3.0, 300.0  # seconds until the first line, and at most between two
_REFRESHED = 2.0  # pictures of a terminal's bar a second: each takes a millisecond or two
_REDRAWN = 0.25  # seconds between two pictures of a notebook's bar


@contextmanager
def show(stream: TextIO | None = None) -> Iterator[Progress]:
    """Give a callback that shows what it is told: by a bar in a terminal or notebook, else by a line now and then.

    Args:
        stream: where to; None is standard error.
    """
    target: TextIO = sys.stderr if stream is None else stream
    if _in_notebook():
        display: PlainLines | Bar = Notebook()
    else:
        display = Bar(target) if target.isatty() and _obeys(target) else PlainLines(target)
    try:
        yield display
    finally:
        display.close()


def _obeys(stream: TextIO) -> bool:
    """Tell whether a terminal can move its cursor."""
    from rich.console import Console

    return not Console(file=stream, force_terminal=True).is_dumb_terminal


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


def describe_left(event: Event) -> str:
    """Return the time left in words, "" where it is not known."""
    if event.left is None or event.ended:
        return ""
    return f"{event.bound} {describe_seconds(event.left)} left".strip()


def describe_done(event: Event) -> str:
    """Return the units done in words."""
    if not event.unit or (event.total is None and not event.done):
        return ""
    return f"{event.done}{'' if event.total is None else f'/{event.total}'} {event.unit}"


class Bar:
    """A bar in a terminal; it moves on by itself, and stays where a phase took long."""

    def __init__(self, stream: TextIO | None = None):
        self._stream, self._task = stream, 0
        self._bar: Any = None

    def __call__(self, event: Event) -> None:
        if event.line:
            self._print(event.line)
            return
        bar, is_new = self._bar or build_bar(self._stream), self._bar is None
        shown: dict[str, Any] = {
            "description": printable(event.phase), "total": None if event.share is None else 1.0,
            "completed": event.share or 0.0, "done": describe_done(event), "words": printable(event.words),
            "left": describe_left(event), "seconds": event.seconds}
        if is_new:
            self._bar, self._task = bar, bar.add_task(**shown)
            self._start()
        else:
            bar.update(self._task, **shown)
        if event.ended:
            self._stop(event.seconds >= _KEPT)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._stop(kept=False)

    def _start(self) -> None:
        self._bar.start()

    def _stop(self, kept: bool) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.live.transient = not kept
            bar.stop()

    def _print(self, line: str) -> None:
        from rich.console import Console

        console = self._bar.console if self._bar is not None else Console(file=self._stream, force_terminal=True)
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


class Notebook(Bar):
    """The same bar as a notebook's output, without a widget; events alone move it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self._clock, self._drawn, self._handle = clock, 0.0, None

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if self._bar is not None and self._clock() - self._drawn >= _REDRAWN:
            self._draw()

    def _start(self) -> None:
        from IPython.display import display  # type: ignore[import-not-found]

        self._handle = display(self._bar.make_tasks_table(self._bar.tasks), display_id=True)

    def _draw(self) -> None:
        self._drawn = self._clock()
        if self._handle is not None and self._bar is not None:
            self._handle.update(self._bar.make_tasks_table(self._bar.tasks))

    def _stop(self, kept: bool) -> None:
        self._draw()
        self._bar = self._handle = None

    def _print(self, line: str) -> None:
        sys.stderr.write(printable(line) + "\n")


def build_bar(stream: TextIO | None) -> Any:
    """Return rich's bar with our columns."""
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column
    from rich.text import Text

    class Times(ProgressColumn):
        def render(self, task: Any) -> Text:
            so_far = describe_seconds(max(task.elapsed or 0.0, task.fields["seconds"]))
            return Text(f"{so_far}, {task.fields['left']}" if task.fields["left"] else so_far)

    def text(field: str, **how: Any) -> TextColumn:
        return TextColumn(field, markup=False, table_column=Column(no_wrap=True, **how))

    console = Console(file=stream, force_terminal=True) if stream else Console(stderr=True)
    return RichProgress(
        SpinnerColumn(), text("{task.description}"), BarColumn(min(20, console.width // 8)),
        text("{task.fields[done]}"), text("{task.fields[words]}", overflow="ellipsis", ratio=1), Times(),
        console=console, expand=True, refresh_per_second=_REFRESHED)


class PlainLines:
    """Plain lines at growing intervals, and at the end of what took long; also while the work tells nothing."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        self._stream, self._clock, self._started = stream, clock, clock()
        self._due = self._started + _FIRST
        self._event: Event | None = None
        self._told = 0.0
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._ticker: threading.Thread | None = None

    def __call__(self, event: Event) -> None:
        with self._lock:
            if event.line:
                self._print(event.line)
                return
            self._event, self._told = event, self._clock()
            if event.ended:
                if event.seconds >= _FIRST:
                    self._print(f"{_join(event, event.seconds)}: done")
                self._event = None
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._run, name="smoothcert-progress", daemon=True)
            self._ticker.start()

    def tick(self) -> None:
        """Print a line if one is due."""
        with self._lock:
            now = self._clock()
            if self._event is None or now < self._due:
                return
            self._due = now + min(max((now - self._started) / 3, _FIRST), _LONGEST)
            self._print(_join(self._event, self._event.seconds + now - self._told))

    def close(self) -> None:
        """Print nothing more."""
        self._closed.set()
        if self._ticker is not None:
            self._ticker.join()

    def _run(self) -> None:
        while not self._closed.wait(0.5):
            self.tick()

    def _print(self, line: str) -> None:
        self._stream.write(printable(line) + "\n")
        self._stream.flush()


def _join(event: Event, seconds: float) -> str:
    percent = "" if event.share is None or event.ended else f"{event.share:.0%}"
    parts = [percent, describe_done(event), event.words, f"{describe_seconds(seconds)} so far", describe_left(event)]
    return f"{event.phase}: " + ", ".join(part for part in parts if part)
