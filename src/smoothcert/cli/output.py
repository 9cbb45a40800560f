"""Printing: results, text and files; and options that take numbers, which may be fractions."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smoothcert.checks import printable, real_number
from smoothcert.errors import InputError

if TYPE_CHECKING:
    from smoothcert.results.base import Points, StoreResult

Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write there instead of printing.")]


def say(text: str, err: bool = False) -> None:
    """Print to standard output or error: all that a verb prints, but for its progress, passes here.

    Names and notes are often those of a stranger's store, so what a terminal would obey is shown as an escape.
    """
    typer.echo(printable(text), err=err)


def say_result(result: "StoreResult", points: "Points", as_json: bool) -> None:
    """Print the figures of one store, as every verb that shows them does."""
    from smoothcert.report.shown import render_result, result_json

    say(json.dumps(result_json(result, points)) if as_json else render_result(result, points))


def emit(content: str, out: Path | None) -> None:
    """Print, or write a file whole."""
    from smoothcert.io.files import make_folder, write_text

    if out is None:
        say(content)
    else:
        make_folder(out.parent)
        write_text(out, printable(content) + "\n")
        say(f"wrote {out}", err=True)


def real(*names: str, help: str) -> Any:
    """An option that takes a number or a fraction."""
    return typer.Option(*names, metavar="FLOAT", parser=_read_real, help=help)


def _read_real(value: str | float) -> float:
    try:
        return real_number(str(value))
    except InputError as error:
        raise typer.BadParameter(str(error)) from None


def number_list(name: str, text: str | None) -> list[float]:
    """Return the numbers of a list, some of which may be fractions; none for None.

    >>> number_list("radii", "0.5, 1/4")
    [0.5, 0.25]
    """
    try:
        return [real_number(part) for part in (text or "").split(",") if part.strip()]
    except InputError as error:
        raise InputError(f"{name} must be numbers separated by commas, such as 0.5,1 or 2/255: {error}") from None
