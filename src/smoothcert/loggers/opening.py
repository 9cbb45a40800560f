"""Loggers made of what was asked for: NAME:TARGET, the place of a user's own class, or an object."""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

from smoothcert.checks import suggestion
from smoothcert.errors import CodeError, InputError, first_line
from smoothcert.io.paths import Place
from smoothcert.loggers.mlflow import MLflow
from smoothcert.loggers.protocol import Logger
from smoothcert.loggers.tensorboard import TensorBoard
from smoothcert.loggers.wandb import WeightsAndBiases
from smoothcert.parts import Registry, known_arguments, missing_members, names_code

LOGGERS: Registry[Any] = Registry("logger", "smoothcert.loggers", {
    "tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow,
}, lambda part: missing_members(part, ("log", "close")))
"""Loggers by name. A class is made with the target, if one is given, and with the run's folder where it takes `run`."""


class Log:
    """The loggers of a run, called together. One that fails is left out from then on: a run never ends for it.

    Args:
        loggers: by name. own: those that were opened here, and are closed here.
    """

    def __init__(self, loggers: Mapping[str, Logger], own: Sequence[Logger] = ()) -> None:
        self._loggers, self._own = dict(loggers), list(own)

    def __bool__(self) -> bool:
        return bool(self._loggers)

    def __call__(self, step: int, values: Mapping[str, float], /) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                logger.log(step, values)
            except Exception as error:
                del self._loggers[name]
                warnings.warn(f"the logger {name} failed, and the run goes on without it: {first_line(error)}",
                              stacklevel=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for logger in self._own:
            try:
                logger.close()
            except Exception as problem:
                warnings.warn(f"the logger {LOGGERS.label(logger)} could not be closed: {first_line(problem)}",
                              stacklevel=2)


def open_loggers(asked: Sequence[Any], run: Place) -> Log:
    """Make the loggers that were asked for; they begin with the first figures, and nothing is written before.

    Args:
        asked: texts, as `check_logger` takes them, or objects, which whoever gives them closes.
        run: the folder of the run.
    Raises:
        MissingExtraError: a logger without its package. What `check_logger` raises, and what a class raises.
    """
    loggers: dict[str, Logger] = {}
    own: list[Logger] = []
    for spec in asked:
        if isinstance(spec, str):
            maker, arguments = check_logger(spec)
            logger = maker(*arguments, **known_arguments(maker, run=run)) if isinstance(maker, type) else maker
            own.append(logger)
            loggers[spec] = logger
        else:
            loggers[LOGGERS.label(spec)] = LOGGERS.find(spec)
    return Log(loggers, own)


def check_logger(spec: Any) -> tuple[Any, list[str]]:
    """Return the class of a logger and its target as a list, empty where there is none; or an object and no target.

    Args:
        spec: NAME:TARGET, file.py:CLASS, package.module:CLASS, each of the two also with :TARGET, or an object.
    Raises:
        UnknownNameError: no such logger. CodeError: code that cannot be imported. InputError: what does not keep the
        protocol, or a target that is missing or not taken.
    """
    if not isinstance(spec, str):
        if isinstance(spec, type):
            raise InputError(f"log_to takes a logger, not its class: make one, {spec.__name__}(...)")
        return LOGGERS.find(spec), []
    name, target = _split(spec)
    try:
        maker, arguments = LOGGERS[name], [target] if target else []
    except CodeError as error:  # a name that is misspelt looks like a module
        raise CodeError(f"{error}{suggestion(spec.partition(':')[0], LOGGERS)}") from None
    if not isinstance(maker, type):
        if target:
            raise InputError(f"logger {name} is an object and takes no target, got {target!r}")
        return maker, []
    try:
        inspect.signature(maker).bind(*arguments, **known_arguments(maker, run=None))
    except TypeError as error:
        shown = "tensorboard:DIR, wandb:PROJECT or mlflow:EXPERIMENT" if LOGGERS.is_own(name) else f"{name}:TARGET"
        raise InputError(f"logger {spec!r} cannot be made ({error}): give {shown}") from None
    return maker, arguments


def _split(spec: str) -> tuple[str, str]:
    """Return the name, or the place of code, and the target, "" where there is none.

    >>> _split("tensorboard:runs/a"), _split("mine.py:Csv"), _split("mine.py:Csv:out.csv")
    (('tensorboard', 'runs/a'), ('mine.py:Csv', ''), ('mine.py:Csv', 'out.csv'))
    """
    name, _, target = spec.partition(":")
    if name in LOGGERS:
        return name, target
    parts = spec.split(":")
    for count in range(2, len(parts) + 1):
        if names_code(":".join(parts[:count])):
            return ":".join(parts[:count]), ":".join(parts[count:])
    return name, target
