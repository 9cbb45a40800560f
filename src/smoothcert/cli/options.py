"""The bridge from configuration classes to commands: every field is an option, and its description is the help.

A field whose `json_schema_extra` has an "argument" is given by its place on the command line; the value is the name
that `--help` shows, such as "STORE". A "metavar" there is what `--help` shows instead of the type's name, and "also" is
a second name of the option, where no other field's option has it. A "repeatable" option may be given several times.
"""

import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from smoothcert.cli.output import listen, report_errors, say
from smoothcert.config.base import Config
from smoothcert.errors import ConfigError, InputError

_JSON = typer.Option("--json", help="Print the result as JSON on standard output.")
_QUIET = typer.Option("--quiet", "-q", help="Show only errors and results.")
_VERBOSE = typer.Option("--verbose", "-v", help="Also show phases with their times, and what was chosen.")
_FILE = typer.Option("--config", metavar="FILE", help="YAML file with these options; the command line wins.")
_PRINT = typer.Option("--print-config", help="Check the options, print them as a file for --config, and stop.")


def verb(run: Callable[..., None]) -> Callable[..., None]:
    """Turn `run(config)` into a command whose options are the fields of the class that annotates `config`.

    The command has `--json` where `run` takes `as_json`, and always `--config`, `--quiet` and `--verbose`.
    """
    command = make_command(run, run.__annotations__["config"])
    command.__doc__, command.__name__ = run.__doc__, run.__name__
    return command


def make_command(run: Callable[..., None], config: type[Config]) -> Callable[..., None]:
    """Return the command that checks the options of a configuration class and calls `run`.

    Options arrive as text and are checked by the configuration itself, so that all mistakes are reported together; but
    for those that are given twice, of which it would see one.
    """
    flags = {"as_json": _JSON} if "as_json" in inspect.signature(run).parameters else {}

    @report_errors
    def command(**texts: Any) -> None:
        given = _take_once(texts, config)
        file, quiet, verbose = (given.pop(name) for name in ("config", "quiet", "verbose"))
        file = file and Path(file)
        print_only, asked = given.pop("print_config"), {name: given.pop(name) for name in flags}
        values = {name: value for name, value in given.items() if value not in (None, False, [], ())}
        if quiet and verbose:
            raise InputError("--quiet shows less and --verbose shows more: give one of them")
        if print_only:
            say(config.gather(values, file).to_yaml().rstrip())
            return
        with listen(quiet, verbose):
            run(config.gather(values, file), **asked)

    parameters = [*(_parameter(name, config) for name in _order(config)), _single("config", _FILE),
                  *(_optional(name, bool, flag, False) for name, flag in {
                      **flags, "print_config": _PRINT, "quiet": _QUIET, "verbose": _VERBOSE}.items())]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _take_once(texts: dict[str, Any], config: type[Config]) -> dict[str, Any]:
    """Return what was given, with the single text in place of the list of those options that have one value.

    Raises ConfigError for every such option that is given several times.
    """
    given, problems = dict(texts), []
    for name, value in texts.items():
        field = config.model_fields.get(name)
        if not isinstance(value, list) or (field is not None and _may_repeat(field)):
            continue
        given[name] = value[0] if value else None
        if len(value) > 1:
            commas = ", with commas between its values" if field and _plain_type(field.annotation) is tuple else ""
            problems.append(f"{name}: is given {len(value)} times ({', '.join(value)}): give it once{commas}")
    if problems:
        raise ConfigError(problems, "the options")
    return given


def _may_repeat(field: FieldInfo) -> bool:
    """Tell whether an option may be given several times, or is an argument of several texts."""
    hints = _hints(field)
    return "argument" in hints or bool(hints.get("repeatable")) or _plain_type(field.annotation) is dict


def _order(config: type[Config]) -> list[str]:
    """Return the names of the fields as help lists them: arguments, required ones, the verb's own, shared ones."""
    fields = config.model_fields
    names = dict.fromkeys(name for kind in config.__mro__ for name in inspect.get_annotations(kind) if name in fields)
    return sorted(names, key=lambda name: ("argument" not in _hints(fields[name]),
                                           not fields[name].is_required()))


def _parameter(name: str, config: type[Config]) -> inspect.Parameter:
    """Return the parameter of a command for a field: always text, a list of texts, or a flag."""
    field = config.model_fields[name]
    words, kind = field.description or "", _plain_type(field.annotation)
    hints = _hints(field)
    if "argument" in hints:
        several = list[str] if kind is tuple else str
        return _optional(name, several | None, typer.Argument(metavar=hints["argument"], help=words), None)
    flags = ["--" + name.replace("_", "-"), *(["-o"] if name == "out" else [])]
    also = hints.get("also", "")
    if also and "argument" in _hints(config.model_fields[also.removeprefix("--")]):
        flags.append(also)
    if kind is bool:
        return _optional(name, bool, typer.Option(*flags, help=words), False)
    if kind is dict:
        return _optional(name, list[str] | None, typer.Option(*flags, metavar="KEY=VALUE", help=words), None)
    if field.is_required():
        words += " (required)"
    if hints.get("repeatable"):
        return _optional(name, list[str] | None, typer.Option(*flags, metavar=hints["metavar"], help=words), None)
    if not field.is_required() and field.default not in (None, ""):
        words += f" (default: {field.default})"
    types_shown = {int: "INT", float: "FLOAT", Path: "PATH", tuple: "LIST"}
    metavar = hints.get("metavar") or types_shown.get(kind, "TEXT")
    return _single(name, typer.Option(*flags, metavar=metavar, help=words))


def _single(name: str, option: Any) -> inspect.Parameter:
    """Return the parameter of an option with one value; as a list, so that a second one does not replace the first."""
    return _optional(name, list[str] | None, option, None)


def _hints(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _optional(name: str, kind: Any, option: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def _plain_type(annotation: Any) -> type:
    """Return the plain type behind Annotated, Optional and Literal."""
    if get_origin(annotation) is Annotated:
        return _plain_type(get_args(annotation)[0])
    if get_origin(annotation) in (types.UnionType, typing.Union):
        return _plain_type(next(part for part in get_args(annotation) if part is not type(None)))
    if get_origin(annotation) is Literal:
        return str
    return get_origin(annotation) or annotation
