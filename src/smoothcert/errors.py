"""Every error that smoothcert raises on purpose.

A message says what was got, what was expected and what to do. `exit_code` is what the command line
returns for it: 2 where the request itself was wrong, 1 where the request was fine and the work failed.
"""

from typing import Any


class SmoothcertError(Exception):
    """The base of all errors raised on purpose; catch this to catch them all. They can be pickled."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, self.__dict__)


class InputError(SmoothcertError, ValueError):
    """An argument has a value, shape or type that cannot be used."""

    exit_code = 2


class UnknownNameError(InputError):
    """A name that is not registered; the message gives the closest known one."""


class ConfigError(InputError):
    """One or more mistakes in a configuration, all reported at once in `problems`."""

    def __init__(self, problems: list[str], source: str = "the configuration"):
        self.problems = list(problems)
        noun = "mistake" if len(self.problems) == 1 else "mistakes"
        super().__init__("\n".join([f"{len(self.problems)} {noun} in {source}:", *(f"  - {p}" for p in self.problems)]))


class ModelError(SmoothcertError):
    """A base classifier that does not keep its contract: (N, C, H, W) images in, (N, K) logits out."""


class DataError(SmoothcertError):
    """A data set whose content cannot be used (labels outside the classes, mixed image sizes, ...)."""


class FileError(SmoothcertError):
    """A file or folder that is missing, unreadable or corrupt; the message names it."""


class StoreError(SmoothcertError):
    """A store of records that cannot be written or read."""


class EmptyStoreError(StoreError):
    """A store, log or count file without a record that figures could be computed from."""


class IdentityError(StoreError):
    """A store or model directory that belongs to a different run; the message names the differing fields."""


class LostProcessError(SmoothcertError):
    """Another process of a distributed training has ended, or no longer answers.

    What was being exchanged with it may still be written to memory that is in other use by now: end the process
    without cleaning up (`os._exit`), as `smoothcert train` does.
    """


class MissingExtraError(SmoothcertError):
    """An optional dependency is needed and absent; the message gives the command that installs it."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs the package {package}, which is not installed: "
                         f"pip install 'smoothcert[{extra}]'")


class QualityWarning(UserWarning):
    """A run that goes on although something says that its result will be poor; the message says what."""


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


class EngineWarning(UserWarning):
    """An engine that was asked for is not used, because it cannot run the model or gives it other votes."""


class AdaptedWarning(UserWarning):
    """A model does not take any number of images, and runs in batches of the one size that it takes."""


def _restored(kind: type[SmoothcertError], args: tuple[Any, ...], state: dict[str, Any]) -> SmoothcertError:
    """Return an error as it was before it was pickled, without its constructor, whose arguments are others."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error
