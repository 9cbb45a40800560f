"""Models from users' Python code, package.module:factory and path/file.py:factory, and the files that it is in."""

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from smoothcert.checks import suggestion
from smoothcert.errors import ModelError, UnknownNameError
from smoothcert.models.layers import Shape
from smoothcert.models.loaded import LoadedModel, read_model_file
from smoothcert.smoothing.content import is_local_file
from smoothcert.smoothing.protocols import NO_SCORES, gives_no_scores, put_in_eval_mode

_BY_PATH = "_smoothcert_model_"
"""Beginning of the name under which a file is imported by its path."""

_as_loaded: dict[str, str] = {}
"""Local modules that factories were loaded with, and the SHA-256 that their files had then."""


def load_factory(
    spec: str, target: str, attribute: str, num_classes: int | None, input_shape: Shape | None
) -> LoadedModel:
    """Return the model that `attribute` of `target`, a module's name or a path ending in .py, is or makes.

    While the code is imported and its factory runs, the file's own folder is importable, or the working directory for a
    module. A torch module, or an instance with `predict_proba`, is taken as it is; anything else callable is called,
    with those of `input_shape` and `num_classes` that are known and that its signature names.

    Raises FileError, UnknownNameError or ModelError, the last for code that fails, chained to its own error.
    """
    path = _file(target)
    with _importable(path.parent if path else Path.cwd()):
        _drop_stale_modules()
        if path:
            module = _import_file(path)
        else:
            try:
                module = importlib.import_module(target)
            except (Exception, SystemExit) as error:
                raise ModelError(f"the module {target} cannot be imported: {type(error).__name__}: {error}") from error
        if not hasattr(module, attribute):
            names = [name for name, value in vars(module).items()
                     if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
                     and (callable(value) or _is_model(value))]
            raise UnknownNameError(f"{target} has no attribute {attribute!r}{suggestion(attribute, names)}; it "
                                   f"defines: {', '.join(names) or 'nothing that can be called'}")
        maker = getattr(module, attribute)
        model = maker if _is_model(maker) else _call(spec, maker, num_classes, input_shape)
        _as_loaded.update(local_sources(_roots(target)))
    if isinstance(model, nn.Module):
        put_in_eval_mode(model)
    owner = module
    if inspect.isroutine(maker) or isinstance(maker, type):  # the file that defines the factory, wherever it is named
        owner = sys.modules.get(getattr(maker, "__module__", None) or "", module)
    file = getattr(owner, "__file__", None) or getattr(module, "__file__", None)

    def call_again() -> Any:
        modules = dict(sys.modules)
        try:
            with _importable(path.parent if path else Path.cwd()):
                return _call(spec, maker, num_classes, input_shape)
        finally:
            sys.modules.update(modules)  # the first model's classes stay those of its modules

    return LoadedModel(model, spec, "factory", read_model_file(Path(file)) if file else spec.encode(),
                       again=None if _is_model(maker) else call_again)


def factory_sources(target: str, model: Any) -> dict[str, str]:
    """Return the SHA-256 of the local files that a model comes from, by module name (see `local_sources`): of the
    module or file `target`, of those that define the model's classes, and of what they import."""
    path = _file(target)
    with _importable(path.parent if path else Path.cwd()):
        return local_sources([*_roots(target), *modules_of(model)])


def _file(target: str) -> Path | None:
    """Return the file of a target that is a path, None for a module's name."""
    return Path(target).expanduser().resolve() if target.endswith(".py") else None


def _roots(target: str) -> list[tuple[str, Path]]:
    path = _file(target)
    return [(path.stem, path)] if path else local_files(target)


def _drop_stale_modules() -> None:
    """Make Python import the local modules of earlier factories again if the file of one has changed since."""
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in _as_loaded}
    changed = [name for name, file in files.items() if file and Path(file).is_file()
               and hashlib.sha256(Path(file).read_bytes()).hexdigest() != _as_loaded[name]]
    if changed:
        for name in files:
            sys.modules.pop(name, None)
        _as_loaded.clear()


