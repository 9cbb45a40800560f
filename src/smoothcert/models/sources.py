"""Sources that a user's model comes from: the files of its factory and of its classes, and what those import."""

import ast
import hashlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import nn

from smoothcert.smoothing.content import is_local_file


def local_sources(modules: Iterable[tuple[str, Path]]) -> dict[str, str]:
    """Return the SHA-256 of the given files and of every local one that they import, directly or not, by module name.

    Local is what belongs neither to the standard library nor to an installed package: their versions stand in a
    store's provenance. Imports are read off the files, those within functions too; of `importlib.import_module` those
    with a literal name. Nothing is imported. Modules are looked for on the import path as it is now.

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
    return [(_told(name, Path(file)), Path(file)) for name, file in files.items() if file]


def _told(name: str, path: Path) -> str:
    """The name of a module; of a file that was imported by its path, its own."""
    return path.stem if name.startswith("_smoothcert_model_") else name


def _imports(content: bytes, package: str) -> Iterator[str]:
    """The names that a source may import, from which those that are modules are found; none of what is no source."""
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
    """(name, file) of a dotted name's module and of the packages that hold it, as far as they exist and are local."""
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
    """Where a module lies: the loaded one's place, else the first on the path of the package that holds it."""
    if not name or name in sys.builtin_module_names:
        return None
    try:
        if path is None:
            return importlib.util.find_spec(name)
        return importlib.machinery.PathFinder.find_spec(name, list(path))
    except (ImportError, ValueError, AttributeError):  # a loaded module without a spec
        return None
