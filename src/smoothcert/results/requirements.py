"""Requirements on the figures of a run, held against its confidence limits: what a build server asks.

A requirement is METRIC RELATION NUMBER, such as 'accuracy@0.5 >= 0.40'. It holds where the confidence limit on the
safe side meets the number: the lower one for >= and >, the upper one for <= and <. Certified accuracy, ACR and the
accuracy with one noisy copy are bounded from below alone: a robust image may go unclaimed.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from smoothcert.checks import check_known, check_probability, real_number, suggestion
from smoothcert.errors import ConfigError, InputError, StoreError
from smoothcert.results.base import StoreResult
from smoothcert.results.certified import Result
from smoothcert.results.gather import read_result
from smoothcert.results.multi_label import CertifiedLabels
from smoothcert.results.predictions import Predicted
from smoothcert.stats import clopper_pearson
from smoothcert.stats.intervals import acr_limit
from smoothcert.store.recertify import has_votes
from smoothcert.store.store import Store

GRAMMAR = """a requirement is METRIC RELATION NUMBER, such as 'accuracy@0.5 >= 0.40':
  METRIC    accuracy@RADIUS (accuracy alone: at radius 0, or of PREDICT), one_pass@RADIUS, acr, abstained
  RELATION  >=  >  <=  <
  NUMBER    0.4, 2/5 or, of a share, 40%; RADIUS: 0.5 or 128/255"""

Checkable = Result | Predicted | CertifiedLabels
"""What requirements are held against."""

BOUNDS = {
    "population": "lower limits for new images", "test_set": "lower limits for these images",
    "bernstein": "Bernstein's lower limits for these images", "all_radii": "lower limits at all radii at once",
    "observed": "observed figures, without limits",
}
"""The figures that a requirement may be held against: fields of `AccuracyBounds`, or what was observed."""

_FORM = re.compile(r"\s*([A-Za-z_-]+)\s*(?:@\s*([^\s<>=]+))?\s*(>=|<=|>|<)\s*([^\s<>=]+(?:\s*%)?)\s*")


@dataclass(frozen=True)
class Requirement:
    """A figure's `metric`, its `radius` (None where it has none), the `relation` and the `number`, as `text` says."""

    text: str
    metric: str
    radius: float | None
    relation: str
    number: float

    @property
    def asks_most(self) -> bool:
        """True where the figure is to be small."""
        return self.relation in ("<=", "<")

    def is_met(self, figure: float) -> bool:
        """Return whether a figure stands in the relation to the number."""
        return {">=": figure >= self.number, ">": figure > self.number,
                "<=": figure <= self.number, "<": figure < self.number}[self.relation]


@dataclass(frozen=True)
class Decision:
    """A requirement held against a run.

    Attributes:
        requirement: its text.
        outcome: "holds", "fails", or "undecided" where the run cannot tell.
        limit: the figure that was compared, None where there is none.
        number: that was required.
        margin: by how much the limit is better than required; below 0 by how much it is worse; None without a limit.
        why: what a reader has to know; why it is undecided.
    """

    requirement: str
    outcome: Literal["holds", "fails", "undecided"]
    limit: float | None
    number: float
    margin: float | None
    why: str = ""


@dataclass(frozen=True)
class Checked:
    """The outcomes of all requirements on one run.

    Attributes:
        name, path: of the run. bound: a key of `BOUNDS`. rho: failure probability of each limit.
    """

    name: str
    path: str
    bound: str
    rho: float
    decisions: tuple[Decision, ...]
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """True where every requirement holds."""
        return all(one.outcome == "holds" for one in self.decisions)

    def count(self, outcome: str) -> int:
        """Return how many requirements have this outcome."""
        return sum(one.outcome == outcome for one in self.decisions)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "holds": self.holds}


class Limits(NamedTuple):
    """The limits of a metric from below and from above, None where there is none.

    `missing` is why one is missing, and `early` why a limit that is not met decides nothing, "" where it does.
    """

    below: float | None
    above: float | None
    missing: str = ""
    early: str = ""


def parse_requirements(texts: Iterable[str]) -> tuple[Requirement, ...]:
    """Return requirements. Raises ConfigError with the grammar and with every text that does not parse."""
    found, problems = [], []
    for text in texts:
        try:
            found.append(_parse(text))
        except InputError as error:
            problems.append(f"{text!r:.200}: {error}")
    if not found and not problems:
        problems.append("no requirement is given")
    if problems:
        raise ConfigError([*problems[:-1], f"{problems[-1]}\n{GRAMMAR}"], "the requirements")
    return tuple(found)


def _parse(text: str) -> Requirement:
    form = _FORM.fullmatch(text) if isinstance(text, str) else None
    if form is None:
        raise InputError("is no requirement")
    name, at, relation, value = form.groups()
    metric = name.lower().replace("-", "_")
    if metric not in _LIMITS:
        raise InputError(f"the metric {name!r} is unknown{suggestion(metric, _LIMITS)}; known: {', '.join(_LIMITS)}")
    takes_radius = metric in ("accuracy", "one_pass")
    if at is not None and not takes_radius:
        raise InputError(f"{metric} has no radius")
    if at is None and metric == "one_pass":
        raise InputError("one_pass needs a radius, such as one_pass@0.5")
    percent = value.endswith("%")
    if percent and metric == "acr":
        raise InputError("acr is a radius, not a share")
    number = _number(value.removesuffix("%").rstrip()) / (100 if percent else 1)
    radius = None if at is None else _number(at)
    if metric != "acr" and number > 1:
        raise InputError(f"{metric} is a share of at most 1, or 100%, got {value}")
    return Requirement(" ".join(text.split()), metric, radius, relation, number)


