"""Attacks on smoothed and plain classifiers: one loop, and the methods that fill its holes."""

import dataclasses
from typing import Any

from smoothcert.attacks.ascent import Ascent
from smoothcert.attacks.ddn import DDN
from smoothcert.attacks.deepfool import DeepFool, deepfool
from smoothcert.attacks.geometry import NORMS, l2_norms
from smoothcert.attacks.loop import PASSES, AttackMethod, attack_images
from smoothcert.attacks.pgd import PGD, Stein, stein_gradient
from smoothcert.attacks.surrogates import REGULARISERS, SURROGATES, AdreSurrogate, Surrogate
from smoothcert.checks import check_known, construct
from smoothcert.errors import InputError

ATTACKS: dict[str, type] = {"pgd": PGD, "ddn": DDN, "stein": Stein, "deepfool": DeepFool}
"""Attacks by name; the fields of each dataclass are its options."""


def build_attack(name: str, **options: Any) -> AttackMethod:
    """Return an attack by name, with `eps` and the attack's other fields as options.

    Raises:
        InputError: an unknown name, an option that the attack does not have (another attack's, say), or a value out of
            range.
    """
    kind = ATTACKS[check_known("attack", name, ATTACKS)]
    takes = [field.name for field in dataclasses.fields(kind)]
    if "eps" not in options:
        raise InputError(f"attack {name!r} needs eps, the bound on the perturbation's norm")
    return construct(f"attack {name!r}", lambda **given: kind(**{"eps": 1.0, **given}), takes, options)


__all__ = [
    "ATTACKS", "DDN", "NORMS", "PASSES", "PGD", "REGULARISERS", "SURROGATES", "AdreSurrogate", "Ascent", "AttackMethod",
    "DeepFool", "Stein", "Surrogate", "attack_images", "build_attack", "deepfool", "l2_norms", "stein_gradient",
]
