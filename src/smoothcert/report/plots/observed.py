"""Accuracy under the attacks of attack stores, as points with intervals."""

from collections.abc import Sequence

import numpy as np

from smoothcert.errors import InputError
from smoothcert.report.plots.lines import Observed
from smoothcert.results.attacks import Attack, axis_of, empirical_curve, norm_of
from smoothcert.stats import clopper_pearson


def observed(attack: Attack, rho: float = 0.05) -> list[Observed]:
    """Accuracy under attack for every m, the smallest first, with intervals of probability 1 - rho."""
    store = attack.store
    if axis_of(store) != "eps":
        raise InputError(f"{store.folder} attacked each image at multiples of its own radius: it has no curve over eps")
    copies, images, found = store.identity["attack"]["m"], len(np.unique(store.column("index"))), []
    for m in copies:
        curve = empirical_curve(store, m=m)
        right = np.rint(curve.accuracy * images).astype(np.int64)
        low, high = (np.asarray(clopper_pearson(right, images, rho / 2, side)) for side in ("lower", "upper"))
        words = f"{attack.name}, under attack" + (f", m {m}" if len(copies) > 1 else "")
        found.append(Observed(words, curve.size, curve.accuracy, low, high))
    return found


def best_observed(group: str, runs: Sequence[Observed]) -> Observed:
    """The best of several models under attack, at the sizes that all were attacked with."""
    shared = sorted(set.intersection(*(set(run.eps.tolist()) for run in runs)))
    if len(shared) < 2:
        raise InputError(f"the attacks of {group or 'these stores'} have no sizes in common: attack all with the same "
                         f"eps")
    at = [np.searchsorted(run.eps, shared) for run in runs]
    accuracy, low, high = (np.stack([getattr(run, field)[rows] for run, rows in zip(runs, at, strict=True)]).max(axis=0)
                           for field in ("accuracy", "low", "high"))
    return Observed(group, np.array(shared), accuracy, low, high)


def shared_norm(attacks: Sequence[Attack]) -> str:
    """The norm that bounds all attacks. Raises InputError where they have several."""
    norms = {norm_of(attack.store) for attack in attacks}
    if len(norms) > 1:
        raise InputError(f"the attacks are bounded in different norms ({', '.join(sorted(norms))}): draw each alone")
    return norms.pop()
