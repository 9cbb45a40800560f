"""Attacked images beside a store: one file for each part of its list and setting, and a listing with their hashes.

    adversaries/002-00000.safetensors   `images` float32 (B, *shape) and `index` int64 (B,): setting 2, part 0
    adversaries.json                    what each file holds, and its SHA-256; written when all are there
"""

import platform
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from smoothcert.config.sampling import ATTACKED
from smoothcert.errors import FileError, InputError, StoreError
from smoothcert.io.files import make_folder, read_json, sha256, write_json, write_whole
from smoothcert.io.paths import Place
from smoothcert.limits import path_inside
from smoothcert.store.manifest import NAME as MANIFEST
from smoothcert.store.manifest import is_store, read_manifest

LISTING = "adversaries.json"


def save_adversaries(folder: Place, name: str, index: np.ndarray, images: np.ndarray) -> None:
    """Write one file of a store, whole; the same images give the same bytes."""
    if not is_store(folder):
        raise StoreError(f"{platform.node()} does not see {folder}: with --save-adversaries the workers write there "
                         f"too: give -o in a folder that all machines share, or in an object storage")
    make_folder(folder / "adversaries")
    content = {"images": np.ascontiguousarray(images, dtype=np.float32), "index": np.asarray(index, dtype=np.int64)}
    write_whole(folder / "adversaries" / f"{name}.safetensors", lambda path: save_file(content, path))


def list_adversaries(folder: Place, files: dict[str, dict[str, Any]]) -> None:
    """Write the listing of `files`, name -> setting, of a finished store.

    Raises:
        StoreError: a file is missing.
    """
    entries = []
    for name, setting in files.items():
        path = folder / "adversaries" / f"{name}.safetensors"
        if not path.is_file():
            raise StoreError(f"{path} is missing, though its records are there: attack again into another folder")
        entries.append({"file": path.name, **setting, "sha256": sha256(path)})
    write_json(folder / LISTING, entries)


def read_adversaries(folder: Place, **setting: Any) -> tuple[np.ndarray, np.ndarray]:
    """The attacked images of one setting of a finished store.

    Args:
        setting: `eps` (or `times`), `m` and `steps`; what is left out must be the same in the whole store.
    Returns:
        Indices (M,) of the images in their data set, and the attacked inputs (M, *shape), float32.
    Raises:
        InputError: no or several such settings. FileError: no listing. StoreError: a missing or changed file.
    """
    listed = read_listing(folder)
    entries = [entry for entry in listed if all(entry.get(name) == value for name, value in setting.items())]
    found = {tuple(entry[name] for name in ATTACKED if name in entry): entry for entry in entries}
    if len(found) != 1:
        held = {tuple((name, e[name]) for name in ATTACKED if name in e) for e in listed}
        raise InputError(f"{setting} names {len(found)} settings; the store has "
                         + "; ".join(", ".join(f"{name} {value:g}" for name, value in one) for one in sorted(held)))
    parts = [_read(folder / "adversaries", entry["file"], entry["sha256"]) for entry in entries]
    return np.concatenate([part["index"] for part in parts]), np.concatenate([part["images"] for part in parts])


def list_store_files(folder: Place) -> list[str]:
    """Return the names of the files of a finished store, the manifest first: all that its run wrote to be kept, and
    nothing that says where it was made.

    Raises:
        FileError, StoreError: no store, a damaged one, or one that is not finished.
    """
    manifest = read_manifest(folder)
    if not manifest.complete:
        raise StoreError(f"{folder} is not finished: the same command finishes its run")
    found = [MANIFEST, *(entry.name for entry in manifest.shards)]
    found += [name for name in ("times.jsonl", LISTING) if (folder / name).is_file()]
    kept = read_listing(folder) if LISTING in found else []
    return [*found, *sorted(f"adversaries/{entry['file']}" for entry in kept)]


def read_listing(folder: Place) -> list[dict[str, Any]]:
    """Return the entries of the listing: names that stay in the folder, hashes, and settings that are numbers.

    Raises FileError where there is none, StoreError where it is none.
    """
    if not (folder / LISTING).is_file():
        raise FileError(f"{folder} keeps no attacked images: attack with --save-adversaries, and let the run finish")
    entries = read_json(folder / LISTING)
    if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and isinstance(entry.get("sha256"), str)
            and re.fullmatch(r"\d{3}-\d{5}\.safetensors", str(entry.get("file"))) is not None
            and all(isinstance(entry.get(name, 0), int | float) for name in ATTACKED) for entry in entries):
        raise StoreError(f"{folder / LISTING} is not a listing of attacked images")
    return entries


def _read(folder: Place, name: str, digest: str) -> dict[str, np.ndarray]:
    path = path_inside(folder, name) if isinstance(folder, Path) else folder / name
    if not path.is_file() or sha256(path) != digest:
        raise StoreError(f"{path} is missing or has changed since it was written")
    try:
        found = load(path.read_bytes())
    except (SafetensorError, ValueError, KeyError) as error:
        raise StoreError(f"{path} is corrupt: {error}") from None
    shapes = {key: value.shape for key, value in found.items()}
    if set(shapes) != {"images", "index"} or len(shapes["images"]) < 2 or shapes["index"] != shapes["images"][:1]:
        raise StoreError(f"{path} holds no attacked images and their indices")
    return found
