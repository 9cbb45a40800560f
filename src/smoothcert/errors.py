"""Every error that smoothcert raises on purpose.

A message says what was got, what was expected and what to do. The command line exits with `exit_code`: 2 where the
request itself was wrong, 1 where the request was fine and the work failed.
"""

from typing import Any


class SmoothcertError(Exception):
    """The base of all errors raised on purpose; catch this to catch them all. They can be pickled."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


class InputError(SmoothcertError, ValueError):
    """An argument has a value, shape or type that cannot be used."""

    exit_code = 2


class UnknownNameError(InputError):
    """A name is not registered; the message gives the closest known one."""


class ConfigError(InputError):
    """One or more mistakes in a configuration, all reported at once in `problems`."""

    def __init__(self, problems: list[str], source: str = "the configuration") -> None:
        self.problems = list(problems)
        noun = "mistake" if len(self.problems) == 1 else "mistakes"
        super().__init__("\n".join([f"{len(self.problems)} {noun} in {source}:", *(f"  - {p}" for p in self.problems)]))


class ModelError(SmoothcertError):
    """A base classifier does not keep its contract: (N, *shape) inputs in, (N, K) logits out."""


class CodeError(ModelError, InputError):
    """A user's Python code cannot be imported."""

    exit_code = 1


class DataError(SmoothcertError):
    """A data set has content that cannot be used (labels outside the classes, mixed image sizes, ...)."""


class FileError(SmoothcertError):
    """A file or folder is missing, unreadable or corrupt; the message names it."""


class StoreError(SmoothcertError):
    """A store of records cannot be written or read."""


class EmptyStoreError(StoreError):
    """A store, log or count file without a record that figures could be computed from."""


class IdentityError(StoreError):
    """A store or model directory belongs to a different run; the message names the fields that differ."""


class HubError(SmoothcertError):
    """The Hugging Face hub cannot be reached, refuses, or holds something else than was expected."""


class LostProcessError(SmoothcertError):
    """Another process of a distributed training has ended, or no longer answers.

    A pending exchange with it may still write to memory that is in other use by now: end the process without cleaning
    up (`os._exit`), as `smoothcert train` does.
    """


class MissingExtraError(SmoothcertError):
    """An optional dependency is needed and missing; the message gives the command that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package}, which is not installed: "
                         f"pip install 'smoothcert[{extra}]'")


class QualityWarning(UserWarning):
    """A run continues although its result is likely to be poor; the message says why."""


class EngineWarning(UserWarning):
    """The engine asked for is not used, because it cannot run the model or changes the model's votes."""


class AdaptedWarning(UserWarning):
    """A model takes batches of one size only, and is run in such batches."""


class RandomWeightsWarning(UserWarning):
    """A factory gives a network whose weights were drawn at random: no weights were loaded into it."""


class ProcessorWarning(UserWarning):
    """A network gives the same answers only on processors like this one, and its run cannot go on elsewhere."""


class ColumnsWarning(UserWarning):
    """Columns of a table are no part of its inputs, because they hold no numbers, or number the rows."""


class CardWarning(UserWarning):
    """Records that belong together were made on several kinds of GPU, which round close calls otherwise."""


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def _restore(kind: type[SmoothcertError], args: tuple[Any, ...], state: dict[str, Any]) -> SmoothcertError:
    """Return an error as it was before it was pickled, without a call of its constructor, whose arguments differ."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error
