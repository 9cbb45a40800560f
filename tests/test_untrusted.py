"""Files that mean harm: nothing in them runs, leaves its folder, or takes more than the limits say."""

import io
import json
import math
import os
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from onnx import TensorProto
from PIL import Image
from torch import nn

from fuzzing import CARD, dumped, onnx_seed, weights_of
from smoothcert import limits
from smoothcert.classifiers.folder import module_hash, read_network, read_state
from smoothcert.config.numbers import from_yaml
from smoothcert.data import load_data
from smoothcert.data.encoded import decode_image, read_header
from smoothcert.data.preprocess import Preprocess
from smoothcert.errors import DataError, FileError, ModelError, StoreError
from smoothcert.interop import read_counts, read_log
from smoothcert.io.arrays import read_array, read_arrays
from smoothcert.models import load_model
from smoothcert.report.html import report_page, write_page
from smoothcert.results.gather import gather_page
from smoothcert.runs.options import CertifyConfig
from smoothcert.store.records import Record, Tally, dense_counts, schema
from stores import made

EVIL = ("</script><script>window.pwned=1</script><img src=x onerror=pwned()>\"' onload='x' \u2028 <!-- ]]> &lt; "
        "javascript:x")


class Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def model_dir(folder: Path, **changes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "best.safetensors").write_bytes(weights_of("classifier"))
    (folder / "model.json").write_bytes(dumped({**CARD, **changes}))
    return folder


@contextmanager
def cheap(seconds: float = 2, megabytes: float = 30):
    """Whatever happens inside takes little time and memory."""
    tracemalloc.start()
    begun = time.process_time()
    try:
        yield
        assert time.process_time() - begun < seconds
        assert tracemalloc.get_traced_memory()[1] < megabytes * 2**20
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------- code

def test_what_stands_where_weights_should_is_never_unpickled(tmp_path):
    marker, folder = tmp_path / "ran", model_dir(tmp_path / "m")
    for content in (pickle.dumps(Payload(marker)), saved(Payload(marker))):
        (folder / "best.safetensors").write_bytes(content)
        (folder / "state.pt").write_bytes(content)
        with pytest.raises(FileError, match="corrupt"):
            read_network(folder)
        with pytest.raises(FileError, match="corrupt"):
            read_state(folder)
    out = io.BytesIO()
    np.savez(out, label=np.array([Payload(marker)], dtype=object), sigma=0.25)
    (tmp_path / "counts.npz").write_bytes(out.getvalue())
    with pytest.raises(FileError, match="instead of numbers"):
        read_counts(tmp_path / "counts.npz")
    assert not marker.exists()


