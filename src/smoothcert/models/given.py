"""Models that are given as objects in Python: a module, a function, an estimator, or a factory of one of these."""

import hashlib
import inspect
import sys
from pathlib import Path
from typing import Any

from torch import nn

from smoothcert.errors import ModelError
from smoothcert.models.factory import is_model, make_model, modules_of
from smoothcert.models.layers import Shape
from smoothcert.models.loaded import LoadedModel
from smoothcert.parts import code_of
from smoothcert.parts.code import local_sources
from smoothcert.smoothing import SmoothedClassifier
from smoothcert.smoothing.protocols import put_in_eval_mode

_TOLD = {"num_classes", "input_shape"}
_SPAWNED = "__mp_main__"
"""The name that the main script has in a process that it started."""


def load_given(given: Any, num_classes: int | None, input_shape: Shape | None) -> LoadedModel:
    """Return the model that an object is or, for a factory, makes.

    A factory is a class, or a function all of whose required arguments are `num_classes` and `input_shape`. Any other
    callable is a base classifier itself. A module is used as it is: in the mode that its owner left it in.

    Raises ModelError for a factory that fails, or an object that is none of these.
    """
    name = label_given(given)
    if isinstance(given, SmoothedClassifier):
        raise ModelError("a SmoothedClassifier is smoothed already: give its base classifier, g.model, and its sigma; "
                         "smoothcert.certify does so by itself")
    if not is_factory(given):
        return LoadedModel(given, name, "object", b"")
    model = make_model(name, given, num_classes, input_shape)
    if isinstance(model, nn.Module):
        put_in_eval_mode(model)
    return LoadedModel(model, name, "object", b"")


def is_factory(given: Any) -> bool:
    """Tell whether an object makes a model rather than being one.

    >>> is_factory(lambda num_classes: nn.Linear(4, num_classes)), is_factory(lambda images: images.mean(dim=(2, 3)))
    (True, False)
    """
    if isinstance(given, type):
        return True
    if is_model(given) or not (inspect.isroutine(given) or hasattr(given, "func")):
        return False
    try:
        parameters = inspect.signature(given).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = {p.name for p in parameters if p.default is p.empty and p.kind not in kinds}
    return needed <= _TOLD and not any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)


def label_given(given: Any) -> str:
    """Return what stores and messages call an object: the name of the function, or of the class.

    >>> label_given(nn.Linear(1, 1)), label_given(nn.Linear)
    ('Linear', 'Linear')
    """
    return getattr(given, "__qualname__", None) or type(given).__qualname__


def given_sources(given: Any, model: Any) -> dict[str, str]:
    """Return the SHA-256 of the local files with the code of an object and of the model that it is or made, by module
    name; of a class or function in no file, as in a notebook, that of its code."""
    parts = model.modules() if isinstance(model, nn.Module) else [model]
    kinds = {kind for part in parts for kind in type(part).__mro__}
    functions = {given} if inspect.isroutine(given) else set()
    files = modules_of(model)
    file = getattr(sys.modules.get(getattr(given, "__module__", None) or ""), "__file__", None)
    if file:
        files.append((given.__module__, Path(file)))
    found = local_sources([("__main__" if name == _SPAWNED else name, path) for name, path in files])
    for owner in (*kinds, *functions):
        if owner.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
            code = b"\0".join(code_of([owner]))
            found[f"__main__.{owner.__qualname__}"] = hashlib.sha256(code).hexdigest()
    return dict(sorted(found.items()))
