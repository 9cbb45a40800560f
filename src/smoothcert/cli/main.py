"""`smoothcert`: the verbs. Each imports what it needs when it is called, so that --help stays quick."""

import warnings
from typing import Annotated, Any

import typer

from smoothcert.cli.attack import attack
from smoothcert.cli.bundle import bundle
from smoothcert.cli.certify import certify
from smoothcert.cli.check import check
from smoothcert.cli.compare import compare
from smoothcert.cli.cost import cost
from smoothcert.cli.demo import demo
from smoothcert.cli.distributional import distributional
from smoothcert.cli.export import export
from smoothcert.cli.info import info
from smoothcert.cli.interrupts import leave_if_interrupted
from smoothcert.cli.label_best import label_best
from smoothcert.cli.output import say
from smoothcert.cli.plan import plan
from smoothcert.cli.plot import plot
from smoothcert.cli.predict import predict
from smoothcert.cli.pull import pull
from smoothcert.cli.push import push
from smoothcert.cli.quantise import quantise
from smoothcert.cli.recertify import recertify
from smoothcert.cli.report import report
from smoothcert.cli.reproduce import reproduce
from smoothcert.cli.route import route
from smoothcert.cli.selftest import selftest
from smoothcert.cli.table import table
from smoothcert.cli.train import train
from smoothcert.cli.transfer import transfer
from smoothcert.cli.verify import verify
from smoothcert.version import __version__

app = typer.Typer(
    name="smoothcert", no_args_is_help=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train classifiers that certify well, and prove how robust they are (randomized smoothing). "
         "Exit codes: 0 done, 1 failed, 2 usage.",
)


def _print_version(asked: bool) -> None:
    if asked:
        say(f"smoothcert {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", "-V", callback=_print_version, is_eager=True,
                                          help="Print the version.")] = False,
) -> None:
    pass


for verb in (train, quantise, certify, predict, attack, distributional, transfer, label_best, route, recertify, table,
             plot, report, bundle, compare, check, cost, plan, export, reproduce, verify, selftest, info, push, pull,
             demo):
    if isinstance(verb, typer.Typer):
        app.add_typer(verb)
    else:
        app.command()(verb)


def main() -> None:
    """Run the command `smoothcert`."""

    def show_warning(message: Warning | str, *where: Any) -> None:  # in a line, without the place in the code
        say(f"warning: {message}", err=True)

    warnings.showwarning = show_warning
    with leave_if_interrupted():
        app()