def saved(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


@pytest.mark.parametrize("named", ["net.py:build", "package.module:build", "net.pt2", "net.onnx", "hf:some/model"])
def test_what_a_model_directory_names_is_not_run_without_trust(tmp_path, named, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("from pathlib import Path\nPath('ran').touch()\nbuild = None\n")
    with pytest.raises(ModelError, match="--trust"):
        read_network(model_dir(tmp_path / "m", model=named, options={}))
    assert not Path("ran").exists()


def test_hub_libraries_load_weights_only_and_run_no_code(tmp_path, monkeypatch):
    marker, asked = tmp_path / "ran", []
    (tmp_path / "weights.bin").write_bytes(saved(Payload(marker)))

    def from_pretrained(name, trust_remote_code):
        asked.append(trust_remote_code)
        return torch.load(tmp_path / "weights.bin", weights_only=False)

    stand_in = ModuleType("transformers")
    stand_in.AutoModelForImageClassification = SimpleNamespace(from_pretrained=from_pretrained)
    monkeypatch.setitem(sys.modules, "transformers", stand_in)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model("hf:some/model")
    assert asked == [False]
    assert not marker.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


# ---------------------------------------------------------------- texts

LAUGHS = "\n".join(["a: &a [x,x,x,x,x,x,x,x,x,x]", *(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True))])


@pytest.mark.parametrize(("text", "message"), [
    (LAUGHS, "more than 100,000 values"), ("a: &a [*a]", "itself"),
    *((opening * 5_000, "nested more than 64") for opening in ("[", "{a: ", "- ", "? ")), ("[" * 80, "more than 64"),
    ("a: &a {<<: *a}", "itself"), ("seed: " + "1:" * 3000 + "1", "6,001 characters; the limit is 400"),
    ("seed: !!python/object/apply:os.system [ls]", "constructor"), ("seed: 2001-13-45", "month"),
    ("x: [" + "1," * 600_000 + "]", "the limit is 1,048,576"),
])
def test_yaml_that_unfolds_without_end_is_refused(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with cheap(), pytest.raises(FileError, match=message):
        CertifyConfig.gather({}, tmp_path / "c.yaml")


@pytest.mark.parametrize("text", ["model: m\nsigma: 1\nmodel: n\n", "model: m\nclaim: {a: 1, a: 2}\n",
                                  "model: m\nindices: [{a: 1, 'a': 2}]\n"])
def test_a_key_that_stands_twice_is_no_yaml(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(FileError, match=r"line \d has the key '\w+' a second time"):
        CertifyConfig.gather({}, tmp_path / "c.yaml")


def test_a_merged_key_may_stand_again():
    assert from_yaml("a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, x: 4}") == {
        "a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": {"x": 4, "y": 2}}


def test_aliases_within_the_limits_mean_what_they_repeat(tmp_path):
    (tmp_path / "c.yaml").write_text("model: m\nout: s\nsigma: .5\nmodel-id: &o x\ndata: *o\n")
    assert CertifyConfig.gather({}, tmp_path / "c.yaml").data == "x"


def test_json_is_bounded_in_depth():
    assert limits.from_json("[" * 64 + "]" * 64, "x") is not None
    for depth in (65, 900, 100_000):
        with pytest.raises(FileError, match="nested more than 64 deep"):
            limits.from_json("[" * depth + "]" * depth, "x")
    with pytest.raises(FileError, match="corrupt"):
        limits.from_json('{"a": ' + "9" * 5000 + "}", "x")


@pytest.mark.parametrize(("row", "message"), [
    ("9" * 4000 + "\t1\t1\t0.1\t1\t1", "whole number"), (f"0\t{10**9}\t1\t0.1\t1\t1", "the limit is 999,999"),
    ("0\t1\t1\tinf\t1\t1", "finite"), ("0\t1\t1\tnan\t1\t1", "finite"), ("0\t1\t1\t" + "1" * 400 + "\t1\t1", "finite"),
])
def test_logs_with_giant_values_are_refused_in_few_words(tmp_path, row, message):
    (tmp_path / "log.tsv").write_text(f"idx\tlabel\tpredict\tradius\tcorrect\ttime\n{row}\n")
    with pytest.raises(FileError, match=message) as caught:
        read_log(tmp_path / "log.tsv")
    assert len(str(caught.value)) < 400
    (tmp_path / "log.tsv").write_text("idx\tlabel\tpredict\tpredict\n0\t1\t1\t2\n")
    with pytest.raises(FileError, match="several columns predict"):
        read_log(tmp_path / "log.tsv")


# ---------------------------------------------------------------- sizes

def npy(shape: str, kind: str = "<i8", body: bytes = b"") -> bytes:
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body


@pytest.mark.parametrize(("array", "message"), [
    (npy("(2000000000000,)"), "claims shape"), (npy("(-1, -8)", body=bytes(64)), "corrupt"),
    (npy("(10000000000000,)", "<U0"), "instead of numbers"), (npy("(1,)", "<U1", b"\xff" * 4), "not Unicode"),
    (npy("(5000000,)", "|b1", bytes(5_000_000)), "its unpacked size in bytes"),
])
def test_arrays_are_measured_before_memory_is_taken(tmp_path, monkeypatch, array, message):
    monkeypatch.setattr(limits, "UNPACKED_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "counts.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("label.npy", array)
    with cheap(megabytes=3), pytest.raises(FileError, match=message):
        read_counts(tmp_path / "counts.npz")


@pytest.mark.parametrize(("content", "message"), [
    (npy("(2000000000000,)"), "claims shape"), (npy("(-1, -8)", body=bytes(64)), "corrupt"),
    (npy("(10000000000000,)", "<U0"), "instead of numbers"), (npy("(1,)", "<U1", b"\xff" * 4), "not Unicode"),
    (npy("(1,)", "|O", pickle.dumps([0])), "instead of numbers"), (npy("(2,)", body=bytes(17)), "claims shape"),
    (npy("(5000000,)", "|b1", bytes(5_000_000)), "the limit is"), (b"", "corrupt"), (b"\x93NUMPY\x09\x00", "corrupt"),
])
def test_single_arrays_are_measured_too(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(limits, "UNPACKED_BYTES", 1 << 20)
    (tmp_path / "labels.npy").write_bytes(content)
    with cheap(megabytes=3), pytest.raises(FileError, match=message):
        read_array(tmp_path / "labels.npy")


@pytest.mark.parametrize("reader", [read_array, read_arrays])
def test_pipes_are_no_arrays(tmp_path, reader):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match=r"not a file|no file"):
        reader(tmp_path / "pipe")


def test_arrays_are_read_as_they_were_written(tmp_path):
    for array in (np.arange(6).reshape(2, 3), np.asfortranarray(np.ones((3, 2), "<f4")), np.array(["ant", "bee"])):
        np.save(tmp_path / "one.npy", array)
        np.savez(tmp_path / "one.npz", one=array)
        for found in (read_array(tmp_path / "one.npy"), read_arrays(tmp_path / "one.npz")["one"]):
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array)


def png(width: int, height: int) -> io.BytesIO:
    """A PNG file of a few bytes that claims a size."""
    out = io.BytesIO()
    Image.new("L", (1, 1)).save(out, "PNG")
    content = bytearray(out.getvalue())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return io.BytesIO(bytes(content))


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**31 - 1, 2**31 - 1), (64_000_001, 1)])
def test_image_bombs_are_refused_by_their_headers(size):
    with cheap(), pytest.raises(DataError, match="the limit is 64,000,000"):
        read_header(png(*size), "x.png")


