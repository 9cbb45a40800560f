"""Attacks on smoothed and plain classifiers: one loop, and the methods that fill its holes."""

import dataclasses
from typing import Any

from smoothcert.attacks.ddn import DDN
from smoothcert.attacks.deepfool import DeepFool, deepfool
from smoothcert.attacks.geometry import NORMS, l2_norms
from smoothcert.attacks.loop import Attack, attacked
from smoothcert.attacks.pgd import PGD
from smoothcert.attacks.problem import draw_noise, noisy_logits
from smoothcert.attacks.stein import Stein, stein_gradient
from smoothcert.attacks.surrogates import SURROGATES, AdreSurrogate, Surrogate
from smoothcert.checks import check_known, construct
from smoothcert.errors import InputError

ATTACKS: dict[str, Any] = {"pgd": PGD, "ddn": DDN, "stein": Stein, "deepfool": DeepFool}
"""Attacks by name; the fields of each dataclass are its options."""


def build_attack(name: str, **options: Any) -> Attack:
    """An attack by name, `eps` and the attack's other fields as options.

    Raises:
        InputError: an unknown name, an option it does not have (another attack's, say), or a value out of range.
    """
    kind = ATTACKS[check_known("attack", name, ATTACKS)]
    takes = [field.name for field in dataclasses.fields(kind)]
    if "eps" not in options:
        raise InputError(f"attack {name!r} needs eps, the bound on the perturbation's norm")
    return construct(f"attack {name!r}", lambda **given: kind(**{"eps": 1.0, **given}), takes, options)


__all__ = [
    "ATTACKS", "DDN", "NORMS", "PGD", "SURROGATES", "AdreSurrogate", "Attack", "DeepFool", "Stein", "Surrogate",
    "attacked",
    "build_attack", "deepfool", "draw_noise", "l2_norms", "noisy_logits", "stein_gradient",
]
