"""Commands made from configuration classes: every field is an option, its text the option's help."""

import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from smoothcert.cli.errors import reported
from smoothcert.config.base import Config

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="YAML file with these options; the command line wins.")
]


def configured(
    config: type[Config], positional: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn `run(config, as_json, quiet)` into a command whose options are the fields of `config`.

    Options arrive as text and are checked by the configuration itself, so that all mistakes are reported together.
    """

    def decorate(run: Callable[..., None]) -> Callable[..., None]:
        @reported
        def command(**given: Any) -> None:
            file, as_json, quiet = given.pop("config"), given.pop("json"), given.pop("quiet")
            flags = {name: value for name, value in given.items() if value not in (None, False, [], ())}
            run(config.gather(flags, file), as_json, quiet)

        parameters = [
            *(_parameter(name, config.model_fields[name], name == positional) for name in _order(config, positional)),
            _plain("config", ConfigFile, None), _plain("json", JsonFlag, False), _plain("quiet", Quiet, False),
        ]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        command.__doc__, command.__name__ = run.__doc__, run.__name__
        return command

    return decorate


def _order(config: type[Config], positional: str | None) -> list[str]:
    """Field names as help lists them: the positional one, required ones, then the verb's own, then the shared."""
    own_first = [name for kind in config.__mro__ for name in inspect.get_annotations(kind)
                 if name in config.model_fields]
    names = list(dict.fromkeys(own_first))
    return sorted(names, key=lambda name: (name != positional, not config.model_fields[name].is_required()))


def _plain(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _parameter(name: str, field: Any, positional: bool) -> inspect.Parameter:
    words = field.description
    if positional:
        return _plain(name, Annotated[str | None, typer.Argument(metavar=name.upper(), help=words)], None)
    flag = "--" + name.replace("_", "-")
    kind = _kind(field.annotation)
    if kind is bool:
        return _plain(name, Annotated[bool, typer.Option(flag, help=words)], False)
    if not field.is_required() and field.default is not None and kind is not dict:
        words += f" (default: {field.default})"
    if field.is_required():
        words += " (required)"
    if kind is dict:
        return _plain(name, Annotated[list[str] | None, typer.Option(flag, metavar="KEY=VALUE", help=words)], None)
    flags = (flag, "-o") if name == "out" else (flag,)
    names = {int: "INT", float: "FLOAT", Path: "PATH", tuple: "LIST"}
    metavar = (field.json_schema_extra or {}).get("metavar") or names.get(kind, "TEXT")
    return _plain(name, Annotated[str | None, typer.Option(*flags, metavar=metavar, help=words)], None)


def _kind(annotation: Any) -> type:
    """The plain type behind Annotated, Optional and Literal."""
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if get_origin(annotation) in (types.UnionType, typing.Union):
        return _kind(next(part for part in get_args(annotation) if part is not type(None)))
    if get_origin(annotation) is Literal:
        return str
    return get_origin(annotation) or annotation
