"""What is shown: plain lines at growing intervals where no terminal is, and a bar in one."""

import io
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest

from smoothcert.progress import Event
from smoothcert.progress.bars import Bar, Notebook, PlainLines, show
from smoothcert.progress.pace import describe_seconds

EVENT = Event("sampling", 3, 50, "images", 0.0625, "312k samples, 521/s", 8888.0, "at most", 12.0)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_come_within_seconds_and_then_seldom():
    out, clock = io.StringIO(), Clock()
    lines = PlainLines(out, clock)
    lines(EVENT)
    moments = []
    for now in range(0, 6 * 3600, 1):
        clock.now, before = float(now), len(out.getvalue())
        lines.tick()
        if len(out.getvalue()) > before:
            moments.append(now)
    lines.close()
    assert moments[0] <= 3
    assert 10 < len(moments) < 120
    gaps = [b - a for a, b in pairwise(moments)]
    assert gaps == sorted(gaps)
    assert gaps[-1] == 300
    first = out.getvalue().splitlines()[0]
    assert first == "sampling: 6%, 3/50 images, 312k samples, 521/s, 15 s so far, at most 2 h 28 min left"
    assert out.getvalue().isprintable() or set(out.getvalue()) <= {*map(chr, range(32, 127)), "\n"}


def test_a_line_says_what_took_long_and_nothing_what_did_not():
    out = io.StringIO()
    lines = PlainLines(out, lambda: 0.0)
    lines(Event("loading the data", seconds=0.2, ended=True))
    lines(Event("hashing the data", 9, 9, "images", 1.0, seconds=7.0, ended=True))
    lines(Event("", line="50 images to do"))
    lines.close()
    assert out.getvalue() == "hashing the data: 9/9 images, 7 s so far: done\n50 images to do\n"


def test_a_bar_shows_samples_and_the_time_left(monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    terminal = Terminal()
    bar = Bar(terminal)
    bar(EVENT)
    bar(Event("", line="a [bold]line[/nothing]\x1b[31m"))
    bar(Event("sampling", 50, 50, "images", 1.0, "5M samples", seconds=9999.0, ended=True))
    bar.close()
    for words in ("3/50 images", "312k samples, 521/s", "at most 2 h 28 min left", "a [bold]line[/nothing]\\x1b[31m",
                  "50/50 images"):
        assert words in terminal.getvalue(), words


@pytest.mark.parametrize(("terminal", "settings", "kind"), [
    (True, {}, Bar), (True, {"TERM": "dumb"}, PlainLines), (False, {"FORCE_COLOR": "1"}, PlainLines)])
def test_where_the_cursor_cannot_move_there_are_lines(monkeypatch, terminal, settings, kind):
    monkeypatch.setenv("TERM", "xterm")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with show(Terminal() if terminal else io.StringIO()) as display:
        assert type(display) is kind


def test_no_color_is_obeyed(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    shown = {}
    for setting in ("", "1"):
        monkeypatch.setenv("NO_COLOR", setting)
        terminal = Terminal()
        with show(terminal) as display:
            display(EVENT)
        shown[setting] = terminal.getvalue()
    assert "\x1b[38;5" in shown[""] or "\x1b[3" in shown[""]
    assert "\x1b[3" not in shown["1"]


def test_a_notebook_shows_the_same_without_a_widget(monkeypatch):
    shown = []
    handle = SimpleNamespace(update=shown.append)

    def display(table, display_id):
        shown.append(table)
        return handle

    shell = type("ZMQInteractiveShell", (), {})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    clock = Clock()
    with show() as bar:
        assert type(bar) is Notebook
        bar._clock = clock
        for number in range(100):
            clock.now += 0.1
            bar(Event("sampling", number, 100, "images", number / 100))
        bar(Event("sampling", 100, 100, "images", 1.0, ended=True))
    assert 30 <= len(shown) <= 52, "four times a second, and at the beginning and end"
    assert "100/100 images" in shown[-1]._repr_mimebundle_([], [])["text/plain"]


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (59.2, "1 min"), (61, "1 min 1 s"), (7200, "2 h")])
def test_times_are_said_as_people_do(seconds, words):
    assert describe_seconds(seconds) == words
