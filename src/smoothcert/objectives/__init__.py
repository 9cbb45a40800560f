"""Training objectives by name: one paper a file."""

import dataclasses
from functools import partial
from typing import Any

from smoothcert.checks import check_known, check_positive, construct
from smoothcert.errors import InputError
from smoothcert.objectives.adre import Adre
from smoothcert.objectives.adversarial import Adversarial
from smoothcert.objectives.consistency import Consistency
from smoothcert.objectives.deen import Deen
from smoothcert.objectives.denoise import Denoise
from smoothcert.objectives.gaussian import Clean, Gaussian
from smoothcert.objectives.macer import Macer
from smoothcert.objectives.nal import NAL
from smoothcert.objectives.protocol import Loss, Objective, Step, Trained
from smoothcert.objectives.smoothadv import SmoothAdv
from smoothcert.objectives.stability import Stability
from smoothcert.objectives.trades import Trades
from smoothcert.objectives.wrm import WRM
from smoothcert.objectives.xhat import Xhat

OBJECTIVES: dict[str, type] = {
    "gaussian": Gaussian, "clean": Clean, "smoothadv": SmoothAdv, "adre": Adre, "stability": Stability,
    "trades": Trades, "adversarial": Adversarial, "macer": Macer, "consistency": Consistency,
    "nal": NAL, "wrm": WRM,
    "deen": Deen, "denoise": Denoise, "xhat": Xhat,
}
"""Objectives by name; the fields of each dataclass are its options."""


def build_objective(name: str, sigma: float | None = None, **options: Any) -> Objective:
    """Return an objective by name.

    Args:
        name: a key of `OBJECTIVES`.
        sigma: the run's noise level; needed by every objective with a field `sigma`.
        options: the objective's other fields.
    Raises:
        InputError: an unknown name, options that the objective does not have (another one's, say), refused values (all
            of them at once), or no sigma.
    """
    kind = OBJECTIVES[check_known("objective", name, OBJECTIVES)]
    fields = [f.name for f in dataclasses.fields(kind)]
    takes = [f for f in fields if f != "sigma"]
    if "sigma" not in fields:
        return construct(f"objective {name!r}", kind, takes, options)
    if sigma is None:
        raise InputError(f"objective {name!r} needs the noise level sigma")
    return construct(f"objective {name!r}", partial(kind, sigma=check_positive("sigma", sigma)), takes, options)


__all__ = ["OBJECTIVES", "Loss", "Objective", "Step", "Trained", "build_objective"]
