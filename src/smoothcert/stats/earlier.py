"""Designs of earlier versions, which stores that were begun with them go on with. No new run takes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from smoothcert.checks import check_count
from smoothcert.stats.at_radii import RadiiDesign
from smoothcert.stats.certify_plans import answer
from smoothcert.stats.histories import Answers, History, check_stages
from smoothcert.stats.radius import ProbabilityBounds
from smoothcert.stats.sequential import RunningBounds, Seen, doubling_looks, largest, limit_table, spending_shares

_LAST_SHARE = 0.8
"""Share of alpha that certification at fixed radii keeps for its last look."""
_FUTILITY = 0.01
"""Probability beta of giving up on a radius that more samples would have certified, over all looks together."""


@dataclass(frozen=True, repr=False)
class EarlierRadii(RadiiDesign):
    """Version 1 of `AtRadii`: looks that double, a union bound over them, and limits the other way for giving up.

    Looks at 100, 200, 400, ... and n_max samples: the last has .8 alpha, the others share the rest equally. A radius is
    given up once even limits the other way, at beta = .01 over all looks, fall short of it. n0 samples, 100 for None,
    choose the class.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "n0", 100 if self.n0 is None else check_count("n0", self.n0))

    def identity(self) -> dict[str, Any]:
        return {"design": "radii", "method": self.method, "alpha": self.alpha, "n0": self.n0, "n_max": self.n_max,
                "radii": list(self.radii), "looks": "100*2^k", "spending": f"{1 - _LAST_SHARE:.1g}/{_LAST_SHARE:g}",
                "futility": _FUTILITY, "margin": self.margin}

    def judge(self, histories: Sequence[History]) -> Answers:
        check_stages(histories, "select", "estimate")
        seen, chosen = self.collect(histories)
        return answer(self.radius_of(self.bounds.prove(seen)), chosen)

    def decide(self, histories: Sequence[History]) -> tuple[np.ndarray, np.ndarray]:
        seen, _ = self.collect(histories)
        claimed = self.reaches(self.radius_of(self.bounds.prove(seen)))
        return claimed, self.reaches(self.radius_of(self._hope(seen))) & self.reachable & ~claimed

    @cached_property
    def looks(self) -> tuple[int, ...]:  # type: ignore[override]
        return doubling_looks(self.n_max)

    @cached_property
    def bounds(self) -> RunningBounds:
        """The bounds on the class probabilities that the looks prove."""
        shares = spending_shares(len(self.looks), _LAST_SHARE)
        return RunningBounds(self.looks, tuple(share * self.alpha for share in shares), self.method)

    @cached_property
    def reachable(self) -> np.ndarray:
        one = np.zeros(1, dtype=np.int64)
        unanimous = Seen(1, one, one + len(self.looks) - 1, one + self.n_max, one)
        return self.reaches(self.radius_of(self.bounds.prove(unanimous)))[0]

    def _hope(self, seen: Seen) -> ProbabilityBounds:
        """Return the best that the probabilities can still be believed to be: limits the other way.

        The least over the looks of CP_up(N_A) and, where two-sided, the largest of CP_lo(largest rival).
        """
        two_sided = self.method == "two-sided"
        beta = _FUTILITY / len(self.looks) * (0.5 if two_sided else 1.0)
        table = limit_table(tuple((n, beta) for n in self.looks))
        q_a, p_a = largest(seen, *table.lower(seen.look, np.array(self.looks)[seen.look] - seen.n_a))
        if not two_sided:
            return ProbabilityBounds(p_a, q_a, q_a, p_a)
        return ProbabilityBounds(p_a, q_a, *largest(seen, *table.lower(seen.look, seen.rival)))
