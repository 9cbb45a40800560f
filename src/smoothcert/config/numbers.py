"""YAML with numbers as people write them: safe-loaded, with 1e-3 and -.5 as numbers, which YAML 1.1 takes for words.

A text whose aliases repeat aliases means a value of any size ("a billion laughs"). Aliases are therefore counted as
what they stand for, before anything is built.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from smoothcert.limits import NESTING, YAML_BYTES, YAML_VALUES

_DIGITS = 400
_TOO_DEEP = f"it is nested more than {NESTING} deep"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader, in C where there is one."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"), list("-+.0123456789"))


def _whole_number(loader: Any, node: Any) -> int:
    if len(node.value) > _DIGITS:
        raise yaml.YAMLError(f"a whole number of {len(node.value):,} characters; the limit is {_DIGITS}")
    return loader.construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def from_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    >>> from_yaml("[1e-3, -.5, 2, null, 1.5, word]")
    [0.001, -0.5, 2, None, 1.5, 'word']

    Raises:
        yaml.YAMLError: it is not YAML, or beyond the limits of `smoothcert.limits`.
    """
    if len(text) > YAML_BYTES:
        raise yaml.YAMLError(f"a text of {len(text):,} characters; the limit is {YAML_BYTES:,}: split it")
    try:
        _check_size(text)
        return _construct(text)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:  # what its types raise
        raise yaml.YAMLError(f"a value that is none of its type ({type(error).__name__}: {error})") from None


def _construct(text: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        _check_keys(node)
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _check_keys(root: yaml.Node | None) -> None:
    """Raise YAMLError where a mapping has a key twice: PyYAML would drop the first of them without a word."""
    left, known = [] if root is None else [root], set()
    while left:
        node = left.pop()
        if id(node) in known or not isinstance(node, yaml.CollectionNode):
            continue
        known.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += node.value
            continue
        left += [part for pair in node.value for part in pair]
        keys: set[tuple[str, str]] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in keys:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1} has the key {key.value!r:.80} a second time")
            keys.add((key.tag, key.value))


def _events(text: str) -> Iterator[yaml.Event]:
    """Yield the events of a text. The parser looks ahead, so its own limit of depth, if any, may strike first."""
    try:
        yield from yaml.parse(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        if isinstance(error, RecursionError) or "nesting depth" in str(error):
            raise yaml.YAMLError(_TOO_DEEP) from None
        raise


def _check_size(text: str) -> None:
    """Raise YAMLError for a text that is nested too deep, or means too many values, or itself."""
    inner: list[tuple[str | None, int]] = [(None, 0)]  # the open collections: anchor, and values so far
    sizes: dict[str, int] = {}
    for event in _events(text):
        if isinstance(event, yaml.CollectionStartEvent):
            if len(inner) > NESTING:
                raise yaml.YAMLError(_TOO_DEEP)
            inner.append((event.anchor, 1))
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = inner.pop()
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        elif isinstance(event, yaml.AliasEvent):
            itself = event.anchor in (name for name, _ in inner)
            anchor, size = None, YAML_VALUES + 1 if itself else sizes.get(event.anchor, 0)
        else:
            continue
        if anchor:
            sizes[anchor] = size
        name, so_far = inner.pop()
        inner.append((name, so_far + size))
        if so_far + size > YAML_VALUES:
            raise yaml.YAMLError(f"it means more than {YAML_VALUES:,} values, those of its aliases counted, or itself")
