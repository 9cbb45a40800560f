"""Ensembles by name: `ensemble:DIR,DIR,...` and `soft-ensemble:DIR,DIR,...`, the means of model folders' networks."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from smoothcert.checks import split_commas
from smoothcert.classifiers.card import ModelCard, check_model_dir, read_card
from smoothcert.classifiers.folder import read_network
from smoothcert.errors import InputError, ModelError
from smoothcert.io.paths import local_path
from smoothcert.smoothing.ensemble import Ensemble

MEANS = {"ensemble": "logits", "soft-ensemble": "probabilities"}
"""What the ensemble is the mean of, by the word in front of the folders."""

ENSEMBLE_FORMS = ("ensemble:DIR,DIR,... (the mean of the networks' logits)",
                  "soft-ensemble:DIR,DIR,... (the mean of their probabilities)")


def is_ensemble(spec: Any) -> bool:
    """Tell if a model's name is one of `ENSEMBLE_FORMS`; the folders need not exist.

    >>> is_ensemble("ensemble:a,b"), is_ensemble("soft-ensemble:zoo:a,b"), is_ensemble("runs/a")
    (True, True, False)
    """
    return isinstance(spec, str) and ":" in spec and spec.partition(":")[0] in MEANS


def name_ensemble(spec: str) -> str:
    """Return the name of an ensemble without the folders that lead to its members.

    >>> name_ensemble("ensemble:runs/a,runs/b")
    'ensemble:a,b'
    """
    return f"{spec.partition(':')[0]}:{','.join(Path(member).name for member in _members(spec))}"


def ensemble_card(spec: str) -> ModelCard:
    """Return what the members of an ensemble share, as the card of a model that is named as the ensemble is.

    Its sigma is that of the members' training where it is the same for all, its data those of the first member.

    Raises:
        InputError: fewer than two members. FileError: a folder that is missing or damaged. ModelError: members that do
        not fit together: other shapes or classes, a denoiser, a network in integers; all of it at once.
    """
    folders = list(_members(spec))
    cards = []
    for folder in folders:
        check_model_dir(local_path(folder))
        cards.append(read_card(local_path(folder)))
    first, problems = cards[0], []
    for folder, card in zip(folders, cards, strict=True):
        if card.kind == "denoiser":
            problems.append(f"{folder} is a denoiser, whose answers are inputs")
        elif card.denoiser is not None:
            problems.append(f"{folder} was trained behind a denoiser: use classifiers without one, and put one in "
                            f"front of all with --denoiser")
        elif card.quantised is not None:
            problems.append(f"{folder} holds an integer network: use the float32 network that it was made from")
        if card.input_shape != first.input_shape:
            problems.append(f"{folder} takes inputs of shape {card.input_shape}, but {folders[0]} of "
                            f"{first.input_shape}")
        if card.class_names != first.class_names:
            problems.append(f"{folder} has other classes than {folders[0]}, or the same in another order: "
                            f"{_show(card)}, and {_show(first)}")
    if problems:
        raise ModelError(f"{name_ensemble(spec)} is no ensemble:\n" + "\n".join(f"  - {words}" for words in problems))
    sigmas = {card.sigma for card in cards}
    return replace(first, model=spec, options={}, sigma=sigmas.pop() if len(sigmas) == 1 else None, identity={},
                   init=None)


def read_ensemble(spec: str, weights: str = "best", trust: bool = False) -> tuple[Ensemble, list[ModelCard]]:
    """Read the networks of an ensemble, in eval mode, with their cards.

    A folder that is named several times weighs as much more, and its network is there once.

    Args:
        weights, trust: those of `read_network`, for every member.

    Raises what `ensemble_card` and `read_network` raise.
    """
    ensemble_card(spec)
    members = _members(spec)
    networks, cards = zip(*(read_network(folder, weights, trust) for folder in members), strict=True)
    return Ensemble(networks, MEANS[spec.partition(":")[0]], list(members.values())).eval(), list(cards)


def _members(spec: str) -> Counter[str]:
    """Return the folders of an ensemble in their order, and how often each is named. Raises InputError."""
    found = Counter(split_commas(spec.partition(":")[2]))
    if len(found) < 2:
        raise InputError(f"{spec} names {len(found) or 'no'} model folder{'' if len(found) == 1 else 's'}: an ensemble "
                         f"has at least two different ones, {' or '.join(ENSEMBLE_FORMS)}")
    return found


def _show(card: ModelCard) -> str:
    names = [str(name) for name in card.class_names[:4]]
    return f"{len(card.class_names)} classes ({', '.join(names)}{', ...' if len(card.class_names) > 4 else ''})"
