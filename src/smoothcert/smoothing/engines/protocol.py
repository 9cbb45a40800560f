"""The types of an engine, and how one refuses to run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from smoothcert.errors import first_line
from smoothcert.progress.pace import describe_count
from smoothcert.smoothing.files import Runtime
from smoothcert.smoothing.rows import Intake

Run = Callable[[Tensor], Tensor]
"""A forward pass: float32 rows (N, ...) -> logits (N, K)."""

Builder = Callable[[Any, tuple[int, ...], int, torch.device, str], Run]
"""(model, shape of one row, batch, device, precision) -> a pass over at most `batch` rows, at any time after.

Raises Refused where it cannot serve, InputError for a precision it does not have, MissingExtraError for a package.
"""


@dataclass(frozen=True)
class Choice:
    """Why an engine runs a model.

    Attributes:
        taken: the engine. refused: what each other one that might have run lacks, in words.
        rates: samples a second of those that were timed, forward passes alone.
        reason: why it was taken without a trial; "" after one, or where it was named.
    """

    taken: str
    rates: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    reason: str = ""

    def provenance(self) -> dict[str, Any]:
        """Return what a store's provenance says of it."""
        rates = {name: float(f"{rate:.3g}") for name, rate in self.rates.items()}
        told = {"samples_per_second": rates, "refused": self.refused, "reason": self.reason}
        return {"engine": {"taken": self.taken, **{name: value for name, value in told.items() if value}}}

    def lines(self) -> Iterator[str]:
        """Yield it in sentences: the engine, and each of the others with its measured speed."""
        yield f"engine {self.taken}{self._rate(self.taken)}{f': {self.reason}' if self.reason else ''}"
        for name, words in self.refused.items():
            yield f"engine {name} is not used{self._rate(name)}: {words}"

    def _rate(self, name: str) -> str:
        return f" ({describe_count(self.rates[name])} samples/s in the trial)" if name in self.rates else ""


@dataclass(frozen=True)
class Engine:
    """A way to run one model.

    Attributes:
        name: what it is called in `ENGINES`; never "auto".
        run: float32 rows (N, ...) on the device -> float32 logits (N, K) there. Its threads are torch's, as many as
            when it was opened. Not for several threads at once.
        batch: the most rows `run` takes, and computes whatever it is given; None: any number.
        runtime: the runtime that decides its answers in reduced precision; None where the model says all.
        choice: why it was taken, where there is more to say than that it was named.
    """

    name: str
    run: Run
    batch: int | None
    runtime: Runtime | None = None
    choice: Choice | None = None

    @property
    def intake(self) -> Intake:
        """How it reads its rows."""
        return getattr(self.run, "intake", Intake())


class Refused(Exception):
    """An engine cannot run this model here; the message says why. It never reaches users, but becomes a warning."""


@contextmanager
def refuse_on_error(what: str) -> Iterator[None]:
    """Turn any error into Refused: compilers, runtimes and users' modules raise whatever they like.

    Lack of memory passes through: a smaller batch may do.
    """
    try:
        yield
    except (Refused, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise Refused(f"{what} ({first_line(error)})") from error
