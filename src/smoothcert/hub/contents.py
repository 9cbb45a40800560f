"""The files that a repository may hold: which are sent, which are taken, and how large they may be."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from smoothcert.classifiers.card import INTEGER, is_model_dir, read_card
from smoothcert.classifiers.folder import last_checkpoint
from smoothcert.errors import FileError, HubError, StoreError
from smoothcert.io.paths import CERTIFICATES
from smoothcert.limits import HUB_BYTES, HUB_FILES, JSON_BYTES, LOG_BYTES, YAML_BYTES, path_inside, within
from smoothcert.store.adversaries import list_store_files
from smoothcert.store.manifest import NAME as MANIFEST
from smoothcert.store.manifest import is_store

Kind = Literal["model", "dataset"]
"""Of a repository: a model directory's, or a store's."""

README = "README.md"

_WEIGHTS = r"model\.json|best\.safetensors"
_INTEGER = re.escape(INTEGER)
_RECORDS = r"manifest\.json|shard-\d{5,}\.parquet|times\.jsonl|adversaries\.json|adversaries/\d{3}-\d{5}\.safetensors"
_LAST = r"checkpoints/\d{4,}/weights\.safetensors"
_EXPECTED: dict[Kind, re.Pattern[str]] = {
    "model": re.compile(rf"README\.md|{_WEIGHTS}|{_INTEGER}|metrics\.jsonl|denoiser/(?:{_WEIGHTS})|{_LAST}"
                        rf"|{CERTIFICATES}/(?:{_RECORDS})"),
    "dataset": re.compile(rf"README\.md|{_RECORDS}"),
}
_MARKER: dict[Kind, str] = {"model": "model.json", "dataset": MANIFEST}
_LARGEST = {".json": JSON_BYTES, ".jsonl": JSON_BYTES, ".parquet": LOG_BYTES, ".md": YAML_BYTES}
"""Bytes of a file by its ending; weights are bounded by the whole."""


@dataclass(frozen=True)
class Contents:
    """The kind of a repository, and the files that are sent to it, by their names there."""

    kind: Kind
    files: Mapping[str, Path]


def gather_contents(folder: Path, certificates: Path | None = None, checkpoints: bool = False) -> Contents:
    """Return what is sent of a folder: only files that smoothcert writes and that say nothing of the machine.

    Args:
        certificates: the store to go with a model; None takes the one in its folder, where there is one.
        checkpoints: also take the weights of the last epoch.
    Raises:
        FileError: the folder is missing, or neither a model directory nor a store; nothing was trained. StoreError: an
        unfinished store, or a store of certificates beside a store.
    """
    if not folder.is_dir():
        raise FileError(f"there is no folder {folder}: give a model directory or a store")
    if is_store(folder):
        if certificates is not None or checkpoints:
            raise StoreError(f"{folder} is a store: certificates and checkpoints go with a model directory")
        return Contents("dataset", _files_of_store(folder))
    if not is_model_dir(folder):
        raise FileError(f"{folder} is neither a model directory (model.json) nor a store ({MANIFEST})")
    card = read_card(folder)
    weights = "best.safetensors" if card.quantised is None else INTEGER
    found = [name for name in ("model.json", weights, "metrics.jsonl") if (folder / name).is_file()]
    if card.kind == "classifier" and card.denoiser is not None:
        found += ["denoiser/model.json", "denoiser/best.safetensors"]
    if checkpoints:
        found.append(str(last_checkpoint(folder).relative_to(folder) / "weights.safetensors"))
    files = {name: path_inside(folder, name) for name in found}
    if missing := [name for name in (*found, weights) if not (folder / name).is_file()]:
        raise FileError(f"{folder} has no {missing[0]}: was the model trained to the end of an epoch?")
    store = folder / CERTIFICATES if certificates is None else certificates
    if certificates is not None or is_store(store):
        files |= {f"{CERTIFICATES}/{name}": path for name, path in _files_of_store(store).items()}
    return Contents("model", files)


def _files_of_store(folder: Path) -> dict[str, Path]:
    """Return the files of a finished store by their names in it."""
    return {name: path_inside(folder, name) for name in list_store_files(folder)}


def kind_of_files(names: Iterable[str], repo: str) -> Kind:
    """Return what the files of a repository are. Raises HubError where they are neither."""
    held = set(names)
    for kind in ("model", "dataset"):
        if _MARKER[kind] in held:
            return kind
    raise HubError(f"{repo} is neither a model directory of smoothcert (model.json) nor a store ({MANIFEST})")


def is_expected(kind: Kind, name: str) -> bool:
    """Tell whether a file belongs into a repository."""
    return _EXPECTED[kind].fullmatch(name) is not None


def check_sizes(sizes: Mapping[str, int | None], repo: str) -> None:
    """Raise FileError, before anything is loaded, where files are more or larger than what smoothcert writes."""
    advice = "smoothcert wrote nothing like it"
    within(f"the number of files of {repo}", len(sizes), HUB_FILES, advice)
    for name, size in sizes.items():
        within(f"the size of {name} of {repo} in bytes", size or 0, _LARGEST.get(Path(name).suffix, HUB_BYTES), advice)
    within(f"the size of {repo} in bytes", sum(size or 0 for size in sizes.values()), HUB_BYTES, advice)
