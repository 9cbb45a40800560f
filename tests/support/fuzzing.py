"""Files that are almost right, and what every reader makes of them.

A `Reader` has valid files (`seeds`), a way to read one, and edits that know its structure. `mutated` damages a file;
`outcome` says what became of it: read, refused with an error of smoothcert's own, or anything else, which is a defect.
"""

import gzip
import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.numpy import save as save_tensors

from originals import idx, python2_pickle
from smoothcert.classifiers.folder import read_network, read_state
from smoothcert.data import load_data
from smoothcert.errors import SmoothcertError
from smoothcert.interop import open_records, read_counts, read_log, write_counts, write_log
from smoothcert.io.files import sha256
from smoothcert.models import load_model
from smoothcert.recipes.recipe import read_recipe
from smoothcert.results.certified import Result
from smoothcert.runs.options import CertifyConfig
from smoothcert.store.records import Record, Tally
from smoothcert.store.source import NAME as SOURCE
from smoothcert.store.source import read_source
from smoothcert.store.store import open_store, read_store
from smoothcert.training.options import TrainConfig
from stores import change_manifest

Edit = Callable[[bytes, Random], bytes]

NASTY: list[Any] = [
    None, True, -1, 0, 2, 10**6, 2**31, 2**63, 10**40, 0.5, -0.5, float("nan"), float("inf"), 1e308, "", "x", "1", "\0",
    "../../../../etc/passwd", "/etc/passwd", "\ud800", "</script>", "A" * 5000, [], {}, [[]], [None], {"": 0}, [1, [2]],
    [10**12] * 3, "net.py:build", "nan", [0] * 300,
]
"""Values that stand where others should."""
WORDS = [b"\0", b"\xff" * 8, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"-1", b"nan", b"1e999", b"9" * 20, b"[" * 300,
         b"\t", b"'", b"\n", b"\r", b"\xe2\x80\xa8", b"*a", b"&a ", b"<<: *a", b"!!python/object/apply:os.system ",
         b"2001-99-99", b"1:99", b"\xed\xa0\x80", b"}", b"\"", b"{", b": ", b"- "]
"""Bytes that mean something to some format."""


@dataclass(frozen=True)
class Reader:
    """One way in.

    Attributes:
        seeds: valid files.
        read: read one, all of it, in a folder that is this reader's own.
        edits: changes that keep the outer form.
        same: what was read, to compare, where a damaged file that is read as something else would be silently wrong.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], Any]
    edits: tuple[Edit, ...] = ()
    same: Callable[[Any], Any] | None = None
    _cache: list[bytes] = field(default_factory=list)

    def valid(self) -> list[bytes]:
        if not self._cache:
            self._cache.extend(self.seeds())
        return self._cache


def outcome(reader: Reader, content: bytes, folder: Path) -> str:
    """ "read", "refused", or the defect: the name of an error that is none of smoothcert's."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(content, folder)
    except SmoothcertError as error:
        return "refused" if str(error) else f"{type(error).__name__} without a word"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "read"


def mutated(reader: Reader, rng: Random) -> bytes:
    """A valid file after a few edits, by its structure or by its bytes."""
    content = rng.choice(reader.valid())
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = edited(content, reader.edits if rng.random() < 0.6 else (), rng)
    return content


def edited(content: bytes, edits: tuple[Edit, ...], rng: Random) -> bytes:
    """One edit; by bytes where there is no other, or earlier ones left no structure to edit."""
    if edits:
        with suppress(Exception):
            return rng.choice(edits)(content, rng)
    return damaged(content, rng)


def place(rng: Random, count: int) -> int:
    """One of `count` places, or ValueError where there is none."""
    if not count:
        raise ValueError("there is nothing to edit")
    return rng.randrange(count)


