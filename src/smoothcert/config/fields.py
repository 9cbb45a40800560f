"""The kinds of values that options take, each checked as it is read."""

import importlib
import math
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf, PlainSerializer, SerializationInfo

from smoothcert.checks import check_bounds, check_known, check_seed, real_number
from smoothcert.config.numbers import from_yaml
from smoothcert.errors import SmoothcertError
from smoothcert.io.paths import RemotePath, local_path, place
from smoothcert.parts import names_code

PLACES = "places"
"""The context of a dump into a file that is to be read again: parts keep the folders of their code."""

_DECIMAL = r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*"
_FRACTION = re.compile(f"{_DECIMAL}/{_DECIMAL}")


def _split(value: Any) -> Any:
    """Split '1,2,3' into ['1', '2', '3'], so that lists can be given on a command line."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _pairs(value: Any) -> Any:
    """Turn ['key=value', ...] into {'key': value}, with values read as YAML."""
    if not isinstance(value, list | tuple):
        return value
    pairs = [str(item).partition("=") for item in value]
    if not all(key and equals for key, equals, _ in pairs):
        raise ValueError(f"give KEY=VALUE, got {list(value)}")
    if twice := sorted(key for key, count in Counter(key for key, _, _ in pairs).items() if count > 1):
        raise ValueError(f"give each key once, got {', '.join(twice)} several times")
    try:
        return {key: from_yaml(text) for key, _, text in pairs}
    except yaml.YAMLError as error:
        raise ValueError(f"give KEY=VALUE with a YAML value, got {list(value)}: {error}") from None


def _read_fractions(value: Any) -> Any:
    """Return an option's value, whose type is not known here, with the fractions in it as floats."""
    if isinstance(value, dict):
        return {key: _read_fractions(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_read_fractions(part) for part in value]
    return real_number(value) if isinstance(value, str) and _FRACTION.fullmatch(value) else value


def _one(value: Any) -> Any:
    """Return a single number, as a configuration file may have it, as a list of one."""
    return (value,) if isinstance(value, int | float) else value


def _check_ascending(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values or any(after <= before for before, after in pairwise(values)):
        raise ValueError(f"give one or more numbers in ascending order, got {_join(values)}")
    return values


def _check_above_zero(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not all(0 < value < math.inf for value in values):
        raise ValueError(f"all must be finite numbers above 0, got {_join(values)}")
    return _check_ascending(values)


def _check_at_least_zero(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values or not all(0 <= value < math.inf for value in values):
        raise ValueError(f"all must be finite numbers of at least 0, got {_join(values)}")
    return values


def _check_finite(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"give one finite number, or one for each channel, got {_join(values)}")
    return values


def _read_bounds(value: Any) -> Any:
    """Return (low, high) of a text such as "-1,1", and "none" as it is."""
    if isinstance(value, str) and value != "none":
        value = _split(value)
    if value != "none" and (not isinstance(value, list | tuple) or len(value) != 2):
        raise ValueError('give LOW,HIGH, or "none"')
    return value if value == "none" else check_bounds(tuple(real_number(str(one)) for one in value))


def _join(values: tuple[Any, ...]) -> str:
    return ",".join(f"{value:g}" for value in values) or "nothing"


def _in_registry(home: str, registry: str) -> AfterValidator:
    """Return a check that a part can be had by its name or is one; its registry is imported only to check it."""
    return AfterValidator(lambda part: getattr(importlib.import_module(home), registry).check_name(part))


def _labelled(home: str, registry: str) -> PlainSerializer:
    """Return how a part is written into JSON: by its name there (see `Registry.label`); and with the folders of its
    place where the context is `PLACES`, as in a file that is to be read again."""

    def write(part: Any, info: SerializationInfo) -> str:
        if info.context == PLACES and isinstance(part, str):
            return part
        return getattr(importlib.import_module(home), registry).label(part)

    return PlainSerializer(write, str, "json")


def _name_in(kind: str, home: str, registry: str) -> AfterValidator:
    """Return a check that a name is registered; the registry is imported only when a name has to be checked."""

    def check(name: str) -> str:
        return check_known(kind, name, getattr(importlib.import_module(home), registry))

    return AfterValidator(check)


def _local(value: Any) -> Any:
    if isinstance(value, str) and "://" in value:
        raise ValueError(f"give a folder or file of this machine, got {value}: only stores can be in an object storage")
    return local_path(value) if isinstance(value, str | Path) else value


def _store(value: Any) -> Any:
    if isinstance(value, str | Path | RemotePath):
        return place(value) if isinstance(value, str) else value
    if hasattr(value, "identity") and hasattr(value, "records"):
        return value
    raise ValueError(f"must be a store or its folder, got {type(value).__name__}")


def _denoiser(value: Any) -> Any:
    """Return the place of code or the registered name of a denoiser, or the object, as it is; else a folder's path."""
    if isinstance(value, Path):
        return _local(value)
    if not isinstance(value, str) or names_code(value):
        return value
    registry = importlib.import_module("smoothcert.denoise").DENOISERS
    return value if not Path(value).exists() and value in registry and not registry.is_own(value) else _local(value)


def _text_or_object(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _check_model(value: Any) -> Any:
    if isinstance(value, str) or callable(value) or hasattr(value, "predict_proba") or hasattr(value, "predict"):
        return value
    raise ValueError(f"must be the name or the place of a model, a torch module, a function from images to logits, an "
                     f"object with predict_proba, or a factory of one of these, got {type(value).__name__}")


def _name_of_object(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else type(value).__qualname__


def _several(value: Any) -> Any:
    """Return a single text or object as one of several; texts are split at commas."""
    return tuple(value) if isinstance(value, list | tuple) else tuple(_split(value)) if isinstance(value, str) else (
        value,)


def _check_loggers(loggers: tuple[Any, ...]) -> tuple[Any, ...]:
    home = importlib.import_module("smoothcert.loggers")
    problems = []
    for logger in loggers:
        try:
            home.check_logger(logger)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems))
    return loggers


def _label_loggers(loggers: tuple[Any, ...]) -> list[str]:
    registry = importlib.import_module("smoothcert.loggers").LOGGERS if loggers else None
    return [one if isinstance(one, str) or registry is None else registry.label(one) for one in loggers]


def _class_names(value: Any) -> Any:
    from smoothcert.classes import read_class_names  # brings NumPy, which --help does without

    try:
        return read_class_names(value)
    except SmoothcertError as error:
        raise ValueError(str(error)) from None


ClassNames = Annotated[tuple[str, ...], BeforeValidator(_class_names)]
Local = Annotated[Path, BeforeValidator(_local)]
Stored = Annotated[Path | InstanceOf[RemotePath],
                   BeforeValidator(lambda value: place(value) if isinstance(value, str) else value)]
StorePart = Annotated[Any, BeforeValidator(_store), PlainSerializer(str, str, "json")]
"""The folder of a store, or the store itself."""
Real = Annotated[float, BeforeValidator(lambda value: real_number(value) if isinstance(value, str) else value)]
"""A number, which may be written as a fraction such as 64/255."""
Sigma = Annotated[Real, Field(gt=0, allow_inf_nan=False)]
Radius = Annotated[Real, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[Real, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[Real, Field(gt=0, lt=1)]
Share = Annotated[Real, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Options = Annotated[dict[str, Any], BeforeValidator(_pairs), AfterValidator(_read_fractions)]
Floats = Annotated[tuple[Real, ...], BeforeValidator(_split)]
Radii = Annotated[Floats, BeforeValidator(_one), AfterValidator(_check_at_least_zero)]
Channels = Annotated[Floats, BeforeValidator(_one), AfterValidator(_check_finite)]
"""One finite number for each channel of an image, or one for all."""
Names = Annotated[tuple[str, ...], BeforeValidator(_split), Field(min_length=1)]
Bounds = Annotated[Any, BeforeValidator(_read_bounds)]
"""(low, high) of all values of the inputs, or "none"."""
Ints = Annotated[tuple[Whole, ...], BeforeValidator(_split)]
Sizes = Annotated[Floats, BeforeValidator(_one), AfterValidator(_check_above_zero)]
Counts = Annotated[Ints, BeforeValidator(_one), AfterValidator(_check_above_zero)]
Wholes = Annotated[Ints, BeforeValidator(_one), AfterValidator(_check_ascending)]
Costs = Annotated[Floats, BeforeValidator(_one), AfterValidator(_check_at_least_zero),
                  AfterValidator(_check_ascending)]
Seed = Annotated[int, AfterValidator(check_seed)]
Method = Annotated[str, _name_in("method", "smoothcert.stats", "METHODS")]
NoiseKind = Annotated[Any, _in_registry("smoothcert.noise", "NOISES"), _labelled("smoothcert.noise", "NOISES")]
NoiseFormat = Literal["auto", "sfc64-v1", "philox-v1", "sound-v1", "sound-philox-v1"]
Engine = Annotated[str, _name_in("engine", "smoothcert.smoothing.sampling", "ENGINE_NAMES")]
Sigmas = Annotated[tuple[Sigma, ...], BeforeValidator(_split), BeforeValidator(_one)]
Probabilities = Annotated[tuple[Probability, ...], BeforeValidator(_split), BeforeValidator(_one)]
Samples = Annotated[int, Field(ge=1, le=10**10)]
SampleSizes = Annotated[tuple[Samples, ...], BeforeValidator(_split), BeforeValidator(_one)]
Looks = Annotated[tuple[Samples, ...], BeforeValidator(_split), BeforeValidator(_one),
                  AfterValidator(_check_above_zero)]
ObjectivePart = Annotated[Any, _in_registry("smoothcert.objectives", "OBJECTIVES"),
                          _labelled("smoothcert.objectives", "OBJECTIVES")]
AttackPart = Annotated[Any, _in_registry("smoothcert.attacks", "ATTACKS"), _labelled("smoothcert.attacks", "ATTACKS")]
ModelPart = Annotated[Any, BeforeValidator(_text_or_object), AfterValidator(_check_model)]
"""The name or the place of a base classifier, or the object itself."""
DataPart = Annotated[Any, BeforeValidator(_text_or_object), PlainSerializer(_name_of_object, str | None, "json")]
"""The name or the place of a data set, or the object itself."""
LoggerParts = Annotated[tuple[Any, ...], BeforeValidator(_several), AfterValidator(_check_loggers),
                        PlainSerializer(_label_loggers, list[str], "json")]
"""Loggers, each NAME:TARGET, the place of code, or the object itself."""
DenoiserPart = Annotated[Any, BeforeValidator(_denoiser)]
"""The folder of a trained denoiser, or the name, the place of code or the object of another one."""
