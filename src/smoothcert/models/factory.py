"""Models from users' Python code: package.module:factory and path/file.py:factory."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from smoothcert.checks import suggestion
from smoothcert.errors import ModelError, UnknownNameError
from smoothcert.models.layers import Shape
from smoothcert.models.loaded import LoadedModel, read_model_file
from smoothcert.models.sources import local_files, local_sources, modules_of
from smoothcert.smoothing.protocols import NO_SCORES, gives_no_scores, put_in_eval_mode

_as_loaded: dict[str, str] = {}
"""Local modules that factories were loaded with, and the SHA-256 that their files had then."""


def load_factory(
    spec: str, target: str, attribute: str, num_classes: int | None, input_shape: Shape | None
) -> LoadedModel:
    """The model that `attribute` of `target`, a module's name or a path ending in .py, is or makes.

    A file's own folder is importable while it is imported and its factory runs; the working directory is, for a
    module. A torch module, or an instance with `predict_proba`, is taken as it is; anything else callable is called,
    with `input_shape` and `num_classes` as keywords where its signature names them and they are known.

    Raises FileError, UnknownNameError or ModelError, the last for code that fails, chained to its own error.
    """
    path = _file(target)
    with _importable(path.parent if path else Path.cwd()):
        _forget_changed()
        module = _import_file(path) if path else _import_module(target)
        if not hasattr(module, attribute):
            names = _own_names(module)
            raise UnknownNameError(f"{target} has no attribute {attribute!r}{suggestion(attribute, names)}; it "
                                   f"defines: {', '.join(names) or 'nothing that can be called'}")
        maker = getattr(module, attribute)
        model = maker if _is_model(maker) else _call(spec, maker, num_classes, input_shape)
        _as_loaded.update(local_sources(_roots(target)))
    if isinstance(model, nn.Module):
        put_in_eval_mode(model)
    return LoadedModel(model, spec, "factory", _source(maker, module, spec))


def factory_sources(target: str, model: Any) -> dict[str, str]:
    """Return the SHA-256 of the local files that a model comes from, by module name (see `local_sources`): of the
    module or file `target`, of those that define the model's classes, and of what they import."""
    path = _file(target)
    with _importable(path.parent if path else Path.cwd()):
        return local_sources([*_roots(target), *modules_of(model)])


def _file(target: str) -> Path | None:
    """The file of a target that is one, None for a module's name."""
    return Path(target).expanduser().resolve() if target.endswith(".py") else None


def _roots(target: str) -> list[tuple[str, Path]]:
    path = _file(target)
    return [(path.stem, path)] if path else local_files(target)


def _forget_changed() -> None:
    """Have local modules of earlier factories imported again where the file of one of them has changed since."""
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in _as_loaded}
    changed = [name for name, file in files.items() if file and Path(file).is_file()
               and hashlib.sha256(Path(file).read_bytes()).hexdigest() != _as_loaded[name]]
    if changed:
        for name in files:
            sys.modules.pop(name, None)
        _as_loaded.clear()


def _call(spec: str, maker: Any, num_classes: int | None, input_shape: Shape | None) -> Any:
    """What the factory makes of the arguments that it names."""
    if gives_no_scores(maker):
        raise ModelError(f"{spec} is a {type(maker).__name__}, which {NO_SCORES}")
    if not callable(maker):
        raise ModelError(f"{spec} is neither a model nor a function that makes one: it is of type "
                         f"{type(maker).__name__}")
    known = {"num_classes": num_classes, "input_shape": input_shape}
    arguments = {name: value for name, value in known.items() if value is not None and name in _keywords(maker)}
    try:
        model = maker(**arguments)
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{name}={value}" for name, value in arguments.items())
        more = " (num_classes is the data's: where the model has more, give --classes or --num-classes)"
        raise ModelError(f"{spec} failed when called with ({given}): {type(error).__name__}: {error}; a factory takes "
                         f"no arguments but input_shape and num_classes, and returns the model"
                         f"{more if 'num_classes' in arguments else ''}") from error
    if gives_no_scores(model):
        raise ModelError(f"{spec} returns a {type(model).__name__}, which {NO_SCORES}")
    if not _is_model(model) and (isinstance(model, type) or not callable(model)):
        raise ModelError(f"{spec} must return a torch module, an object with predict_proba or a callable from images "
                         f"to logits; it returned {model!r:.80} of type {type(model).__name__}")
    return model


def _is_model(value: Any) -> bool:
    """Whether a value is itself a model and not a thing that makes one."""
    return isinstance(value, nn.Module) or (hasattr(value, "predict_proba") and not isinstance(value, type))


def _keywords(maker: Any) -> set[str]:
    """The arguments that can be given by name; none where the signature cannot be read."""
    try:
        parameters = inspect.signature(maker).parameters.values()
    except (TypeError, ValueError):
        return set()
    return {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ModelError(f"the module {name} cannot be imported: {type(error).__name__}: {error}") from error


def _import_file(path: Path) -> ModuleType:
    """Run a file as a module under a name of its own, made from its path and content."""
    content = read_model_file(path)
    name = "_smoothcert_model_" + hashlib.sha256(bytes(path) + content).hexdigest()[:16]
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise ModelError(f"{path} cannot be imported as a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ModelError(f"importing {path} failed: {type(error).__name__}: {error}") from error
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Put a folder first on the import path, and take it off again.

    A module that an earlier load left under the name of one in this folder gives way to it; what already holds
    the earlier one keeps it.
    """
    for path in folder.glob("*"):
        if path.suffix == ".py" or (path / "__init__.py").is_file():
            _make_way(path.stem, folder)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _make_way(name: str, folder: Path) -> None:
    """Forget a top-level module that came from a folder which is no longer on the import path."""
    left = sys.modules.get(name)
    if name == "__main__" or left is None or _root(left) in (None, str(folder), *sys.path):
        return
    for loaded in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
        del sys.modules[loaded]


def _root(module: ModuleType) -> str | None:
    """The folder on the import path that a top-level module or package came from; None for a built-in one."""
    file = getattr(module, "__file__", None)
    if file is None:
        return None
    return str(Path(file).parent.parent if hasattr(module, "__path__") else Path(file).parent)


def _own_names(module: ModuleType) -> list[str]:
    """What a module itself defines and a spec could mean."""
    return [name for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
            and (callable(value) or _is_model(value))]


def _source(maker: Any, module: ModuleType, spec: str) -> bytes:
    """The file that defines the factory, else that of the module named; the spec where there is no file."""
    owner = sys.modules.get(getattr(maker, "__module__", None) or "", module) if _is_code(maker) else module
    file = getattr(owner, "__file__", None) or getattr(module, "__file__", None)
    return read_model_file(Path(file)) if file else spec.encode()


def _is_code(maker: Any) -> bool:
    return inspect.isroutine(maker) or isinstance(maker, type)
