"""YAML as people write numbers: safe-loaded, with 1e-3 and -.5 as numbers, which YAML 1.1 takes for words."""

import re
from typing import Any

import yaml


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader, in C where there is one."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"), list("-+.0123456789"))


def from_yaml(text: str) -> Any:
    """The value of a YAML text.

    >>> from_yaml("[1e-3, -.5, 2, null, 1.5, word]")
    [0.001, -0.5, 2, None, 1.5, 'word']

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(text, Loader=_Loader)
