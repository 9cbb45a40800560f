"""Transferred certificates beside those that the copies' own votes would give: what a transfer gained or lost."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

import numpy as np

from smoothcert.errors import StoreError
from smoothcert.results.certified import Result
from smoothcert.stats.histories import Answers, History
from smoothcert.stats.transfer import Flips, Transfer
from smoothcert.store.recertify import check_certified, noise_of, rebuild_plan
from smoothcert.store.store import SHARD, Store


@dataclass(frozen=True)
class Way:
    """The figures of one way to certify: the average certified radius, and certified accuracy at each radius.

    `certifies` names the network, "original" or "other"; `passes` are forward passes an image that were spent beside
    the original's run; `is_estimate` says that the figures prove nothing.
    """

    name: str
    certifies: str
    passes: float
    acr: float
    accuracy: tuple[float, ...]
    is_estimate: bool = False


@dataclass(frozen=True)
class Transferred:
    """A transfer held against direct sampling of the network that it certifies.

    Attributes:
        radii: at which certified accuracy is given.
        images: of the store; `paired` of them had copies.
        n: copies of an image that both networks judge.
        harmful, helpful: shares of these images' copies that flipped away from the chosen class, and towards it.
        lines: the original's certificates; the transfer; and the other network from its own votes on the same copies,
            and from twice as many, which cost as many passes as the transfer (an estimate: their shares are kept).
    """

    radii: tuple[float, ...]
    images: int
    paired: int
    n: int
    harmful: float
    helpful: float
    lines: tuple[Way, ...]

    @classmethod
    def of(cls, store: Store, radii: Sequence[float] = (), noise: Any = None) -> Self:
        """Read a transferred store; the radii are those of its table where none are given.

        Raises:
            StoreError: a store that was not transferred. InputError: its noise is a user's own, and not given.
        """
        if store.identity.transferred_from is None:
            raise StoreError(f"{store.folder} was not transferred: its network was sampled directly")
        made = noise_of(store, noise)
        plan = rebuild_plan(store.identity.procedure, made)
        check_certified(store, "what the transfer gained")
        assert isinstance(plan, Transfer)  # `Identity.check_stored`: a transfer has its design
        parts = [store.histories(start, SHARD) for start in range(0, store.num_records, SHARD)]
        result = Result.of(store)
        radii = tuple(radii) or tuple(Result.default_radii([result]))
        flips = [plan.flips(part) for part in parts]
        copies = sum(int(one.copies.sum()) for one in flips)
        paired = sum(int((one.copies > 0).sum()) for one in flips)
        share = paired / max(result.images, 1)
        ways: list[tuple[str, str, float, Any, bool]] = [
            ("original, as stored", "original", 0.0, plan.judge_source, False),
            ("transfer", "other", 2 * plan.n * share, plan.judge, False),
            (f"direct, the same {plan.n:,} copies", "other", plan.n * share, plan.judge_directly, False),
            (f"direct, {2 * plan.n:,} copies", "other", 2 * plan.n * share, partial(plan.judge_directly, times=2),
             True)]
        label = store.column("label")
        return cls(radii, result.images, paired, plan.n, _share(flips, "harmful", copies),
                   _share(flips, "helpful", copies),
                   tuple(Way(name, network, passes, *_figures(judge, parts, label, radii), is_estimate)
                         for name, network, passes, judge, is_estimate in ways))

    @property
    def gain(self) -> float | None:
        """ACR of the transfer over that of direct sampling of the same number of copies; None where that has none."""
        transferred, direct = self.lines[1].acr, self.lines[2].acr
        return transferred / direct if direct else None

    def to_json(self) -> dict[str, Any]:
        """Return its figures as plain values."""
        return {**asdict(self), "gain": self.gain}


def _share(flips: Sequence[Flips], name: str, copies: int) -> float:
    return sum(int(getattr(one, name).sum()) for one in flips) / max(copies, 1)


def _figures(
    judge: Any, parts: Sequence[list[History]], label: np.ndarray, radii: Sequence[float]
) -> tuple[float, tuple[float, ...]]:
    """Return ACR and certified accuracy at each radius of what `judge` answers."""
    answers: list[Answers] = [judge(part) for part in parts]
    prediction = np.concatenate([one.prediction for one in answers])
    radius = np.concatenate([one.values["radius"] for one in answers])
    right = prediction == label
    return float(np.where(right, radius, 0.0).mean()), tuple(float((right & (radius >= r)).mean()) for r in radii)
