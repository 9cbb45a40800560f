"""Models from users' Python code, package.module:factory and path/file.py:factory, and the files that it is in."""

import inspect
import sys
from pathlib import Path
from typing import Any

from torch import nn

from smoothcert.errors import ModelError
from smoothcert.models.layers import Shape
from smoothcert.models.loaded import LoadedModel, read_model_file
from smoothcert.parts.code import (
    BY_PATH,
    attribute_of,
    import_target,
    importable,
    known_arguments,
    local_sources,
    roots,
)
from smoothcert.smoothing.protocols import NO_SCORES, gives_no_scores, put_in_eval_mode


def load_factory(
    spec: str, target: str, attribute: str, num_classes: int | None, input_shape: Shape | None
) -> LoadedModel:
    """Return the model that `attribute` of `target`, a module's name or a path ending in .py, is or makes.

    While the code is imported and its factory runs, the file's own folder is importable, or the working directory for a
    module. A torch module, or an instance with `predict_proba`, is taken as it is; anything else callable is called,
    with those of `input_shape` and `num_classes` that are known and that its signature names.

    Raises FileError, UnknownNameError or ModelError, the last for code that fails, chained to its own error.
    """
    with import_target(target) as module:
        maker = attribute_of(module, target, attribute)
        model = maker if is_model(maker) else make_model(spec, maker, num_classes, input_shape)
    if isinstance(model, nn.Module):
        put_in_eval_mode(model)
    owner = module
    if inspect.isroutine(maker) or isinstance(maker, type):  # the file that defines the factory, wherever it is named
        owner = sys.modules.get(getattr(maker, "__module__", None) or "", module)
    file = getattr(owner, "__file__", None) or getattr(module, "__file__", None)

    def call_again() -> Any:
        modules = dict(sys.modules)
        try:
            with importable(target):
                return make_model(spec, maker, num_classes, input_shape)
        finally:
            sys.modules.update(modules)  # the first model's classes stay those of its modules

    return LoadedModel(model, spec, "factory", read_model_file(Path(file)) if file else spec.encode(),
                       again=None if is_model(maker) else call_again)


def factory_sources(target: str, model: Any) -> dict[str, str]:
    """Return the SHA-256 of the local files that a model comes from, by module name (see `local_sources`): of the
    module or file `target`, of those that define the model's classes, and of what they import."""
    with importable(target):
        return local_sources([*roots(target), *modules_of(model)])


def make_model(spec: str, maker: Any, num_classes: int | None, input_shape: Shape | None) -> Any:
    """Return the model that the factory makes, called with those arguments that its signature names."""
    real = num_classes == 1  # whose estimators need no scores
    if not real and gives_no_scores(maker):
        raise ModelError(f"{spec} is a {type(maker).__name__}, which {NO_SCORES}")
    if not callable(maker):
        raise ModelError(f"{spec} is neither a model nor a function that makes one: it is of type "
                         f"{type(maker).__name__}")
    known = {"num_classes": num_classes, "input_shape": input_shape}
    arguments = known_arguments(maker, **{name: value for name, value in known.items() if value is not None})
    try:
        model = maker(**arguments)
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{name}={value}" for name, value in arguments.items())
        more = " (num_classes is the data's: where the model has more, give --classes or --num-classes)"
        raise ModelError(f"{spec} failed when called with ({given}): {type(error).__name__}: {error}; a factory takes "
                         f"no other arguments than input_shape and num_classes, and returns the model"
                         f"{more if 'num_classes' in arguments else ''}") from error
    if not real and gives_no_scores(model):
        raise ModelError(f"{spec} returns a {type(model).__name__}, which {NO_SCORES}")
    if not is_model(model) and (isinstance(model, type) or not callable(model)):
        raise ModelError(f"{spec} must return a torch module, an object with predict_proba or a callable from images "
                         f"to logits; it returned {model!r:.80} of type {type(model).__name__}")
    return model


def is_model(value: Any) -> bool:
    """Tell if a value is itself a model rather than something that makes one."""
    estimates = hasattr(value, "predict_proba") or hasattr(value, "predict")
    return isinstance(value, nn.Module) or (estimates and not isinstance(value, type))


def modules_of(network: object) -> list[tuple[str, Path]]:
    """Return (name, file) of the modules that define the classes of a model and of its parts, base classes included."""
    parts = network.modules() if isinstance(network, nn.Module) else [network]
    names = {kind.__module__ for part in parts for kind in type(part).__mro__}
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in names}
    return [(Path(file).stem if name.startswith(BY_PATH) else name, Path(file))
            for name, file in files.items() if file]
