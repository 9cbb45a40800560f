"""Files that say which classes form groups, and which are harmful targets: YAML or JSON, by name or by index.

    animals: [bird, cat, deer, dog, frog, horse]      # groups: each class in one of them
    vehicles: [airplane, automobile, ship, truck]

    stop sign: [speed limit 50, 7]                    # costs: the harmful targets of a class; others have none
    3: [5]

A text is a class's name if there is one like it, else its index.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from smoothcert.checks import suggestion
from smoothcert.config.numbers import from_yaml
from smoothcert.errors import ConfigError, FileError
from smoothcert.limits import YAML_BYTES, bounded_bytes
from smoothcert.stats import Claim, Costs, Groups, TopK
from smoothcert.store.store import Store


def make_claim(store: Store, top_k: int | None = None, groups: Path | None = None,
               costs: Path | None = None) -> Claim | None:
    """Return the claim that options ask for, of the classes of a store; None where they ask for none."""
    if groups is not None:
        return read_groups(groups, store.num_classes, store.class_names)
    if costs is not None:
        return read_costs(costs, store.num_classes, store.class_names)
    return None if top_k is None else TopK(top_k)


def read_groups(path: Path, num_classes: int, names: Sequence[str] | None = None) -> Groups:
    """Return the groups of a file.

    Args:
        num_classes: K. names: of the classes, where they are known.
    Raises:
        FileError: it cannot be read. ConfigError: all that is wrong with it.
    """
    problems: list[str] = []
    found = {str(name): _read_list(f"group {name}", these, num_classes, names, problems)
             for name, these in _read_mapping(path).items()}
    return _check(Groups(found), path, num_classes, problems)


def read_costs(path: Path, num_classes: int, names: Sequence[str] | None = None) -> Costs:
    """Return the harmful targets of a file; arguments and errors as for `read_groups`."""
    problems: list[str] = []
    found: dict[int, list[int]] = {}
    for key, these in _read_mapping(path).items():
        one = _read_class("a class with targets", key, num_classes, names, problems)
        targets = _read_list(f"the targets of {key}", these, num_classes, names, problems)
        if one in found:
            problems.append(f"the class {key!r} has targets twice")
        if one is not None:
            found[one] = targets
    return _check(Costs(found), path, num_classes, problems)


def _check(claim: Any, path: Path, num_classes: int, problems: list[str]) -> Any:
    try:
        claim.check(num_classes)
    except ConfigError as error:
        problems = [*problems, *error.problems]
    if problems:
        raise ConfigError(problems, str(path))
    return claim


def _read_mapping(path: Path) -> dict[Any, Any]:
    try:
        content = from_yaml(bounded_bytes(path, YAML_BYTES).decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileError(f"{path} is neither YAML nor JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError([f"it must hold lines NAME: [CLASS, CLASS, ...], got {type(content).__name__}"], str(path))
    return content


def _read_list(what: str, these: Any, num_classes: int, names: Sequence[str] | None, problems: list[str]) -> list[int]:
    listed = these if isinstance(these, list) else [] if these is None else [these]
    found = [_read_class(what, one, num_classes, names, problems) for one in listed]
    return [one for one in found if one is not None]


def _read_class(what: str, one: Any, num_classes: int, names: Sequence[str] | None, problems: list[str]) -> int | None:
    """Return the index of a class that a file names, or add to the problems."""
    known = list(names or ())
    if isinstance(one, str) and (count := known.count(one)):
        if count == 1:
            return known.index(one)
        problems.append(f"{what}: {count} classes are called {one}: give the index")
        return None
    if isinstance(one, str) and one.isdecimal() and len(one) < 10:
        one = int(one)
    if isinstance(one, int) and not isinstance(one, bool):
        if 0 <= one < num_classes:
            return one
        problems.append(f"{what}: class {one!r:.40} is unknown: there are 0 to {num_classes - 1}")
    elif isinstance(one, str):
        hint = suggestion(one, known) if known else ": these votes come without names, so give the index"
        problems.append(f"{what}: class {one!r:.80} is unknown{hint}")
    else:
        problems.append(f"{what}: {one!r:.80} is no class: give a name (in quotes if YAML takes it for something "
                        f"else) or an index")
    return None
