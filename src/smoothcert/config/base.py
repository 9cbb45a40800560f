"""The base classes of all options, their checking, and the YAML files that can hold them."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smoothcert.checks import suggestion
from smoothcert.config.fields import ClassNames, Count, Local
from smoothcert.config.numbers import from_yaml
from smoothcert.errors import ConfigError, FileError, InputError
from smoothcert.io.limits import YAML_BYTES, bounded_bytes


class Config(BaseModel):
    """The base of every run's options. Unknown keys are refused; values are never changed after checking."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), defer_build=True)

    @classmethod
    def gather(cls, flags: dict[str, Any], file: Path | None = None) -> Self:
        """Check the options of a YAML file, overridden by `flags`, and report every mistake at once.

        Raises:
            ConfigError: with all problems. FileError: the YAML file cannot be read.
        """
        return cls.checked({**(read_yaml(file) if file else {}), **flags}, str(file) if file else "the options")

    @classmethod
    def checked(cls, values: dict[str, Any], source: str = "the options") -> Self:
        """Construct the options, and raise all problems as one ConfigError."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise ConfigError([cls._explain(dict(e)) for e in error.errors()], source) from None

    def part(self, kind: "type[Config]") -> dict[str, Any]:
        """Return the options that this class has of another one, by name."""
        return {name: getattr(self, name) for name in kind.model_fields if name in type(self).model_fields}

    @classmethod
    def _explain(cls, error: dict[str, Any]) -> str:
        name = ".".join(str(part) for part in error["loc"]) or "the options together"
        if error["type"] == "extra_forbidden":
            return f"{name}: unknown option{suggestion(name, cls.model_fields)}"
        if error["type"] == "missing":
            return f"{name}: is required ({cls.model_fields[name].description})"
        message = error["msg"].removeprefix("Value error, ")
        got = "" if error["type"] == "value_error" else f", got {error['input']!r}"
        return f"{name}: {message[0].lower()}{message[1:]}{got}"


class DataConfig(Config):
    """Options of runs that read images: where the data lie, and how images are made ready."""

    data_dir: Local | None = Field(None, description="folder with the data sets' parquet files "
                                                    "(or set the environment variable SMOOTHCERT_DATA_DIR)")
    resize: Count | None = Field(None, description="resize the shorter side to this many pixels, before the noise")
    crop: Count | None = Field(None, description="crop the centre to this many pixels, after resizing")
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
