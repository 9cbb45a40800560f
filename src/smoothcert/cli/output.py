"""What verbs that print share: where to, and lists of numbers."""

from pathlib import Path
from typing import Annotated

import typer

from smoothcert.checks import printable
from smoothcert.errors import InputError

Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write there instead of printing.")]


def say(text: str, err: bool = False) -> None:
    """Print to standard output or error: all that a verb prints, but for its progress, passes here.

    Names and notes are often those of a stranger's store, so what a terminal would obey is shown as an escape.
    """
    typer.echo(printable(text), err=err)


def emit(content: str, out: Path | None) -> None:
    """Print, or write a file whole."""
    from smoothcert.runs.files import make_folder, write_text

    if out is None:
        say(content)
    else:
        make_folder(out.parent)
        write_text(out, printable(content) + "\n")
        say(f"wrote {out}", err=True)


def number_list(name: str, text: str | None) -> list[float]:
    """'0.5,1' -> [0.5, 1.0]; nothing for None."""
    try:
        return [float(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        raise InputError(f"{name} must be numbers separated by commas, such as 0.5,1,1.5, got {text!r}") from None
