"""Users' own Python code, package.module:NAME and path/file.py:NAME: imported by name, and told by its sources."""

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from smoothcert.checks import suggestion
from smoothcert.errors import CodeError, FileError, UnknownNameError
from smoothcert.limits import CODE_BYTES, bounded_bytes

BY_PATH = "_smoothcert_model_"
"""Beginning of the name under which a file is imported by its path."""

_SPEC = re.compile(r"(.+\.py|[^\W\d]\w*(\.[^\W\d]\w*)*):[^\W\d]\w*")
_LIBRARIES = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_OURS = Path(__file__).resolve().parents[1]

_as_loaded: dict[str, str] = {}
"""Local modules that were imported with users' code, and the SHA-256 that their files had then."""


def names_code(spec: Any) -> bool:
    """Tell whether a text has the form package.module:NAME or path/file.py:NAME."""
    return isinstance(spec, str) and _SPEC.fullmatch(spec) is not None


@contextmanager
def import_target(target: str) -> Iterator[ModuleType]:
    """Import a module by name, or a file by a path that ends in .py, and give it.

    Meanwhile the file's own folder, or the working directory for a module, is importable. Local modules whose files
    have changed since an earlier import are imported again.

    Raises FileError for a file that is not there, and CodeError for code that fails, chained to its own error.
    """
    path = _file(target)
    with importable(target):
        _drop_stale_modules()
        if path:
            module = _import_file(path)
        else:
            try:
                module = importlib.import_module(target)
            except (Exception, SystemExit) as error:
                raise CodeError(f"the module {target} cannot be imported: {type(error).__name__}: {error}") from error
        yield module
        _as_loaded.update(local_sources(roots(target)))


def attribute_of(module: ModuleType, target: str, name: str) -> Any:
    """Return a module's attribute. Raises UnknownNameError, which lists what could have been meant."""
    if hasattr(module, name):
        return getattr(module, name)
    names = [own for own, value in vars(module).items() if not own.startswith("_")
             and getattr(value, "__module__", None) == module.__name__]
    raise UnknownNameError(f"{target} has no attribute {name!r}{suggestion(name, names)}; it defines: "
                           f"{', '.join(names) or 'nothing that can be called'}")


def known_arguments(maker: Callable[..., Any], **known: Any) -> dict[str, Any]:
    """Return those of the known arguments that the signature of a function or class names."""
    try:
        parameters = inspect.signature(maker).parameters.values()
    except (TypeError, ValueError):  # a signature that cannot be read
        return {}
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {name: value for name, value in known.items() if name in named}


@contextmanager
def importable(target: str) -> Iterator[None]:
    """Put the folder of a file, or the working directory for a module, first on the import path, and take it off again.

    A module that an earlier load left under the name of one in this folder is dropped; objects that hold it keep it.
    """
    path = _file(target)
    folder = path.parent if path else Path.cwd()
    for other in folder.glob("*"):
        if other.suffix == ".py" or (other / "__init__.py").is_file():
            _drop_module(other.stem, folder)
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


def is_local_file(file: str | Path) -> bool:
    """Tell whether code is a user's own: neither the standard library's, nor an installed package's, nor smoothcert's.
    """
    path = Path(file).resolve()
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return not installed and not any(path.is_relative_to(folder) for folder in (*_LIBRARIES, _OURS))


def is_local(owner: Any) -> bool:
    """Tell whether a class or function is defined in a user's own code."""
    name = getattr(owner, "__module__", None) or ""
    file = getattr(sys.modules.get(name), "__file__", None)
    return is_local_file(file) if file else name == "__main__"


def _file(target: str) -> Path | None:
    """Return the file of a target that is a path, None for a module's name."""
    return Path(target).expanduser().resolve() if target.endswith(".py") else None


def roots(target: str) -> list[tuple[str, Path]]:
    """Return (name, file) of a target, and of the packages that a module is in."""
    path = _file(target)
    return [(path.stem, path)] if path else local_files(target)


def file_of(module: Any) -> Path | None:
    """Return the source file of a loaded module, None where it has none, as in a notebook."""
    file = getattr(module, "__file__", None)
    return Path(file) if file and Path(file).is_file() else None


def read_code(path: Path) -> bytes:
    """Return the bytes of a file of code. Raises FileError, naming it, if it is missing, unreadable or too long."""
    if not path.is_file():
        raise FileError(f"there is no file {path}")
    return bounded_bytes(path, CODE_BYTES)


def _import_file(path: Path) -> ModuleType:
    """Run a file as a module under a name of its own, made from its path and content."""
    content = read_code(path)
    name = BY_PATH + hashlib.sha256(bytes(path) + content).hexdigest()[:16]
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise CodeError(f"{path} cannot be imported as a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise CodeError(f"importing {path} failed: {type(error).__name__}: {error}") from error
    return module


def _drop_stale_modules() -> None:
    """Make Python import the local modules of earlier factories again if the file of one has changed since."""
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in _as_loaded}
    changed = [name for name, file in files.items() if file and Path(file).is_file()
               and hashlib.sha256(Path(file).read_bytes()).hexdigest() != _as_loaded[name]]
    if changed:
        for name in files:
            sys.modules.pop(name, None)
        _as_loaded.clear()


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
