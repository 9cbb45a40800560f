"""Checks of plain values, with errors that say what was got and what was expected. Nothing here imports torch."""

import difflib
import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from smoothcert.errors import ConfigError, InputError, UnknownNameError

T = TypeVar("T")

_CONTROLS = r"\x00-\x1f\x7f-\x9f\ud800-\udfff"
_UNSEEN = re.compile(rf"[{_CONTROLS}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_BREAKS = re.compile(f"[{_CONTROLS}]")


def printable(text: str) -> str:
    """Return a text in which every character that a terminal would act on instead of showing it is an escape.

    These are control characters (except line ends and tabs), marks that change the direction of writing, line and
    paragraph separators, and lone surrogates.

    >>> printable("a\\x1b[31mb\\n")
    'a\\\\x1b[31mb\\n'
    """
    return _UNSEEN.sub(lambda found: found[0] if found[0] in "\n\t" else _escape(found[0]), text)


def one_line(text: str) -> str:
    """Return a name or note from outside with all control characters, also line ends and tabs, as escapes.

    >>> one_line("run\\nACR 9.999")
    'run\\\\nACR 9.999'
    """
    return _BREAKS.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode() if character < "\ud800" else (
        f"\\u{ord(character):04x}")


def real_number(text: str) -> float:
    """Return the number that a text stands for: a decimal number, or a fraction of two.

    >>> real_number("0.25"), real_number("64 / 255") == 64 / 255
    (0.25, True)

    Raises:
        InputError: the text is neither, or a fraction whose value is not finite, such as 1/0.
    """
    over, slash, under = text.partition("/")
    try:
        value = float(over) / float(under) if slash else float(text)
    except ZeroDivisionError:
        raise InputError(f"a fraction cannot have the denominator 0, got {text!r}") from None
    except ValueError:
        raise InputError(f"must be a number or a fraction with a plain slash, such as 0.25 or 64/255, "
                         f"got {text!r}") from None
    if slash and not (math.isfinite(value) and math.isfinite(float(under))):
        raise InputError(f"a fraction must have a finite value, got {text!r}")
    return value


def split_commas(text: str) -> list[str]:
    """Return the parts of a list that is written with commas, without the spaces around them; none of a blank text.

    >>> split_commas("0.5, 1,3/2"), split_commas("")
    (['0.5', '1', '3/2'], [])

    Raises:
        InputError: a part is empty, as after a comma too many.
    """
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(parts):
        raise InputError(f"part {parts.index('') + 1} of the list {text!r} is empty: give values with single commas "
                         f"between them")
    return parts


def check_positive(name: str, value: Any) -> float:
    """Return `value` as a float, or raise InputError unless it is a finite number above zero."""
    number = _number(name, value, "a number above 0")
    if not (math.isfinite(number) and number > 0):
        raise InputError(f"{name} must be a finite number above 0, got {value!r}")
    return number


def check_finite(name: str, value: Any) -> float:
    """Return `value` as a float, or raise InputError unless it is a finite number."""
    number = _number(name, value, "a number")
    if not math.isfinite(number):
        raise InputError(f"{name} must be a finite number, got {value!r}")
    return number


def check_probability(name: str, value: Any) -> float:
    """Return `value` as a float, or raise InputError unless it lies strictly between 0 and 1."""
    number = _number(name, value, "a number strictly between 0 and 1")
    if not 0 < number < 1:
        raise InputError(f"{name} must lie strictly between 0 and 1, got {value!r}")
    return number


def check_weight(name: str, value: Any) -> float:
    """Return `value` as a float, or raise InputError unless it is a finite number of at least 0."""
    number = _number(name, value, "a finite number of at least 0")
    if not (math.isfinite(number) and number >= 0):
        raise InputError(f"{name} must be a finite number of at least 0, got {value!r}")
    return number


def check_share(name: str, value: Any) -> float:
    """Return `value` as a float, or raise InputError unless it lies in [0, 1)."""
    number = _number(name, value, "a number in [0, 1)")
    if not 0 <= number < 1:
        raise InputError(f"{name} must lie in [0, 1), got {value!r}")
    return number


def check_optional_positive(name: str, value: Any) -> float | None:
    """Return None or a finite number above 0, or raise InputError."""
    return None if value is None else check_positive(name, value)


def check_flag(name: str, value: Any) -> bool:
    """Return `value`, or raise InputError unless it is true or false."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, got {value!r}")
    return value


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Return `value` as an int, or raise InputError unless it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if value < least:
        raise InputError(f"{name} must be at least {least}, got {value}")
    return int(value)


def check_shape(name: str, value: Any) -> tuple[int, ...]:
    """Return the shape of one input as whole numbers of at least 1, or raise InputError."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not len(value):
        raise InputError(f"{name} must be the shape of one input, such as (3, 32, 32) for images, (12, 1000) for "
                         f"series or (30,) for tables, got {value!r}")
    return tuple(check_count(f"{name}[{i}]", size) for i, size in enumerate(value))


def check_bounds(bounds: Any) -> tuple[float, float] | None:
    """Return the bounds that values must keep as floats, or raise InputError unless they are (low, high) or None."""
    if bounds is None:
        return None
    try:
        low, high = map(float, bounds)
    except (TypeError, ValueError):
        raise InputError(f"bounds must be two numbers (low, high), or None, got {bounds!r}") from None
    if not low < high:
        raise InputError(f"bounds must be (low, high) with low < high, or None, got {bounds!r}")
    return low, high


def check_seed(value: Any) -> int:
    """Return a run seed: a whole number in [0, 2^128), the range that keys every noise stream."""
    seed = check_count("seed", value, least=0)
    if seed >= 1 << 128:
        raise InputError(f"seed must be below 2^128, got {value}")
    return seed


def check_known(kind: str, name: Any, known: Iterable[str]) -> str:
    """Return `name` if it is one of `known`, or raise UnknownNameError with the closest known one."""
    names = list(known)
    if name in names:
        return name
    raise UnknownNameError(f"unknown {kind} {name!r}{suggestion(str(name), names)}; known: {', '.join(names)}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a clause that gives the closest known name, or an empty string where none is close.

    >>> suggestion("mnits", ["digits", "mnist"])
    ' (did you mean "mnist"?)'
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f' (did you mean "{close[0]}"?)' if close else ""


def construct(what: str, build: Callable[..., T], known: Iterable[str], options: Mapping[str, Any]) -> T:
    """Return build(**options), or raise everything that is wrong with the options at once: names that are not `known`,
    and values that `build` refuses when it is given them one by one.

    Args:
        what: the name of what is built, for the messages.
    Raises:
        InputError: one thing is wrong. ConfigError: several are.
    """
    takes = list(known)
    listed = f"its options: {', '.join(takes)}" if takes else "it has no options"
    problems: list[InputError] = [InputError(f"{what} has no option {name!r}{suggestion(name, takes)}; {listed}")
                                  for name in options if name not in takes]
    given = {name: value for name, value in options.items() if name in takes}
    try:
        made = build(**given)
        if not problems:
            return made
    except InputError as error:
        refused: list[InputError] = []
        for name, value in given.items():
            try:
                build(**{name: value})
            except InputError as alone:
                refused.append(alone)
        problems += refused or [error]
    if len(problems) == 1:
        raise problems[0]
    raise ConfigError([str(problem) for problem in problems], what)


def _number(name: str, value: Any, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"{name} must be {expected}, got {value!r}")
    return float(value)
