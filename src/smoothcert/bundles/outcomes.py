"""The tests of the stores of a bundle and their outcomes: verification, the selftest, requirements."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from smoothcert.bundles.stores import BundledStore
from smoothcert.noise import NOISES
from smoothcert.report.checked import decision_words
from smoothcert.report.html.facts import find_untested
from smoothcert.report.selftest import SelfTest
from smoothcert.results.certified import Result
from smoothcert.results.requirements import Checked, check_store
from smoothcert.selftest.options import SelftestConfig
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.verify import verify


@dataclass(frozen=True)
class BundleOutcome:
    """One thing that was tested: its name, its outcome, and what was found, in words."""

    name: str
    outcome: Literal["passed", "warned", "failed"]
    words: str


def verify_stores(stores: Sequence[BundledStore], noise: Any = None) -> list[dict[str, Any]]:
    """Verify every store, and return the outcomes as `verify --json` has them, with each store's place in the bundle.

    Raises InputError for a store of someone's own noise that is not given.
    """
    found = []
    for one in stores:
        source = one.source.absolute()  # so that it can be told from any other word of a problem
        told = verify(VerifyConfig.parse({"store": source, "noise": noise})).content()
        checks = [{**check, "problems": [problem.replace(str(source), one.place) for problem in check["problems"]]}
                  for check in told["checks"]]
        found.append({**told, "store": one.place, "checks": checks})
    return found


def plan_selftest(stores: Sequence[BundledStore], quick: bool) -> SelftestConfig:
    """Return the options of a selftest with the precision and the noise of the stores, where they share one."""
    precision = {one.store.identity.precision or "float32" for one in stores}
    noise = {one.store.identity.noise.kind for one in stores}
    shared = {"precision": precision.pop()} if len(precision) == 1 else {}
    if len(noise) == 1 and noise <= {*NOISES.own_names}:
        shared["noise"] = noise.pop()
    return SelftestConfig.parse({**shared, "quick": quick})


def check_stores(stores: Sequence[BundledStore], require: Sequence[str], bound: str, rho: float) -> list[Checked]:
    """Hold requirements against the runs of certification, or against those of PREDICT where there are no others.

    Raises StoreError where there is neither.
    """
    if not require:
        return []
    certified = [one for one in stores if isinstance(one.result, Result)]
    predicted = [one for one in stores if one.result.kind == "predict"]
    return [check_store(one.store, require, bound, rho, one.name) for one in certified or predicted or stores[:1]]


def list_outcomes(stores: Sequence[BundledStore], verified: Sequence[dict[str, Any]], tested: SelfTest | None,
                  checked: Sequence[Checked]) -> list[BundleOutcome]:
    """Return everything that was tested, in one list."""
    found = []
    for one, told in zip(stores, verified, strict=True):
        problems = [problem for check in told["checks"] for problem in check["problems"]]
        words = f"{problems[0]}{f' (and {len(problems) - 1} more)' if problems[1:] else ''}" if problems else \
            "nothing is wrong: every answer was computed again, as far as the store allows"
        found.append(BundleOutcome(f"verify {one.name}", "failed" if problems else "passed", words))
    if tested is not None:
        untested = [f"{name} was {words}" for name, words in find_untested(tested, stores)]
        outcome = "failed" if tested.verdict != "green" else "warned" if untested else "passed"
        found.append(BundleOutcome("selftest of the installation", outcome, "; ".join([tested.summary, *untested])))
    found += [BundleOutcome(f"{run.name}: {one.requirement}", "passed" if one.outcome == "holds" else "failed",
                         decision_words(one)) for run in checked for one in run.decisions]
    return found


def summarise(outcomes: Sequence[BundleOutcome]) -> str:
    """Return PASSED, WARNED or FAILED: the worst of the outcomes."""
    found = {one.outcome for one in outcomes}
    return next(outcome.upper() for outcome in ("failed", "warned", "passed") if outcome in found)
