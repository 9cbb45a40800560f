"""Several runs opened for one table or page: what cannot be opened is told apart, and never left unsaid."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from smoothcert.errors import InputError, SmoothcertError
from smoothcert.interop import Named, named

T = TypeVar("T")


def opened_apart(
    texts: Sequence[str], opening: Callable[[Named], T], whole: bool = False
) -> tuple[list[T], list[SmoothcertError]]:
    """Every `PATH` or `METHOD=PATH` opened, and what went wrong with the others, both in the order they were named.

    Args:
        whole: raise what goes wrong with any. So it is where one is named, or nothing can be opened.
    Raises:
        InputError: what was asked of any of them is wrong.
    """
    found: list[T] = []
    problems: list[SmoothcertError] = []
    for one in named(texts):
        try:
            found.append(opening(one))
        except SmoothcertError as error:
            if whole or len(texts) == 1 or isinstance(error, InputError):
                raise
            problems.append(error)
    if problems and not found:
        raise type(problems[0])("\n".join(map(str, problems)))
    return found, problems
