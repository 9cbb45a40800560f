"""Training objectives by name: one paper a file."""

import dataclasses
from functools import partial
from typing import Any, cast

from smoothcert.checks import check_positive, construct
from smoothcert.errors import InputError
from smoothcert.objectives.adre import Adre
from smoothcert.objectives.adversarial import Adversarial
from smoothcert.objectives.cat_rs import CatRS
from smoothcert.objectives.consistency import Consistency
from smoothcert.objectives.deen import Deen
from smoothcert.objectives.denoise import Denoise
from smoothcert.objectives.gaussian import Clean, Gaussian
from smoothcert.objectives.macer import Macer
from smoothcert.objectives.nal import NAL
from smoothcert.objectives.protocol import Loss, Objective, Step, Trained, WholeBatch
from smoothcert.objectives.smoothadv import SmoothAdv
from smoothcert.objectives.smoothmix import SmoothMix
from smoothcert.objectives.stability import Stability
from smoothcert.objectives.trades import Trades
from smoothcert.objectives.wrm import WRM
from smoothcert.objectives.xhat import Xhat
from smoothcert.parts import Registry, missing_members


def _check_objective(part: Any) -> list[str]:
    inherit = "inherit smoothcert.objectives.WholeBatch for all but loss"
    return [*([] if dataclasses.is_dataclass(part) else [
        "it is no dataclass, whose fields are its options: decorate the class with @dataclass(frozen=True)"]),
        *missing_members(part, ("loss", "split", "trains", "prefers"), inherit)]


OBJECTIVES: Registry[type] = Registry("objective", "smoothcert.objectives", {
    "gaussian": Gaussian, "clean": Clean, "smoothadv": SmoothAdv, "adre": Adre, "stability": Stability,
    "trades": Trades, "adversarial": Adversarial, "macer": Macer, "consistency": Consistency,
    "smoothmix": SmoothMix, "cat-rs": CatRS,
    "nal": NAL, "wrm": WRM,
    "deen": Deen, "denoise": Denoise, "xhat": Xhat,
}, _check_objective)
"""Objectives by name; the fields of each dataclass are its options."""


def build_objective(name: str | type | Objective, /, sigma: float | None = None, **options: Any) -> Objective:
    """Return an objective by name.

    Args:
        name: a key of `OBJECTIVES`, a place of code (file.py:NAME, package.module:NAME), or the class itself; an
            objective that is ready is returned as it is.
        sigma: the run's noise level; needed by every objective with a field `sigma`.
        options: the objective's other fields.
    Raises:
        InputError: an unknown name, a part that does not keep the protocol, options that the objective does not have
            (another one's, say), refused values (all of them at once), no sigma, or another one than it has.
        CodeError: code that cannot be imported.
    """
    kind: Any = OBJECTIVES.find(name)
    name = OBJECTIVES.label(name)
    if not isinstance(kind, type):
        if options:
            raise InputError(f"objective {name!r} is ready and takes no options: set them where it is made")
        if sigma is not None and getattr(kind, "sigma", sigma) != sigma:
            raise InputError(f"objective {name!r} was made for sigma {kind.sigma:g}, but the run's is {sigma:g}")
        return kind
    fields = [f.name for f in dataclasses.fields(kind)]
    takes = [f for f in fields if f != "sigma"]
    if "sigma" not in fields:
        return construct(f"objective {name!r}", kind, takes, options)
    if sigma is None:
        raise InputError(f"objective {name!r} needs the noise level sigma")
    return construct(f"objective {name!r}", partial(kind, sigma=check_positive("sigma", sigma)), takes, options)


def describe_values(objective: Objective) -> dict[str, Any]:
    """Return the settings of an objective by name, as JSON holds them: numbers and texts as they are, others in words.
    """
    settings = {field.name: getattr(objective, field.name) for field in dataclasses.fields(cast(Any, objective))}
    return {name: value if isinstance(value, bool | int | float | str | None) else repr(value)
            for name, value in settings.items()}


__all__ = ["OBJECTIVES", "Loss", "Objective", "Step", "Trained", "WholeBatch", "build_objective", "describe_values"]
