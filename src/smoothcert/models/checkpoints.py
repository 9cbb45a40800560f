"""Files of weights, as torch.save and safetensors write them, read without running anything in them.

A file is a tree of mappings, and the mappings in it that hold tensors are its entries: the state dict of a network, its
moving average, those of an optimiser. Which entry a network takes, and under which prefix, `matching` finds.
"""

import argparse
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from smoothcert.checks import one_line
from smoothcert.errors import FileError, ModelError, first_line
from smoothcert.limits import check_unpacked_size

State = dict[str, Tensor]
"""Tensors by name."""

_DEPTH = 8  # of mappings within mappings
_TREES = (Mapping, list, tuple)
_GLOBAL = re.compile(r"GLOBAL (\S+)")
_LAYERS = "torch.nn.modules."


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The tensors of a file.

    Attributes:
        entries: its state dicts, by the dotted path of keys that leads to each; "" is the file itself.
        architecture: the name that the file gives its network (`arch`), if any.
    """

    path: Path
    entries: dict[str, State]
    architecture: str | None = None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of weights.

    Raises:
        FileError: it is missing, damaged or not such a file. ModelError: reading it could run code.
    """
    if not path.is_file():
        raise FileError(f"there is no file of weights {path}")
    content = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_pickle(path)
    entries = dict(_find_entries("", content, _DEPTH))
    if not entries:
        what = "no tensors" if isinstance(content, _TREES) else f"one {type(content).__name__}"
        raise FileError(f"{path} holds {what}, where the weights of a network were expected: a mapping of names to "
                        f"tensors, as torch.save(network.state_dict(), FILE) writes it")
    settings = content if isinstance(content, Mapping) else {}
    named = next((settings[key] for key in ("arch", "architecture") if isinstance(settings.get(key), str)), None)
    return Checkpoint(path, entries, None if named is None else one_line(named)[:100])


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(f"the weights {path} are corrupt: {error}") from None


def _read_pickle(path: Path) -> Any:
    """Return what torch.save wrote: containers, numbers, texts and tensors, and plain settings and NumPy arrays."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_unpacked_size(path, path.stat().st_size, sum(part.file_size for part in archive.infolist()))
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, weights_only=True, map_location="cpu")
    except FileError:
        raise
    except Exception as error:  # torch.load raises many kinds for other files
        said = str(error)
        needs = _GLOBAL.search(said) if isinstance(error, pickle.UnpicklingError) else None
        if needs:
            raise ModelError(_explain_pickle(path, needs[1])) from None
        if "TorchScript" in said:
            raise ModelError(f"{path} is a TorchScript program, which is not taken: export the network with "
                             f"torch.export or as ONNX, or return torch.jit.load(...) from a factory (file.py:factory)"
                             ) from None
        if "legacy .tar" in said:
            raise FileError(f"{path} is a tar archive, not a file that torch.save wrote: unpack it and give the file "
                            f"in it; or, if torch before 0.1.10 wrote it, save it again with torch.save") from None
        raise FileError(f"{path} is not a file of weights that torch.save wrote, or it is damaged "
                        f"({first_line(error)[:200]})") from None


def _harmless() -> list[Any]:
    """Return the classes beside torch's own list that training scripts save, and that run nothing when they are read:
    a parser's options, and NumPy's numbers and arrays, also under the name of their module in NumPy 1."""
    made = [getattr(import_module("numpy._core.multiarray"), name) for name in ("scalar", "_reconstruct")]
    by_name = [(function, f"numpy.{home}.multiarray.{function.__name__}")
               for function in made for home in ("core", "_core")]
    return [argparse.Namespace, np.ndarray, np.dtype, *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}, *by_name]


def _explain_pickle(path: Path, needs: str) -> str:
    """Return why a pickle is refused, and how its author can save the weights alone."""
    needs = one_line(needs)[:100]
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # files of torch before 1.6, which are no archives, are not looked through
        named = [needs]
    whole = any(name.startswith(_LAYERS) for name in named)
    content = "a whole module, not its weights alone" if whole else "more than tensors, numbers and texts"
    inner = "network.state_dict()" if whole else "network['state_dict']"
    return (f"{path} holds {content}: it needs {needs}, and reading that could run code hidden in the file. If you "
            f"trust its author, save the weights alone: network = torch.load({path.name!r}, weights_only=False); "
            f"torch.save({inner}, 'weights.pt')")


def _find_entries(path: str, content: Any, depth: int) -> Iterator[tuple[str, State]]:
    """Yield the mappings that hold tensors, with the keys and places that lead to them joined by dots."""
    if not isinstance(content, _TREES):
        return
    items = list(content.items() if isinstance(content, Mapping) else enumerate(content))
    tensors = {str(name): value.detach() for name, value in items if isinstance(value, Tensor)}
    if tensors and isinstance(content, Mapping):
        yield path, tensors
    for name, value in items:
        if depth > 0:
            yield from _find_entries(f"{path}.{name}" if path else str(name), value, depth - 1)
