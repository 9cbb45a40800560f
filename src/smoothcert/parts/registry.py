"""The parts of one kind by name, and what tells apart two parts of one name.

A part is an objective, an attack, a noise, a denoiser, a network, a data set or a kind of picture. Its name is one of
smoothcert's own, one that an installed package registers as an entry point, or the place of a user's own code,
package.module:NAME or path/file.py:NAME. In Python the part itself can be given in place of its name.
"""

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from smoothcert.checks import check_known
from smoothcert.errors import CodeError, FileError, InputError
from smoothcert.parts.code import attribute_of, file_of, import_target, importable, local_sources, names_code, roots

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


@dataclass(frozen=True)
class Origin:
    """A registered name, the package that it comes from, and the first paragraph of what the part says of itself.

    `problem` says why the part cannot be used, where it cannot.
    """

    kind: str
    name: str
    package: str
    words: str = ""
    problem: str = ""


class Registry(Mapping[str, T], Generic[T]):
    """The parts of one kind: a mapping from the registered names, whose items can also be asked for by a place of code.

    Args:
        kind: what a part is called in messages, such as "objective".
        group: the group of entry points by which packages register parts, such as "smoothcert.objectives".
        own: smoothcert's own parts.
        check: a function of a part that returns what it lacks, as texts; an empty list where it keeps its protocol.
    """

    def __init__(self, kind: str, group: str, own: Mapping[str, T], check: Callable[[Any], list[str]]) -> None:
        self.kind, self.group = kind, group
        self._own, self._check = own, check
        self._given: dict[str, Any] = {}

    @property
    def own_names(self) -> tuple[str, ...]:
        """The names of smoothcert's own parts; to list them reads no package's entry points."""
        return tuple(self._own)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._own, *(entry.name for entry in self._entries())]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        """Tell whether a name is registered. Nothing is imported."""
        return name in self._own or any(entry.name == name for entry in self._entries())

    def __getitem__(self, name: str) -> T:
        """Return a part by its name.

        Raises:
            UnknownNameError: no such name. CodeError: code that cannot be imported. InputError: a part that does not
            keep its protocol, with all that it lacks; or a name that several packages register.
        """
        if name in self._own:
            return self._own[name]
        return self.accept(_load_code(name) if names_code(name) else self._load_entry(name), name)

    def registered(self, name: Any) -> T:
        """Return a part by a registered name, and never run code that the name is the place of.

        Raises UnknownNameError: no such name; or what `__getitem__` raises for a part of a package.
        """
        return self[name] if name in self._own else self[check_known(self.kind, name, self)]

    def accept(self, part: Any, name: str) -> T:
        """Return a part that is not smoothcert's own. Raises InputError, with all that it lacks, if it lacks any."""
        if lacking := self._check(part):
            raise InputError(f"{self.kind} {name} cannot be used: " + "; ".join(lacking))
        return part

    def find(self, part: Any) -> T:
        """Return the part that is named, or given as an object. Raises what `__getitem__` raises."""
        found = self[part] if isinstance(part, str) else self.accept(part, self.label(part))
        self._given[self.label(part)] = part
        return found

    def given(self, label: str) -> Any:
        """Return the part that was found in this process and has this label; None where there was none.

        A store's label of a user's own code thus leads to code that the user named, and to no other.
        """
        return self._given.get(label)

    def check_name(self, part: Any) -> Any:
        """Return a name or an object unchanged, or raise what `find` raises. A known name imports nothing."""
        if not self.is_own(part):
            self.find(part)
        return part

    def is_own(self, part: Any) -> bool:
        """Tell whether a part is one of smoothcert's own, by name."""
        return isinstance(part, str) and part in self._own

    def label(self, part: Any) -> str:
        """Return what a store calls a part: its registered name, or the place of its code without the folders.

        >>> Registry("objective", "smoothcert.objectives", {}, lambda part: []).label("~/losses.py:Mine")
        'losses.py:Mine'
        """
        if not isinstance(part, str):
            kind = part if isinstance(part, type) or inspect.isroutine(part) else type(part)
            return f"{kind.__module__}:{kind.__qualname__}"
        target, colon, name = part.rpartition(":")
        return f"{Path(target).name}:{name}" if colon and target.endswith(".py") else part

    def sources(self, part: Any) -> dict[str, str]:
        """Return the SHA-256 of the files that a part comes from, by module; none for smoothcert's own.

        These are the file that defines it, installed or not, and every local file that it imports.
        """
        if self.is_own(part):
            return {}
        if not isinstance(part, str):
            return _sources_of(part)
        if names_code(part):
            target = part.rpartition(":")[0]
            with importable(target):
                return local_sources(roots(target)) or _sources_of(self[part])
        return _sources_of(self[part])

    def identify(self, part: Any) -> dict[str, Any]:
        """Return {"sources": ...} for a part that is not smoothcert's own, an empty mapping for one that is."""
        return {} if self.is_own(part) else {"sources": self.sources(part)}

    def origins(self) -> Iterator[Origin]:
        """Yield where each registered part comes from, smoothcert's own first."""
        for name, part in self._own.items():
            yield Origin(self.kind, name, "smoothcert", _first_words(part))
        for entry in self._entries():
            package = _package(entry)
            try:
                yield Origin(self.kind, entry.name, package, _first_words(self[entry.name]))
            except InputError as error:
                yield Origin(self.kind, entry.name, package, problem=str(error))

    def _entries(self) -> "list[EntryPoint]":
        from importlib import metadata  # brings the reader of mails and archives, which own names do without

        found = set(metadata.entry_points(group=self.group))
        return sorted(found, key=lambda entry: (entry.name, entry.value))

    def _load_entry(self, name: str) -> Any:
        found = [entry for entry in self._entries() if entry.name == name]
        if not found:
            own_code = ", or a part of your own as file.py:NAME or package.module:NAME"
            try:
                check_known(self.kind, name, self)
            except InputError as error:
                raise type(error)(f"{error}{own_code}") from None
        if len(found) > 1:
            raise InputError(f"{self.kind} {name} is registered by several packages: give one of "
                             f"{', '.join(entry.value for entry in found)}")
        try:
            return found[0].load()
        except (Exception, SystemExit) as error:
            raise CodeError(f"{self.kind} {name} of the package {_package(found[0])} cannot be imported: "
                            f"{type(error).__name__}: {error}") from error