def test_a_long_thin_image_cannot_grow_without_end(tmp_path):
    with pytest.raises(DataError, match="after resizing, 256x25600000"):
        Preprocess(resize=256).output_size((1, 100_000), "x.png")
    with cheap(), pytest.raises(DataError, match="after resizing"):
        decode_image(png(100_000, 1), "x.png", 1, Preprocess(resize=256))


def test_image_formats_that_start_programs_stay_closed():
    with pytest.raises(DataError, match="not in an image format that is read"):
        read_header(io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"), "x.png")


def test_pipes_and_endless_files_are_not_read(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "d" / name / "0.png")
    path = tmp_path / "d" / "b" / "1.png"
    os.mkfifo(path)
    with pytest.raises(FileError, match="is not a file"):
        load_data(f"imagefolder:{tmp_path / 'd'}")
    path.unlink()
    path.touch()
    os.truncate(path, limits.IMAGE_BYTES + 1)
    with pytest.raises(FileError, match="the limit is 536,870,912"):
        load_data(f"imagefolder:{tmp_path / 'd'}")


def test_a_table_that_unfolds_without_end_is_stopped_on_the_way(tmp_path, monkeypatch):
    """100,000 rows of one image of 100 kB, which parquet stores once."""
    monkeypatch.setattr(limits, "UNPACKED_BYTES", 1 << 24)
    table = pa.table({"image": pa.array([bytes(100_000)]).take(pa.array(np.zeros(2000, int))), "label": [0, 1] * 1000})
    pq.write_table(table, tmp_path / "test.parquet")
    assert (tmp_path / "test.parquet").stat().st_size < 10_000
    before = pa.total_allocated_bytes()
    with pytest.raises(FileError, match="its unpacked size in bytes"):
        load_data(f"parquet:{tmp_path / 'test.parquet'}")
    assert pa.total_allocated_bytes() - before < 1 << 20


@pytest.mark.parametrize("changes", [
    {"options": {"hidden": [65_536] * 60}}, {"options": {"hidden": [3] * 1001}}, {"options": {"hidden": [2**40]}},
    {"input_shape": [3, 8000, 8000]}, {"input_shape": [2**40, 2**40, 1]}, {"num_classes": 10**6},
    {"model": "direct", "kind": "denoiser", "options": {"network": "unet", "depth": 1000}},
    {"model": "direct", "kind": "denoiser", "options": {"network": "mlp", "depth": 100, "width": 60_000}},
    {"model": "direct", "kind": "denoiser", "options": {"network": "conv", "depth": 60_000}},
    {"model": "direct", "kind": "denoiser", "options": {"network": "conv", "width": 65_536, "depth": 3}},
    {"sigma": math.nan}, {"class_names": 3}, {"options": {"hidden": {"a": 1}}}, {"levels": 0}, {"more": 1},
])
def test_a_card_cannot_ask_for_more_than_its_weights_fill(tmp_path, changes):
    folder = model_dir(tmp_path / "m", **changes)
    with cheap(seconds=10), pytest.raises((FileError, ModelError, ValueError)) as caught:
        read_network(folder)
    assert type(caught.value).__module__ == "smoothcert.errors"


@pytest.mark.parametrize(("tally", "classes", "message"), [
    (Tally("estimate", 3, [0, 1], [5, -2]), 3, "counts outside"), (Tally("estimate", 3, [7], [3]), 3, "outside"),
    (Tally("estimate", 4, [0], [3]), 3, "add up"), (Tally("estimate", 3, [0, 1], [3]), 3, "one count for each"),
    (Tally("estimate", 2**62, [0], [2**62]), 3, "counts outside"), (Tally(None, 3, [0], [3]), 3, "gaps"),
    (Tally("estimate", 3, [None], [3]), 3, "one count for each"), (Tally("estimate", 3, [0], [3]), 10**13, "the limit"),
])
def test_votes_that_cannot_be_are_refused(tally, classes, message):
    rows = [Record(0, 0, 0, {"radius": 0.1}, False, [tally]).row()]
    tallies = pa.Table.from_pylist(rows, schema=schema("certify")).column("tallies")
    with cheap(), pytest.raises(StoreError, match=message):
        dense_counts(tallies, "estimate", classes)


# ---------------------------------------------------------------- paths

def test_names_cannot_leave_their_folder(tmp_path):
    (tmp_path / "folder" / "in").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (tmp_path / "folder" / "file").write_text("y")
    (tmp_path / "folder" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "folder" / "file")
    (tmp_path / "folder" / "circle").symlink_to(tmp_path / "folder" / "circle")
    folder = tmp_path / "folder"
    for name in ("file", "link", "in/../file", "not-there"):
        assert limits.path_inside(folder, name) == folder / name
    for name in ("../secret", "in/../../secret", str(tmp_path / "secret"), "out", "a\0b"):
        with pytest.raises(FileError):
            limits.path_inside(folder, name)


def test_weights_elsewhere_are_not_taken(tmp_path):
    folder, other = model_dir(tmp_path / "m"), model_dir(tmp_path / "other")
    read_network(folder)
    for name in ("best.safetensors", "model.json"):
        (folder / name).unlink()
        (folder / name).symlink_to(other / name)
        with pytest.raises(FileError, match="leads out of"):
            read_network(folder)
        (folder / name).unlink()
        (folder / name).write_bytes((other / name).read_bytes())


@pytest.mark.parametrize("place", ["../weights.bin", "{absolute}", "link.bin", "*/_ORT_MEM_ADDR_/*"])
def test_an_onnx_file_takes_its_weights_from_its_own_folder_only(tmp_path, place):
    """Also where the tensor is hidden in an attribute of a function."""
    (tmp_path / "weights.bin").write_bytes(bytes(48))
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "link.bin").symlink_to(tmp_path / "weights.bin")
    for hidden in (False, True):
        model = onnx.load_model_from_string(onnx_seed())
        tensor = model.graph.initializer[0]
        if hidden:
            node = model.functions.add().node.add(op_type="Constant")
            tensor = node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t
            tensor.CopyFrom(model.graph.initializer[0])
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place.format(absolute=tmp_path / "weights.bin"))
        (tmp_path / "m" / "net.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(FileError, match=r"leads out of|is not a file"):
            load_model(str(tmp_path / "m" / "net.onnx"))


# ---------------------------------------------------------------- identity

class One(nn.Linear):
    def forward(self, x):
        return super().forward(x)


class Other(nn.Linear):
    def forward(self, x):
        return -super().forward(x)


def test_classes_of_one_file_with_equal_weights_differ_in_hash():
    networks = [One(2, 2), Other(2, 2), nn.Sequential(One(2, 2)), nn.Sequential(Other(2, 2)),
                nn.Sequential(One(2, 2), nn.ReLU()), nn.Sequential(One(2, 2), nn.SiLU())]
    for network in networks:
        for parameter in network.parameters():
            nn.init.ones_(parameter)
    assert len({module_hash(network) for network in networks}) == len(networks)
    assert len({module_hash(network, b"source") for network in networks}) == len(networks)
    again = nn.Sequential(One(2, 2), nn.ReLU())
    again.load_state_dict(networks[4].state_dict())
    assert module_hash(again) == module_hash(networks[4])


# ---------------------------------------------------------------- pages

class Skeleton(HTMLParser):
    """Tags and names of attributes of a page, in order, and the content of its data."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.data, self._in_data = [], "", False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self._in_data = ("id", "data") in attrs

    def handle_endtag(self, tag):
        self.tags.append((f"/{tag}", ()))
        self._in_data = False

    def handle_comment(self, data):
        self.tags.append(("comment", ()))

    def handle_data(self, data):
        self.data += data if self._in_data else ""


class Images:
    source, batch = load_data("digits").source, load_data("digits").batch

    def __init__(self, word: str):
        self.class_names = tuple(f"{word}{k}" for k in range(10))


def page_with(folder: Path, word: str) -> str:
    """A page on a store and a log in which all that can be named is named `word`."""
    folder.mkdir()
    named = word.replace("/", "\u2044").encode("utf-8", "replace").decode()  # no file's name has a slash
    store = made(folder / named, count=20, right=2, told={
        "model": word, "versions": {word: word}, "machine": {"cpu": word}, "notes": [word], "classes": [word] * 10},
        engine=word, precision=word, space="pixels", data={"name": word, "split": word, "shape": [1, 8, 8],
                                                           "sha256": word}, model={"by": "id", "id": word})
    log = folder / f"{named} sigma_0.25.tsv"
    log.write_text(f"idx\tlabel\tpredict\tradius\t{named.split()[0]}\n0\t1\t1\t0.3\t1\n")
    runs, attacks, *_ = gather_page([str(store), str(log)], lambda store: Images(word))
    return report_page(runs, title=word, attacks=attacks)


def test_a_page_has_the_same_elements_whatever_is_named_in_it(tmp_path):
    harmless = Skeleton(page_with(tmp_path / "a", "plain word"))
    hostile = Skeleton(page_with(tmp_path / "b", EVIL))
    assert len(harmless.tags) > 300
    assert hostile.tags == harmless.tags
    assert EVIL.replace("/", "\u2044") in json.loads(hostile.data)["runs"][0]["name"]


def test_names_that_are_no_text_still_make_a_page(tmp_path):
    page = page_with(tmp_path / "a", "caf\udce9")
    write_page(tmp_path / "page.html", page)
    assert "caf?" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_importing_the_limits_is_cheap():
    code = "import sys, smoothcert.limits; print({'torch', 'numpy', 'pyarrow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