def _call(spec: str, maker: Any, num_classes: int | None, input_shape: Shape | None) -> Any:
    """Return the model that the factory makes, called with those arguments that its signature names."""
    if gives_no_scores(maker):
        raise ModelError(f"{spec} is a {type(maker).__name__}, which {NO_SCORES}")
    if not callable(maker):
        raise ModelError(f"{spec} is neither a model nor a function that makes one: it is of type "
                         f"{type(maker).__name__}")
    try:
        parameters = inspect.signature(maker).parameters.values()
    except (TypeError, ValueError):  # a signature that cannot be read
        parameters = ()
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    known = {"num_classes": num_classes, "input_shape": input_shape}
    arguments = {name: value for name, value in known.items() if value is not None and name in named}
    try:
        model = maker(**arguments)
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{name}={value}" for name, value in arguments.items())
        more = " (num_classes is the data's: where the model has more, give --classes or --num-classes)"
        raise ModelError(f"{spec} failed when called with ({given}): {type(error).__name__}: {error}; a factory takes "
                         f"no other arguments than input_shape and num_classes, and returns the model"
                         f"{more if 'num_classes' in arguments else ''}") from error
    if gives_no_scores(model):
        raise ModelError(f"{spec} returns a {type(model).__name__}, which {NO_SCORES}")
    if not _is_model(model) and (isinstance(model, type) or not callable(model)):
        raise ModelError(f"{spec} must return a torch module, an object with predict_proba or a callable from images "
                         f"to logits; it returned {model!r:.80} of type {type(model).__name__}")
    return model


def _is_model(value: Any) -> bool:
    """Tell if a value is itself a model rather than something that makes one."""
    return isinstance(value, nn.Module) or (hasattr(value, "predict_proba") and not isinstance(value, type))


def _import_file(path: Path) -> ModuleType:
    """Run a file as a module under a name of its own, made from its path and content."""
    content = read_model_file(path)
    name = _BY_PATH + hashlib.sha256(bytes(path) + content).hexdigest()[:16]
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

    A module that an earlier load left under the name of one in this folder is dropped; objects that hold it keep it.
    """
    for path in folder.glob("*"):
        if path.suffix == ".py" or (path / "__init__.py").is_file():
            _drop_module(path.stem, folder)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _drop_module(name: str, folder: Path) -> None:
    """Drop a top-level module that came from a folder which is no longer on the import path."""
    left = sys.modules.get(name)
    file = getattr(left, "__file__", None)
    if name == "__main__" or left is None or file is None:
        return
    root = Path(file).parent.parent if hasattr(left, "__path__") else Path(file).parent
    if str(root) in (str(folder), *sys.path):
        return
    for loaded in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
        del sys.modules[loaded]


def local_sources(modules: Iterable[tuple[str, Path]]) -> dict[str, str]:
    """Return the SHA-256 of the given files and of every local one that they import, directly or not, by module name.

    A file is local if it belongs neither to the standard library nor to an installed package, whose versions are in a
    store's provenance. Imports are read from the files, those within functions and those by `importlib.import_module`
    with a literal name included. Nothing is imported. Modules are looked for on the import path as it is now.

    Args:
        modules: (name, file) of the modules to start from. Those that are not local are left out.
    """
    found: dict[str, str] = {}
    waiting = [(name, path) for name, path in modules if is_local_file(path)]
    while waiting:
        name, path = waiting.pop()
        if name in found or not path.is_file():
            continue
        content = path.read_bytes()
        found[name] = hashlib.sha256(content).hexdigest()
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for imported in _imports(content, package):
            waiting += local_files(imported)
    return dict(sorted(found.items()))


def modules_of(network: object) -> list[tuple[str, Path]]:
    """Return (name, file) of the modules that define the classes of a model and of its parts, base classes included."""
    parts = network.modules() if isinstance(network, nn.Module) else [network]
    names = {kind.__module__ for part in parts for kind in type(part).__mro__}
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in names}
    return [(Path(file).stem if name.startswith(_BY_PATH) else name, Path(file))
            for name, file in files.items() if file]


def _imports(content: bytes, package: str) -> Iterator[str]:
    """Yield the names that a source may import, modules or not; none if it cannot be parsed."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*filter(None, parents), *([node.module] if node.module else [])])
            yield source
            yield from (f"{source}.{alias.name}" if source else alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value


def local_files(name: str) -> list[tuple[str, Path]]:
    """Return (name, file) of a dotted name's module and of its packages, as far as they exist and are local."""
    found: list[tuple[str, Path]] = []
    parts, path = name.split("."), None
    for k in range(len(parts)):
        spec = _spec(".".join(parts[: k + 1]), path)
        if spec is None or (spec.origin is None and spec.submodule_search_locations is None):
            break
        if spec.origin and spec.has_location:
            if not is_local_file(spec.origin):
                break
            found.append((spec.name, Path(spec.origin)))
        path = spec.submodule_search_locations
        if path is None:
            break
    return found


def _spec(name: str, path: Iterable[str] | None) -> importlib.machinery.ModuleSpec | None:
    """Return the place of a module: that of the loaded one, else the first on the path of its package."""
    if not name or name in sys.builtin_module_names:
        return None
    try:
        if path is None:
            return importlib.util.find_spec(name)
        return importlib.machinery.PathFinder.find_spec(name, list(path))
    except (ImportError, ValueError, AttributeError):  # a loaded module without a spec
        return None