def missing_members(part: Any, names: Iterable[str], advice: str = "") -> list[str]:
    """Return what a part lacks of the attributes and methods of its protocol, as a list of at most one text."""
    lacking = [name for name in names if not hasattr(part, name)]
    return [f"it has no {', '.join(lacking)}{f' ({advice})' if advice else ''}"] if lacking else []


def _load_code(spec: str) -> Any:
    target, _, name = spec.rpartition(":")
    try:
        with import_target(target) as module:
            return attribute_of(module, target, name)
    except FileError as error:
        raise CodeError(str(error)) from None


def _package(entry: "EntryPoint") -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"


def _first_words(part: Any) -> str:
    words = getattr(part, "words", None) or inspect.getdoc(getattr(part, "func", part)) or ""
    return " ".join(words.strip().partition("\n\n")[0].split())


def _sources_of(part: Any) -> dict[str, str]:
    """Return the SHA-256 of the files of an object: those that define its class and the classes below it, and local
    files that these import; the hash of its code where it is in no file, as in a notebook."""
    kinds = part.__mro__ if isinstance(part, type) else [part] if inspect.isroutine(part) else type(part).__mro__
    modules = {kind.__module__: file for kind in kinds if (file := _file_of_module(kind.__module__))}
    found = local_sources(modules.items())
    for name, file in modules.items():
        found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    if not found:
        found = {"code": hashlib.sha256(b"\0".join(code_of(kinds))).hexdigest()}
    return dict(sorted(found.items()))


def _file_of_module(name: str) -> Path | None:
    """Return the file of a module that is neither smoothcert's nor the standard library's."""
    if name.partition(".")[0] in ("smoothcert", "torch", *sys.stdlib_module_names) and name != "__main__":
        return None
    return file_of(sys.modules.get(name))


def code_of(kinds: Iterable[Any]) -> Iterator[bytes]:
    """Yield the compiled code of functions, and of the methods of classes."""
    for kind in kinds:
        for name, value in (vars(kind) if isinstance(kind, type) else {kind.__name__: kind}).items():
            code = getattr(value, "__code__", None)
            if code is not None:
                yield f"{kind.__qualname__}.{name} {code.co_names} {code.co_varnames}".encode() + code.co_code
