"""The base classes of all options, their checking, and the YAML files that can hold them."""

import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic_core import PydanticSerializationError

from smoothcert.checks import suggestion
from smoothcert.config.fields import PLACES, Bounds, ClassNames, Count, Local, LoggerParts, Names
from smoothcert.config.numbers import from_yaml
from smoothcert.errors import ConfigError, FileError, InputError
from smoothcert.limits import YAML_BYTES, bounded_bytes

Part = tuple[set[str], Callable[[], object]]
"""An object that options name: the options that it is built from, and what builds it, or raises InputError."""

_FIELDS_ALONE = "fields alone"


class Config(BaseModel):
    """The base of every run's options. Unknown keys are refused; values are never changed after checking.

    A subclass says in `_contradictions` which options exclude or need one another, and in `_parts` which objects they
    name (a plan, an attack, an objective), which are built to be checked. All mistakes are reported together.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), defer_build=True)

    @classmethod
    def gather(cls, flags: dict[str, Any], file: Path | None = None) -> Self:
        """Check the options of a YAML file, overridden by `flags`, and report every mistake at once.

        Raises:
            ConfigError: with all problems. FileError: the YAML file cannot be read.
        """
        return cls.parse({**(read_yaml(file) if file else {}), **flags}, str(file) if file else "the options")

    @classmethod
    def parse(cls, values: dict[str, Any], source: str = "the options") -> Self:
        """Construct the options, and raise all problems as one ConfigError."""
        try:
            return cls(**values)
        except ValidationError as error:
            found: list[dict[str, Any]] = [dict(e) for e in error.errors()]
        problems = [problem for e in found for problem in cls._explain(e)]
        if wrong := {str(e["loc"][0]) for e in found if e["loc"]}:
            # Objects that none of the wrong options belongs to can be checked all the same.
            rest = {name: value for name, value in values.items() if name not in wrong}
            rest |= {name: "-" for name in wrong if name in cls.model_fields and cls.model_fields[name].is_required()}
            with suppress(ValidationError):
                problems += cls.model_validate(rest, context=_FIELDS_ALONE)._part_problems(wrong)
        raise ConfigError(problems, source)

    def _contradictions(self) -> Iterator[str]:
        """Yield what is wrong with the options together."""
        return iter(())

    def _parts(self) -> Iterator[Part]:
        """Yield the objects that the options name."""
        return iter(())

    @model_validator(mode="after")
    def _check_together(self, info: ValidationInfo) -> Self:
        if info.context != _FIELDS_ALONE and (problems := [*self._contradictions(), *self._part_problems(set())]):
            raise ConfigError(problems, "the options")
        return self

    def _part_problems(self, wrong: set[str]) -> list[str]:
        """Return what is wrong with the objects that none of the `wrong` options belongs to."""
        problems: list[str] = []
        for options, build in self._parts():
            try:
                if not options & wrong:
                    build()
            except ConfigError as error:
                problems += error.problems
            except InputError as error:
                problems.append(str(error))
        return problems

    def to_yaml(self) -> str:
        """Return the options as a YAML file that `gather` reads: those that were given, and the others as comments with
        their defaults and what they are for.

        Raises ConfigError for options that were given as objects, which no file can hold.
        """
        fields = type(self).model_fields
        try:
            given = self.model_dump(mode="json", include=self.model_fields_set, context=PLACES)
        except PydanticSerializationError as error:
            raise ConfigError([f"an option holds an object, which a file cannot: {error}"], "the options") from None
        lines = yaml.safe_dump({name.replace("_", "-"): given[name] for name in fields if name in given},
                               sort_keys=False, allow_unicode=True).splitlines() if given else []
        for name, field in fields.items():
            if name not in given:
                default = field.get_default(call_default_factory=True)
                plain = list(default) if isinstance(default, tuple) else default
                shown = "" if field.is_required() or default is None else yaml.safe_dump(
                    plain if isinstance(plain, bool | int | float | str | list | dict) else str(plain),
                    default_flow_style=True, width=10**6).split("\n")[0]
                lines.append(f"# {name.replace('_', '-')}: {shown}".rstrip())
                lines += [f"#     {line}" for line in textwrap.wrap(field.description or "", 100)]
        return "\n".join(lines) + "\n"

    def select(self, kind: "type[Config]") -> dict[str, Any]:
        """Return the options that this class has of another one, by name."""
        return {name: getattr(self, name) for name in kind.model_fields if name in type(self).model_fields}

    @classmethod
    def _explain(cls, error: dict[str, Any]) -> list[str]:
        """Return what pydantic found wrong, in words."""
        if isinstance(together := error.get("ctx", {}).get("error"), ConfigError):
            return together.problems
        name = ".".join(str(part) for part in error["loc"]) or "the options together"
        if error["type"] == "extra_forbidden":
            return [f"{name}: unknown option{suggestion(name, cls.model_fields)}"]
        if error["type"] == "missing":
            return [f"{name}: is required ({cls.model_fields[name].description})"]
        message = error["msg"].removeprefix("Value error, ")
        got = "" if error["type"] == "value_error" else f", got {textwrap.shorten(repr(error['input']), 100)}"
        return [f"{name}: {message[0].lower()}{message[1:]}{got}"]


class ReadingConfig(Config):
    """Options of how the inputs of a data set are read."""

    resize: Count | None = Field(None, description="resize the shorter side to this many pixels, before the noise")
    crop: Count | None = Field(None, description="crop the centre to this many pixels, after resizing")
    features: Names | None = Field(None, description="columns of a table that make an input, in this order, such as "
                                                     "age,weight; or the array of inputs of a .npz file (default: the "
                                                     "column of images or lists, else every column of numbers)",
                                   json_schema_extra={"metavar": "COLUMNS"})
    label: str | None = Field(None, description="column, or array, of the labels; of a table also several, such as "
                                                "l1,l2, for the tasks regression and multi-label (default: label, y or "
                                                "target)",
                              json_schema_extra={"metavar": "COLUMN"})
    bounds: Bounds | None = Field(None, description="LOW,HIGH that all values keep, or none (default: 0,1 for images, "
                                                    "none for other inputs)",
                                  json_schema_extra={"metavar": "LOW,HIGH"})
    levels: Count | None = Field(None, description="values are whole multiples of 1/LEVELS (default: those of images, "
                                                   "none for other inputs)")

    @property
    def reading(self) -> dict[str, Any]:
        """How inputs are read: the options of `smoothcert.data.reading.Reading` that are given."""
        return {name: value for name in ReadingConfig.model_fields if (value := getattr(self, name)) is not None}

    def _parts(self) -> Iterator[Part]:
        yield from super()._parts()
        if self.features or self.label:
            yield {"features", "label"}, lambda: import_module("smoothcert.data.reading").Reading(**self.reading)


class DataConfig(ReadingConfig):
    """Options of runs that read inputs: where the data lie, and how they are made ready."""

    data_dir: Local | None = Field(None, description="folder with the data sets, as parquet files or as "
                                                    "torchvision has them (or set the environment "
                                                    "variable SMOOTHCERT_DATA_DIR)")
    num_classes: Annotated[int, Field(ge=2)] | None = Field(
        None, description="number of classes K (default: the model's or the data's)")
    classes: ClassNames | None = Field(
        None, description="file with the names of the model's classes, in the order of its outputs: one a line, or "
                          "JSON (default: the model's own, else the data's)", json_schema_extra={"metavar": "FILE"})
    numeric_classes: bool = Field(False, description="take classes that are named by numbers in the order of the "
                                                     "numbers, not of the text")


class MachineConfig(Config):
    """Options of what a run may use; they are never part of its results."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where networks run: auto, cpu or cuda")
    threads: Count | None = Field(None, description="processor threads for torch (default: all)")


class LogConfig(Config):
    """Options of runs whose figures other programs can show; they are never part of its results."""

    log_to: LoggerParts = Field((), description="also log figures to tensorboard:DIR, wandb:PROJECT, "
                                                "mlflow:EXPERIMENT or file.py:CLASS; several with commas",
                                json_schema_extra={"metavar": "LOGGER"})


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, with dashes in its keys as underscores. The file is safe-loaded."""
    try:
        content = from_yaml(bounded_bytes(Path(path), YAML_BYTES).decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileError(f"the configuration {path} is not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"the configuration {path} must hold KEY: VALUE lines, got {type(content).__name__}")
    return {str(key).replace("-", "_"): value for key, value in content.items()}
