"""`smoothcert selftest`."""

import json

import typer

from smoothcert.cli.options import verb
from smoothcert.cli.output import say
from smoothcert.selftest.options import SelftestConfig


@verb
def selftest(config: SelftestConfig, as_json: bool) -> None:
    """Check this installation against classifiers of known p_A and radius: can its certificates be trusted?"""
    from smoothcert.io.files import make_folder, write_json
    from smoothcert.report.selftest import selftest_text
    from smoothcert.selftest.run import selftest as run

    found = run(config)
    if config.out is not None:
        make_folder(config.out.parent)
        write_json(config.out, found.content())
    say(json.dumps(found.content()) if as_json else selftest_text(found))
    if found.verdict != "green":
        raise typer.Exit(1)
