"""`smoothcert verify`."""

import json
from typing import TYPE_CHECKING

import typer

from smoothcert.checks import one_line
from smoothcert.cli.options import verb
from smoothcert.cli.output import say
from smoothcert.verify.options import VerifyConfig

if TYPE_CHECKING:
    from smoothcert.verify.verify import Verified

_SHOWN = 20


@verb
def verify(config: VerifyConfig, as_json: bool) -> None:
    """Check a store end to end: files, images, and every answer computed again; exit code 1 where anything is wrong."""
    from smoothcert.verify.verify import verify as run

    found = run(config)
    say(json.dumps(found.content()) if as_json else _text(found))
    if found.problems:
        raise typer.Exit(1)


def _text(found: "Verified") -> str:
    lines = [f"{found.folder}: {found.kind}"]
    for check in found.checks:
        lines.append(f"  {'WRONG' if check.problems else 'ok':<5}  {check.name:<11} {check.told}")
        lines += [f"         - {problem}" for problem in check.problems[:_SHOWN]]
        if len(check.problems) > _SHOWN:
            lines.append(f"         ... and {len(check.problems) - _SHOWN} more (--json lists all)")
    wrong = len(found.problems)
    lines.append(f"{wrong} problem{'s' if wrong > 1 else ''} found" if wrong else "nothing is wrong")
    return "\n".join(map(one_line, lines))
