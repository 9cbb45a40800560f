"""`smoothcert recertify`."""

import json
from typing import TYPE_CHECKING

from smoothcert.cli.options import verb
from smoothcert.cli.output import say
from smoothcert.cli.table import format_of
from smoothcert.errors import InputError
from smoothcert.report.options import RecertifyTableConfig

if TYPE_CHECKING:
    from smoothcert.results.base import StoreResult
    from smoothcert.store.store import Store

Reread = tuple["StoreResult", tuple[float, ...]]
"""What was computed again, and the radii to show it at."""

_OF_VOTES = ("method", "margin", "no_margin", "top_k", "groups", "costs", "labels_known", "noise", "intervals")


@verb
def recertify(config: RecertifyTableConfig, as_json: bool) -> None:
    """Recompute certificates from stored counts, at another alpha, method or margin, or for another claim."""
    from smoothcert.interop import open_votes
    from smoothcert.report.shown import render
    from smoothcert.results.base import Points
    from smoothcert.results.gather import put_side_by_side
    from smoothcert.store.names import name_of

    form, stored = format_of(config, as_json), open_votes(config.store)
    name, kept = (name_of(config.out), str(config.out)) if config.out else (None, "")
    result, radii = REREAD.get(stored.kind, reread_votes)(config, stored, name, kept)
    runs = put_side_by_side([result], Points(radii, config.rho, intervals=config.intervals))
    say(json.dumps(runs.to_json()[0]) if as_json else render([runs], form))


def reread_votes(config: RecertifyTableConfig, stored: "Store", name: str | None, kept: str) -> Reread:
    """Return the certificates of a certify store computed again, and the radii to show; keep them if asked to."""
    from smoothcert.results.certified import Result
    from smoothcert.store.claims import make_claim
    from smoothcert.store.recertify import recertify as run
    from smoothcert.store.recertify import write_recertified

    margin = None if config.no_margin else "stored" if config.margin is None else config.margin
    claim = make_claim(stored, config.top_k, config.groups, config.costs)
    answers, procedure = run(stored, config.alpha, config.method, margin, config.noise, claim, config.labels_known)
    result = Result.build(stored, name, procedure, answers.prediction, answers.radius, kept)
    if config.out:
        write_recertified(config.out, stored, answers, procedure)
    return result, tuple(config.radii or ())


def reread_intervals(config: RecertifyTableConfig, stored: "Store", name: str | None, kept: str) -> Reread:
    """Return the intervals of a regression store read again at other radii or another alpha, and keep them if asked
    to."""
    from smoothcert.results.regression import CertifiedIntervals
    from smoothcert.store.intervals import Sketches, write_reread

    refuse_foreign(config, stored)
    sketches = Sketches.of(stored).at(config.radii, config.alpha)
    result = CertifiedIntervals.build(stored, sketches, name, kept)
    if config.out:
        write_reread(config.out, stored, sketches)
    return result, ()


def rejudge_labels(config: RecertifyTableConfig, stored: "Store", name: str | None, kept: str) -> Reread:
    """Return the labels of a multi-label store certified again at another alpha, and the radii to show; keep them if
    asked to."""
    from smoothcert.results.multi_label import CertifiedLabels
    from smoothcert.store.multi_label import LabelVotes, write_judged

    refuse_foreign(config, stored)
    votes = LabelVotes.of(stored).at(config.alpha)
    result = CertifiedLabels.build(stored, votes, name, kept)
    if config.out:
        write_judged(config.out, stored, votes)
    return result, tuple(config.radii or ())


def refuse_foreign(config: RecertifyTableConfig, stored: "Store") -> None:
    """Raise InputError for options that are for the votes of classes."""
    fields = type(config).model_fields
    if foreign := [name.replace("_", "-") for name in _OF_VOTES if getattr(config, name) != fields[name].default]:
        raise InputError(f"{config.store} is a {stored.kind} store, of which alpha and radii can be asked: leave out "
                         f"{', '.join(foreign)}")


REREAD = {"regression": reread_intervals, "multi-label": rejudge_labels}
"""How the stores of other tasks than classification are certified again."""