def _number(text: str) -> float:
    try:
        value = real_number(text)
    except ValueError as error:
        raise InputError(str(error)) from None
    if not 0 <= value < float("inf"):
        raise InputError(f"{text} is no number of at least 0")
    return value


def check_store(
    store: Store, requirements: Iterable[str], bound: str = "population", rho: float = 0.05, name: str | None = None
) -> Checked:
    """Hold requirements, as texts, against a store, log or count file; see `check_requirements`.

    Raises:
        ConfigError: texts that do not parse. And what `check_requirements` and `read_result` raise.
    """
    asked = parse_requirements(requirements)
    result = read_result(store, name)
    if isinstance(result, Result) and has_votes(store) and any(one.metric == "one_pass" for one in asked):
        result = result.with_label_limits(store)
    return check_requirements(result, asked, bound, rho)


def check_requirements(
    result: StoreResult, requirements: Iterable[Requirement], bound: str = "population", rho: float = 0.05
) -> Checked:
    """Hold requirements against a run.

    A run that stopped early may certify more with more samples. What its limits meet holds all the same; what they do
    not meet, where it is not decided, is undecided.

    Args:
        result: of a run of certification, of labels or of PREDICT.
        bound: a key of `BOUNDS`.
        rho: failure probability of each limit; several hold together with 1 minus the sum.
    Raises:
        StoreError: another kind of run, or one that is not finished. InputError: values outside these.
    """
    check_known("bound", bound, BOUNDS)
    check_probability("rho", rho)
    if not isinstance(result, Checkable):
        raise StoreError(f"{result.name} holds {getattr(result, 'holds', result.kind)}: requirements are on runs of "
                         f"certification, of labels or of PREDICT")
    if not result.complete:
        raise StoreError(f"{result.name} is not finished: finish its run first (the same command resumes it)")
    decisions = tuple(_decide(one, _LIMITS[one.metric](result, one, bound, rho)) for one in requirements)
    notes = [note for note in (*result.cautions, *result.remarks) if note]
    return Checked(result.name, result.path, bound, rho, decisions, tuple(notes))


def _decide(asked: Requirement, limits: Limits) -> Decision:
    limit = limits.above if asked.asks_most else limits.below
    if limit is None:
        return Decision(asked.text, "undecided", None, asked.number, None, limits.missing)
    margin = asked.number - limit if asked.asks_most else limit - asked.number
    if asked.is_met(limit):
        return Decision(asked.text, "holds", limit, asked.number, margin)
    return Decision(asked.text, "undecided" if limits.early else "fails", limit, asked.number, margin, limits.early)


def _accuracy(result: Checkable, asked: Requirement, bound: str, rho: float) -> Limits:
    if isinstance(result, Predicted) and asked.radius is not None:
        return Limits(None, None, "answers of PREDICT prove no radius: ask for accuracy alone")
    radius = asked.radius or 0.0
    if isinstance(result, Predicted):
        at = result.bounds(rho)
    elif isinstance(result, CertifiedLabels):
        at = result.bounds([radius], rho, at_once=bound == "all_radii")
    else:
        at = result.at([radius], rho)
    early = "" if result.is_decided(radius) else "the run stopped before this radius was decided"
    early = early or result.reach_note([radius]).split(";")[0]
    return _from_below(float(getattr(at, "accuracy" if bound == "observed" else bound)[0]), bound, early)


def _one_pass(result: Checkable, asked: Requirement, bound: str, rho: float) -> Limits:
    if not isinstance(result, Result):
        return Limits(None, None, "one_pass is of runs of certification of one class an image")
    if result.label_limits is None:
        return Limits(None, None, "there are no votes for the labels, which one_pass is computed from")
    at = result.one_pass([asked.radius or 0.0], rho)
    value = {"population": at.population, "observed": at.mean}.get(bound, at.test_set)
    return _from_below(float(value[0]), bound, "the run stopped early" if result.is_lower_bound else "")


def _acr(result: Checkable, asked: Requirement, bound: str, rho: float) -> Limits:
    if not isinstance(result, Result):
        return Limits(None, None, "the ACR is of runs of certification of one class an image")
    early = "the run stopped early, so its ACR is a lower bound" if result.is_lower_bound else ""
    early = early or result.reach_note([asked.number]).split(";")[0]
    if bound == "observed":
        return _from_below(result.acr, bound, early)
    widest = result.ceiling if bound == "population" else None
    if bound == "population" and widest is None:
        return Limits(None, None, "sigma, n or alpha is not known, so neither is how large its radii could be")
    return _from_below(acr_limit(result.radius, result.correct, result.level, rho, widest), bound, early)


def _abstained(result: Checkable, asked: Requirement, bound: str, rho: float) -> Limits:
    """Return limits of the share of images that the run abstains from.

    Every abstention is seen, so these images' share has no error, and that of new ones the error of a sample.
    """
    if isinstance(result, CertifiedLabels):
        return Limits(None, None, "each label of an input abstains by itself")
    count, images = int(result.abstained.sum()), result.images
    early = "the run stopped early: with more samples it may abstain less" if (
        isinstance(result, Result) and result.is_lower_bound) else ""
    if bound == "population":
        below, above = (float(clopper_pearson(count, images, rho, side)) for side in ("lower", "upper"))
    else:
        below = above = count / images
    return Limits(None if early else below, above, early, early)


def _from_below(limit: float, bound: str, early: str) -> Limits:
    """Return the limits of a figure that is bounded from below alone, unless it is only observed, and the run's last.
    """
    if bound == "observed" and not early:
        return Limits(limit, limit)
    return Limits(limit, None, early or "certificates bound it from below alone", early)


_LIMITS: dict[str, Callable[[Any, Requirement, str, float], Limits]] = {
    "accuracy": _accuracy, "one_pass": _one_pass, "acr": _acr, "abstained": _abstained,
}