def damaged(content: bytes, rng: Random) -> bytes:
    """Bytes flipped, cut, doubled, inserted or overwritten somewhere."""
    at = rng.randrange(len(content) + 1)
    until = min(len(content), at + rng.choice((1, 2, 4, 8, 64, 1000)))
    kind = rng.randrange(7)
    if kind == 0 and at < len(content):
        return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1:]
    if kind == 1:
        return content[:at]
    if kind == 2:
        return content[:at] + content[until:]
    if kind == 3:
        return content[:until] + content[at:]
    if kind == 4:
        return content[:at] + rng.choice(WORDS) + content[at:]
    if kind == 5:
        word = rng.choice(WORDS)
        return content[:at] + word + content[at + len(word):]
    return content[:at] + rng.randbytes(until - at) + content[until:]


# ---------------------------------------------------------------- edits by structure

def edited_tree(tree: Any, rng: Random) -> Any:
    """A JSON value with one part replaced, dropped, doubled or renamed."""
    if isinstance(tree, dict | list) and tree and rng.random() < 0.85:
        key = rng.choice(list(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
        copy = tree.copy()
        kind = rng.randrange(8)
        if kind == 0:
            del copy[key]
        elif kind == 1 and isinstance(copy, list):
            copy.insert(key, copy[key])
        elif kind == 1:
            copy[str(rng.choice(NASTY))] = copy.pop(key)
        else:
            copy[key] = edited_tree(copy[key], rng)
        return copy
    if rng.random() < 0.03:
        return deep(rng.choice((60, 500, 100_000)))
    return rng.choice(NASTY)


class deep(list):
    """Stands for lists within lists, as deep as its only item says: too deep for Python's own printer."""

    def __init__(self, depth: int):
        super().__init__([f"deep {depth}"])


def json_edit(content: bytes, rng: Random) -> bytes:
    return dumped(edited_tree(json.loads(content), rng))


def dumped(tree: Any) -> bytes:
    text = json.dumps(tree)
    for depth in (60, 500, 100_000):
        text = text.replace(f'["deep {depth}"]', "[" * depth + "]" * depth)
    return text.encode("utf-8", "surrogatepass")


def cell_edit(content: bytes, rng: Random) -> bytes:
    """A table of text with one cell replaced."""
    rows = [line.split(b"\t") for line in content.split(b"\n")]
    row = rng.choice(rows)
    row[rng.randrange(len(row))] = rng.choice((str(rng.choice(NASTY)).encode("utf-8", "replace"), rng.choice(WORDS)))
    return b"\n".join(b"\t".join(row) for row in rows)


def tensors_edit(content: bytes, rng: Random) -> bytes:
    """A safetensors file with another header, framed rightly or not."""
    size = struct.unpack("<Q", content[:8])[0] if len(content) > 8 else 0
    header = json_edit(content[8:8 + size], rng)
    length = rng.choice((len(header), len(header), len(header), 2**63, 2**40, 0))
    return struct.pack("<Q", length) + header + content[8 + size:]


def zip_edit(content: bytes, rng: Random) -> bytes:
    """An archive with one member damaged, renamed, dropped or doubled, checksums made anew."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at, kind = place(rng, len(members)), rng.randrange(6)
    name, body = members[at]
    other = rng.choice(("alpha.npy", "method.npy", "../x", "/x", "x"))
    members[at:at + 1] = {0: [], 1: [(name, body)] * 2, 2: [(other, body)], 3: [(name, nasty_array(rng))]}.get(
        kind, [(name, header_edit(body, rng))])
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", rng.choice((0, 8, 14))) as archive:
        warnings.simplefilter("ignore")
        for name, body in members:
            archive.writestr(name, body)
    return out.getvalue()


def header_edit(body: bytes, rng: Random) -> bytes:
    """An .npy file whose header claims something else."""
    shape = rng.choice((b"(10000000000000,)", b"(-1,)", b"(3, 70000)", b"()", b"(0,)", b"(1" + b"0" * 30 + b",)"))
    kind = rng.choice((b"'<i8'", b"'|O'", b"'<U0'", b"'<f2'", b"'|V9'", b"[('a', '<i8')]", b"'<M8[s]'", b"'|b1'"))
    text = b"{'descr': " + kind + b", 'fortran_order': False, 'shape': " + shape + b", }"
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n"
    return rng.choice((head + body[128:], damaged(body, rng), damaged(body[:128], rng) + body[128:]))


def nasty_array(rng: Random) -> bytes:
    array = rng.choice((np.array(0.25), np.array("x"), np.zeros((3, 0)), np.full((8, 10), 2**62), np.full(8, -1),
                        np.full((8, 10), np.nan), np.arange(8), np.ones((8, 1), np.uint64) * 2**63, np.array([0.1]),
                        np.zeros((0, 10), np.int64), np.array(True), np.array(np.inf), np.ones((8, 10), np.int8)))
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def column_edit(content: bytes, rng: Random) -> bytes:
    """A parquet file with one column replaced, renamed, dropped or doubled."""
    table = pq.read_table(io.BytesIO(content))
    at, rows = place(rng, table.num_columns), table.num_rows
    name, kind = table.column_names[at], rng.randrange(8)
    if kind == 0:
        table = table.remove_column(at)
    elif kind == 1:
        table = table.append_column(name, table.column(at))
    elif kind == 2:
        table = table.rename_columns([rng.choice(("shape", "y", "", "image", name)) if k == at else other
                                      for k, other in enumerate(table.column_names)])
    elif kind == 3:
        table = table.replace_schema_metadata({"huggingface": dumped(edited_tree(HUB, rng))})
    elif kind == 4:
        hint = pa.field(name, table.schema.field(at).type, metadata={"shape": dumped(rng.choice(NASTY))})
        table = table.set_column(at, hint, table.column(at))
    else:
        table = table.set_column(at, name, nasty_column(rows, table.column(at), rng))
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def nasty_column(rows: int, column: Any, rng: Random) -> Any:
    values: list[Any] = column.to_pylist()
    for _ in range(rng.randrange(1, 4)):
        if values:
            values[rng.randrange(len(values))] = rng.choice((None, *values))
    made = rng.choice((
        lambda: pa.array(values, column.type), lambda: pa.array([[]] * rows, pa.list_(pa.int64())),
        lambda: pa.array([[[[[7]]]]] * rows), lambda: pa.array([-1] * rows),
        lambda: pa.array([2**63] * rows, pa.uint64()),
        lambda: pa.array([None] * rows), lambda: pa.array(["x"] * rows), lambda: pa.array([b"\x89PNG"] * rows),
        lambda: pa.array([{"bytes": None, "path": "/etc/passwd"}] * rows), lambda: pa.array([0.5] * rows),
        lambda: pa.array([[10**10, 10**10]] * rows), lambda: pa.array([float("nan")] * rows),
        lambda: pa.array([[float("nan")] * 4] * rows), lambda: pa.array([2**31 - 1] * rows),
        lambda: pa.array([{"bytes": {"bytes": b"x"}}] * rows),
        lambda: pa.array([[1, 2]] * rows, pa.list_(pa.int8(), 2)),
        lambda: pa.array([b"x"] * rows).dictionary_encode(), lambda: pa.array([True] * rows),
        lambda: pa.array([[[1], [2, 3]]] * rows), lambda: pa.array([[1], [1, 2]] * rows).slice(0, rows),
    ))
    return made()


# ---------------------------------------------------------------- readers

def _written(content: bytes, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _yaml_seeds() -> list[bytes]:
    return [b"model: m\nout: s\nsigma: 0.25\nn: 1000\nseed: 3\nevery: 12\nalpha: 1e-3\n",
            b"data: digits\nmodel: mlp\nobjective: smoothadv\nobjective-option: {eps: 0.5}\nout: m\nepochs: 3\n",
            b"out: m\nobjective-option:\n  a: &a [1, 2.5, x, null, true, 2001-12-14]\n  b: {c: *a, d: [*a, *a]}\n"
            b"  e: !!binary aGk=\n  f: 0x1F\n"]


def _read_config(content: bytes, folder: Path) -> Any:
    path = _written(content, folder / "config.yaml")
    found = []
    for config in (CertifyConfig, TrainConfig):
        try:
            found.append(config.gather({"out": Path("s")}, path))
        except SmoothcertError as error:
            found.append(error)
    if isinstance(found[0], SmoothcertError) and isinstance(found[1], SmoothcertError):
        raise found[0]
    return found


def _recipe_seeds() -> list[bytes]:
    scale = {"about": "a", "parameters": {"n": 10}, "rows": {}, "steps": {}}
    return [dumped({
        "name": "r", "title": "t", "source": "s", "steps": [{"name": "c", "verb": "certify", "options": {"n": 10}}],
        "rows": [{"name": "one", "parameters": {"sigma": 0.5}, "expected": {"c": {"accuracy": {"0": 0.5}, "acr": 1}}}],
        "scales": {"smoke": scale}})]


CARD = {
    "version": 1, "model": "mlp", "options": {"hidden": [3], "mean": [0.5], "std": [0.5]}, "input_shape": [1, 2, 2],
    "num_classes": 3, "class_names": ["a", "b", "c"], "levels": 255, "sigma": 0.25,
    "data": {"data": "digits", "resize": None, "crop": None}, "identity": {"kind": "train", "settings": {}},
    "init": None, "epochs_done": 2, "best_epoch": 1, "best": {"loss": 0.5}, "complete": True, "kind": "classifier",
    "parameters": 27, "denoiser": None,
}
DENOISER_CARD = {**CARD, "model": "direct", "options": {"network": "mlp", "width": 2, "depth": 1}, "kind": "denoiser"}


def _state(card: dict[str, Any]) -> Any:
    from smoothcert.denoise import build_denoiser
    from smoothcert.models import build_model

    torch.manual_seed(0)
    if card["kind"] == "denoiser":
        return build_denoiser(card["model"], (1, 2, 2), 0.25, **card["options"])
    return build_model(card["model"], (1, 2, 2), 3, **card["options"])


@cache
def weights_of(kind: str) -> bytes:
    state = _state(CARD if kind == "classifier" else DENOISER_CARD).state_dict()
    return save_tensors({name: tensor.numpy() for name, tensor in state.items()})


def _read_card(content: bytes, folder: Path) -> Any:
    kind = "denoiser" if b'"kind": "denoiser"' in content else "classifier"
    _written(weights_of(kind), folder / "best.safetensors")
    _written(content, folder / "model.json")
    return read_network(folder)[0](torch.zeros(1, 1, 2, 2)) if kind == "classifier" else read_network(folder)


def _read_weights(content: bytes, folder: Path) -> Any:
    _written(dumped(CARD), folder / "model.json")
    _written(content, folder / "best.safetensors")
    return read_network(folder)


@cache
def _checkpoint() -> bytes:
    network, out = _state(CARD), io.BytesIO()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9)
    torch.save({"optimizer": optimizer.state_dict(), "network": network.state_dict(), "steps": 3}, out)
    return out.getvalue()


def _weights_file_seeds() -> list[bytes]:
    """A file of weights in both forms that torch.save has had."""
    seeds, network = [], _state(CARD)
    for in_zip in (True, False):
        out = io.BytesIO()
        torch.save({"arch": "mlp", "state_dict": network.state_dict()}, out, _use_new_zipfile_serialization=in_zip)
        seeds.append(out.getvalue())
    return seeds


def _read_weights_file(content: bytes, folder: Path) -> Any:
    path = _written(content, folder / "net.pth.tar")
    return load_model(str(path), network="mlp", options={"hidden": [3]}, input_shape=(1, 2, 2))


def _log_seeds() -> list[bytes]:
    head = b"idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
    return [head + b"0\t3\t3\t0.512\t1\t0:02:31.2\n20\t1\t-1\t0.0\t0\t0:00:10\n40\t7\t2\t0.25\t0\t1 day, 0:02:31\n",
            b"idx\tlabel\tpredict\tcorrect\ttime\n0\t3\t3\t1\t17.5\n1\t0\t-1\t0\t3\n"]


def _read_log(content: bytes, folder: Path) -> Any:
    store = read_log(_written(content, folder / "sigma_0.25.tsv"))
    if store.num_records:
        write_log(store, folder / "again.tsv")
        return Result.of(store) if store.kind == "certify" else store
    return store


@cache
def _counts_seeds() -> list[bytes]:
    rng, found = np.random.default_rng(0), []
    votes = {name: rng.multinomial(n, np.ones(10) / 10, 8) for name, n in (("select", 10), ("estimate", 100))}
    for content in ({**votes, "method": "cohen", "alpha": 0.01}, {"predict": votes["estimate"]}):
        for save in (np.savez, np.savez_compressed):
            out = io.BytesIO()
            save(out, label=np.arange(8), sigma=0.25, index=np.arange(8), **content)
            found.append(out.getvalue())
    return found


def _read_counts(content: bytes, folder: Path) -> Any:
    store = read_counts(_written(content, folder / "counts.npz"))
    store.counts("predict" if store.kind == "predict" else "estimate")
    if store.num_records:
        write_counts(store, folder / "again.npz")
    return store


def _same_store(store: Any) -> Any:
    provenance = {name: value for name, value in store.provenance.raw.items() if name != "counts"}
    return store.kind, store.identity, provenance, store.complete, store.records.to_pylist()


def _image_seeds() -> list[bytes]:
    pixels, found = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8), []
    for form in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"):
        for shown in (pixels, pixels[..., 0]):
            out = io.BytesIO()
            Image.fromarray(shown).save(out, form)
            found.append(out.getvalue())
    return found


def _read_image(content: bytes, folder: Path) -> Any:
    _written(content, folder / "images" / "a" / "0.png")
    if not (folder / "images" / "b" / "1.png").exists():
        _written(_image_seeds()[0], folder / "images" / "b" / "1.png")
    return load_data(f"imagefolder:{folder / 'images'}", resize=5, crop=4).batch([0, 1])


HUB = {"info": {"features": {"label": {"names": ["a", "b", "c"]}}}}


def _parquet_seeds() -> list[bytes]:
    images = _image_seeds()[:2]
    rng, labels = np.random.default_rng(0), [0, 1, 2, 1]
    columns = [[{"bytes": images[1], "path": None}] * 4, [images[0]] * 4, rng.integers(0, 256, (4, 3, 3)).tolist(),
               rng.random((4, 4)).tolist()]
    found = []
    for column in columns:
        table = pa.table({"image": column, "label": labels, "shape": [[2, 2]] * 4})
        out = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(HUB)}), out)
        found.append(out.getvalue())
    return found


def _read_parquet(content: bytes, folder: Path) -> Any:
    return load_data(f"parquet:{_written(content, folder / 'test.parquet')}").batch([0])


def _idx_seeds() -> list[bytes]:
    content = idx(np.random.default_rng(0).integers(0, 256, (3, 28, 28)))
    return [content, gzip.compress(content)]


def _read_idx(content: bytes, folder: Path) -> Any:
    _written(idx([0, 1, 2]), folder / "mnist" / "t10k-labels-idx1-ubyte")
    _written(content, folder / "mnist" / "t10k-images-idx3-ubyte")
    return load_data("mnist", data_dir=folder).batch([0])


def _batch_seeds() -> list[bytes]:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)
    return [python2_pickle(images, [3, 8]), pickle.dumps({"data": images.reshape(2, -1), "labels": [3, 8]}, 4)]


def _read_batch(content: bytes, folder: Path) -> Any:
    _written(content, folder / "cifar-10-batches-py" / "test_batch")
    return load_data("cifar10", data_dir=folder).batch([0])


IDENTITY = {
    "kind": "certify", "model": {"by": "module", "sha256": "ab" * 32}, "num_classes": 10,
    "data": {"name": "digits", "split": "test", "shape": [1, 8, 8], "sha256": "cd" * 32},
    "images": {"count": 4, "start": 0, "every": 1},
    "noise": {"kind": "grid", "format": "sfc64-v1", "sigma": 0.25, "levels": 16, "exponent": 12, "reach": 1.0},
    "seed": 3, "procedure": {"method": "cohen", "alpha": 0.001, "n0": 10, "n": 100, "margin": None}, "space": "pixels",
    "engine": "eager", "precision": "float32", "device": "cpu",
}


def _records() -> list[Record]:
    counts = [np.eye(10, dtype=int)[k] * 90 + 1 for k in range(4)]
    return [Record(k, k, k, {"radius": 0.25}, False,
                   [Tally.of("select", counts[k] // 9), Tally.of("estimate", counts[k])]) for k in range(4)]


def _make_store(folder: Path, finished: bool = True) -> Path:
    """The store in a folder, made once."""
    place = folder / ("store" if finished else "open")
    if not place.exists():
        with open_store(place, IDENTITY, {"model": "m"}) as store:
            for position in store.pending()[:None if finished else 3]:
                store.add(position, _records()[position], 0.5)
            if finished:
                store.finish()
    return place


@cache
def _store_file(name: str, finished: bool = True) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return (_make_store(Path(folder), finished) / name).read_bytes()


def _whole(folder: Path) -> Any:
    """All that a store gives."""
    store = open_records(folder)
    store.counts("estimate")
    store.histories()
    if store.num_records and store.kind == "certify":
        Result.of(store)
    return store


def _read_manifest(content: bytes, folder: Path) -> Any:
    store = _make_store(folder)
    _written(content, store / "manifest.json")
    return _whole(store)


def resealed(content: bytes, rng: Random) -> bytes:
    """A manifest edited by someone who knows how to make its hash anew."""
    from smoothcert.store import manifest

    tree = json.loads(json_edit(content, rng))
    tree.pop("sha256", None)
    return dumped({**tree, "sha256": manifest._seal(tree)})


def _read_shard(content: bytes, folder: Path) -> Any:
    """A shard that its manifest vouches for."""
    from smoothcert.store.manifest import read_manifest

    store = _make_store(folder)
    path = _written(content, store / "shard-00000.parquet")
    _written(_store_file("manifest.json"), store / "manifest.json")
    change_manifest(store, lambda told: told["shards"][0].update(sha256=sha256(path)))
    read_manifest(store)
    return _whole(store)


def _read_changed_shard(content: bytes, folder: Path) -> Any:
    """A shard that has changed since it was written."""
    store = _make_store(folder)
    _written(content, store / "shard-00000.parquet")
    _written(_store_file("manifest.json"), store / "manifest.json")
    return _whole(store)


def _read_journal(content: bytes, folder: Path) -> Any:
    store = _make_store(folder, finished=False)
    _written(content, store / "journal.jsonl")
    return _whole(store)


def journal_edit(content: bytes, rng: Random) -> bytes:
    """A journal with one line changed, its checksum made anew."""
    import zlib

    lines = content.splitlines()
    at = place(rng, len(lines))
    body = json_edit(lines[at].partition(b" ")[2], rng)
    lines[at] = f"{zlib.crc32(body):08x} ".encode() + body
    return b"\n".join(lines) + b"\n"


def _read_times(content: bytes, folder: Path) -> Any:
    store = _make_store(folder, finished=False)
    _written(content, store / "times.jsonl")
    _written(_store_file("journal.jsonl", False), store / "journal.jsonl")
    write_log(read_store(store), folder / "log.tsv")


def _read_source(content: bytes, folder: Path) -> Any:
    noted = read_source(_written(content, folder / SOURCE).parent)
    return noted and [place.exists() for place in noted.places(folder)]


def line_edit(content: bytes, rng: Random) -> bytes:
    lines = content.splitlines()
    at = place(rng, len(lines))
    lines[at] = json_edit(lines[at], rng)
    return b"\n".join(lines) + b"\n"


@cache
def onnx_seed() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def onnx_edit(content: bytes, rng: Random) -> bytes:
    """A model whose weights are said to lie elsewhere, or have another shape."""
    model = onnx.load_model_from_string(content)
    tensor = model.graph.initializer[0]
    if rng.random() < 0.5:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        entry = tensor.external_data.add()
        entry.key = "location"
        entry.value = rng.choice(("/etc/passwd", "../secret", "*/_ORT_MEM_ADDR_/*", "", ".", "net.onnx"))
        if rng.random() < 0.3:  # a name that is no text
            return model.SerializeToString().replace(b"net.onnx", b"net\xffonnx")
    else:
        tensor.dims[place(rng, len(tensor.dims))] = rng.choice((-1, 0, 2**40, 2**62))
    return model.SerializeToString()


def _read_onnx(content: bytes, folder: Path) -> Any:
    return load_model(str(_written(content, folder / "net.onnx")), input_shape=(1, 2, 2))


READERS = {reader.name: reader for reader in (
    Reader("configuration (YAML)", _yaml_seeds, _read_config, (json_edit,)),
    Reader("recipe (YAML)", _recipe_seeds, lambda c, f: read_recipe(str(_written(c, f / "r.yaml"))), (json_edit,)),
    Reader("model.json", lambda: [dumped(CARD), dumped(DENOISER_CARD)], _read_card, (json_edit,)),
    Reader("weights (safetensors)", lambda: [weights_of("classifier")], _read_weights, (tensors_edit,)),
    Reader("checkpoint (state.pt)", lambda: [_checkpoint()],
           lambda c, f: read_state(_written(c, f / "0001" / "state.pt").parent), (zip_edit,)),
    Reader("file of weights (.pth.tar)", _weights_file_seeds, _read_weights_file, (zip_edit,)),
    Reader("log (TSV)", _log_seeds, _read_log, (cell_edit,)),
    Reader("count file (npz)", _counts_seeds, _read_counts, (zip_edit,)),
    Reader("images (seven formats)", _image_seeds, _read_image),
    Reader("data (parquet)", _parquet_seeds, _read_parquet, (column_edit,)),
    Reader("MNIST's files (IDX)", _idx_seeds, _read_idx),
    Reader("CIFAR-10's batches (pickle)", _batch_seeds, _read_batch),
    Reader("manifest, its hash made anew", lambda: [_store_file("manifest.json")], _read_manifest, (resealed,)),
    Reader("shard, its hash made anew", lambda: [_store_file("shard-00000.parquet")], _read_shard, (column_edit,)),
    Reader("journal", lambda: [_store_file("journal.jsonl", False)], _read_journal, (journal_edit,)),
    Reader("times", lambda: [_store_file("times.jsonl", False)], _read_times, (line_edit,)),
    Reader("source", lambda: [dumped({"data": "digits", "place": "/data", "from_store": "../data", "resize": 8})],
           _read_source, (json_edit,)),
    Reader("ONNX", lambda: [onnx_seed()], _read_onnx, (onnx_edit,)),
)}
"""Every way in, by name."""

CHECKED = {reader.name: reader for reader in (
    Reader("manifest", lambda: [_store_file("manifest.json")], _read_manifest, (json_edit,), _same_store),
    Reader("shard", lambda: [_store_file("shard-00000.parquet")], _read_changed_shard, (column_edit,), _same_store),
    Reader("count file, bytes changed", _counts_seeds, _read_counts, (), _same_store),
)}
"""Files with checksums, which must not be read as another result after any damage that leaves the checksums alone."""
