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
from smoothcert.checks import construct
from smoothcert.errors import InputError
from smoothcert.parts import Registry, missing_members


def _check_attack(part: Any) -> list[str]:
    fields = {field.name for field in dataclasses.fields(part)} if dataclasses.is_dataclass(part) else None
    needed = "it is no dataclass" if fields is None else "its fields lack " + " and ".join(
        name for name in ("eps", "steps") if name not in fields)
    wrong = fields is None or not {"eps", "steps"} <= fields
    return [*([f"{needed}: an attack is a frozen dataclass with the fields eps and steps, and its options"] if wrong
              else []),
            *missing_members(part, ("start", "probe", "is_finished", "step", "project", "finish"),
                             "inherit smoothcert.attacks.PGD to change one of them")]


ATTACKS: Registry[type] = Registry("attack", "smoothcert.attacks", {
    "pgd": PGD, "ddn": DDN, "stein": Stein, "deepfool": DeepFool}, _check_attack)
"""Attacks by name; the fields of each dataclass are its options."""


def build_attack(name: str | type, **options: Any) -> AttackMethod:
    """Return an attack by name, by a place of code (file.py:NAME, package.module:NAME), or of a class, with `eps` and
    the attack's other fields as options.

    Raises:
        CodeError: code that cannot be imported. InputError: an unknown name, a part that does not keep the protocol, an
            option that the attack does not have (another attack's, say), or a value out of range.
    """
    kind = ATTACKS.find(name)
    name = ATTACKS.label(name)
    takes = [field.name for field in dataclasses.fields(kind)]
    if "eps" not in options:
        raise InputError(f"attack {name!r} needs eps, the bound on the perturbation's norm")
    return construct(f"attack {name!r}", lambda **given: kind(**{"eps": 1.0, **given}), takes, options)


__all__ = [
    "ATTACKS", "DDN", "NORMS", "PASSES", "PGD", "REGULARISERS", "SURROGATES", "AdreSurrogate", "Ascent", "AttackMethod",
    "DeepFool", "Stein", "Surrogate", "attack_images", "build_attack", "deepfool", "l2_norms", "stein_gradient",
]
