"""Every way to load images: the values, the order, the names, and what is said when something is wrong."""

import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from smoothcert.data import DATA_DIR_VARIABLE, channel_statistics, from_tensors, load_data, select_indices, take_evenly
from smoothcert.data import encoded as encoded_module
from smoothcert.data.preprocess import Preprocess
from smoothcert.errors import DataError, FileError, InputError, MissingExtraError, UnknownNameError

STORED = Path(os.environ.get(DATA_DIR_VARIABLE) or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture(autouse=True)
def no_data_dir(monkeypatch):
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)


def stored(name):
    if not (STORED / name).is_dir():
        pytest.skip(f"{name} is not in {STORED}; set {DATA_DIR_VARIABLE} to the folder that holds it")
    return STORED


def pixels(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def encode(array, format="PNG"):
    file = io.BytesIO()
    Image.fromarray(array).save(file, format)
    return file.getvalue()


def png(bits, kind, row):
    """A PNG file of one pixel, of a depth and colour type that Pillow does not write."""
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, bits, kind, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b""))


def tiff(bits, samples, kind=1):
    """A TIFF file of one pixel, whose samples are 1, 2, ...; kind: its SampleFormat."""
    tags = {256: 1, 257: 1, 258: bits, 259: 1, 262: 2 if samples > 2 else 1, 273: 0, 277: samples, 278: 1,
            279: samples * bits // 8, **({338: 2} if samples == 4 else {}), 339: kind}
    end = 8 + 2 + 12 * len(tags) + 4
    tags |= {273: end + 16, **({258: end, 339: end + 8} if samples > 2 else {})}
    entries = b"".join(struct.pack("<HHII", tag, 3, samples if tag in (258, 339) else 1, value)
                       for tag, value in tags.items())
    lists = struct.pack("<8H", *[bits] * 4, *[kind] * 4)
    content = b"".join((k + 1).to_bytes(bits // 8, "little") for k in range(samples))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + lists + content


JPEG_OF_12_BITS = encode(pixels(1, 8, 8, 3)[0], "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c")


def hub_table(images, labels, image="image", label="label", names=None):
    """A table in the hub's layout; images: arrays, or bytes as they are."""
    content = [{"bytes": x if x is None or isinstance(x, bytes) else encode(x), "path": f"{i}.png"}
               for i, x in enumerate(images)]
    columns = {image: pa.array(content, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
               label: pa.array(labels)}
    table = pa.table(columns)
    if names is None:
        return table
    features = {"info": {"features": {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}}}
    return table.replace_schema_metadata({"huggingface": json.dumps(features)})


def write(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), path)
    return path


def write_images(folder, images, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(folder / f"{i}{suffix}")
    return sorted(folder.iterdir())


def on_grid(data, count=50):
    values = data.levels * data.batch(range(min(count, len(data)))).astype(np.float64)
    return np.abs(values - np.round(values)).max() < 2**-12


class TestDigits:
    def test_every_fifth_image_is_test(self):
        test, train = load_data("digits"), load_data("digits", "train")
        assert (len(test), len(train)) == (359, 1438)
        assert (test.shape, test.levels, test.num_classes, test.class_names[9]) == ((1, 8, 8), 16, 10, "9")
        assert test.labels[:3].tolist() == [4, 9, 4]
        assert train.labels[:5].tolist() == [0, 1, 2, 3, 5]
        assert on_grid(test, 359)
        assert test.batch(range(359)).max() == 1

    def test_resized_digits_stay_on_their_grid(self):
        data = load_data("digits", resize=16, crop=12)
        assert data.shape == (1, 12, 12)
        assert data.image(0).shape == (1, 12, 12)
        assert on_grid(data)

    def test_wrong_requests(self):
        with pytest.raises(InputError, match=r"no split 'val'; its splits: train, test"):
            load_data("digits", "val")
        with pytest.raises(InputError, match="num_classes is 5, but the data name 10"):
            load_data("digits", num_classes=5)
        with pytest.raises(DataError, match="too small for a centre crop of 9"):
            load_data("digits", crop=9)
        with pytest.raises(InputError, match="resize must be at least 1"):
            load_data("digits", resize=0)


class TestRealData:
    def test_mnist(self):
        data = load_data("mnist", data_dir=stored("mnist"))
        assert data.labels[:5].tolist() == [7, 2, 1, 0, 4]
        assert (len(data), data.shape, data.levels, data.num_classes) == (10_000, (1, 28, 28), 255, 10)
        assert data.image(0).dtype == np.float32
        assert on_grid(data)
        assert "PNG" in data.description

    def test_cifar10(self, monkeypatch):
        monkeypatch.setenv(DATA_DIR_VARIABLE, str(stored("cifar10")))
        data = load_data("cifar10")
        assert (len(data), data.shape, data.class_names[0], data.class_names[9]) == \
            (10_000, (3, 32, 32), "airplane", "truck")
        assert on_grid(data)
        mean, std = channel_statistics(data)
        assert (mean, std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))

    def test_a_single_image_decodes_a_single_image(self, monkeypatch):
        data = load_data("mnist", "train", data_dir=stored("mnist"))
        asked = []
        decode = encoded_module.decode_image
        monkeypatch.setattr(encoded_module, "decode_image", lambda *args: asked.append(args[1]) or decode(*args))
        data.image(59_999)
        data.image(59_999)
        assert asked == [f"row 59999 of {STORED / 'mnist' / 'train.parquet'}"]

    def test_resize_comes_before_the_noise(self):
        data = load_data("mnist", data_dir=stored("mnist"), resize=14)
        assert data.image(0).shape == data.shape == (1, 14, 14)
        assert data.fingerprint([0]) != load_data("mnist", data_dir=STORED).fingerprint([0])


class TestNamedSets:
    IMAGES, LABELS = pixels(6, 28, 28), [0, 1, 2, 3, 4, 9]

    @pytest.mark.parametrize("layout", [
        "mnist/test.parquet", "mnist/test-00000-of-00001.parquet", "mnist/data/test-00000-of-00001.parquet",
        "mnist/mnist/test-00000-of-00001.parquet", "mnist/plain_text/test-00000-of-00001.parquet",
        "test.parquet", "test-00000-of-00001.parquet"])
    def test_every_layout_is_found(self, tmp_path, layout):
        write(tmp_path / layout, hub_table(self.IMAGES, self.LABELS))
        data = load_data("mnist", data_dir=tmp_path)
        assert np.array_equal(data.batch(range(6)), self.IMAGES[:, None].astype(np.float32) / np.float32(255))
        assert data.labels.tolist() == self.LABELS
        assert (data.name, data.split, data.num_classes) == ("mnist", "test", 10)

    def test_data_dir_wins_over_the_environment(self, tmp_path, monkeypatch):
        write(tmp_path / "a/mnist/test.parquet", hub_table(self.IMAGES, self.LABELS))
        write(tmp_path / "b/mnist/test.parquet", hub_table(self.IMAGES[:3], self.LABELS[:3]))
        monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "b"))
        assert len(load_data("mnist")) == 3
        assert len(load_data("mnist", data_dir=tmp_path / "a")) == 6

    def test_another_data_set_in_the_folder_itself_does_not_fit(self, tmp_path):
        write(tmp_path / "test.parquet", hub_table(pixels(2, 32, 32, 3), [0, 1], image="img"))
        with pytest.raises(FileError, match=r"test\.parquet there is of another data set"):
            load_data("mnist", data_dir=tmp_path)
        assert len(load_data("cifar10", data_dir=tmp_path)) == 2

    def test_a_set_of_another_shape_is_refused(self, tmp_path):
        write(tmp_path / "mnist/test.parquet", hub_table(pixels(2, 32, 32, 3), [0, 1]))
        with pytest.raises(DataError, match=r"shape \(3, 32, 32\); those of mnist are \(1, 28, 28\)"):
            load_data("mnist", data_dir=tmp_path)

    def test_an_eleventh_class_is_refused(self, tmp_path):
        write(tmp_path / "mnist/test.parquet", hub_table(self.IMAGES, [0, 1, 2, 10, 4, 5]))
        with pytest.raises(DataError, match=r"row 3 of .*test\.parquet has label 10.*0\.\.9 \(10 classes\)"):
            load_data("mnist", data_dir=tmp_path)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileError) as caught:
            load_data("cifar10", "train", data_dir=tmp_path)
        for part in (str(tmp_path), "cifar10/train.parquet", "cifar10/plain_text/train-*.parquet", " train.parquet"):
            assert part in str(caught.value)
        with pytest.raises(FileError, match="is not a folder"):
            load_data("mnist", data_dir=tmp_path / "absent")

    def test_a_corrupt_file_in_the_folder_itself(self, tmp_path):
        (tmp_path / "test.parquet").write_bytes(b"nonsense")
        with pytest.raises(FileError, match=r"test\.parquet cannot be read as a parquet file"):
            load_data("mnist", data_dir=tmp_path)

    def test_unknown_split(self, tmp_path):
        with pytest.raises(InputError, match=r"mnist has no split 'val'; its splits: train, test"):
            load_data("mnist", "val", data_dir=tmp_path)

    def test_without_a_folder_the_hub_library_is_needed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(MissingExtraError, match=r"--data-dir.*SMOOTHCERT_DATA_DIR.*smoothcert\[hub\]"):
            load_data("mnist")

    def test_through_the_hub_library(self, monkeypatch):
        table = hub_table(pixels(2, 32, 32, 3), [3, 9], image="img")
        asked = []

        class HubDataset:
            def with_format(self, kind):
                assert kind == "arrow"
                return self

            def __getitem__(self, rows):
                return table[rows]

        def load_dataset(repository, split):
            asked.append((repository, split))
            return HubDataset()

        monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
        data = load_data("cifar10", "train")
        assert asked == [("uoft-cs/cifar10", "train")]
        assert (len(data), data.num_classes, data.class_names[3]) == (2, 10, "cat")

    def test_a_failing_hub_says_what_to_do(self, monkeypatch):
        def load_dataset(repository, split):
            raise ConnectionError("offline")

        monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
        with pytest.raises(FileError, match=r"cannot be fetched.*offline.*--data-dir"):
            load_data("mnist")


class TestParquet:
    GREY, COLOUR = pixels(4, 5, 6), pixels(4, 5, 6, 3)
    LABELS = (0, 1, 2, 1)

    def load(self, tmp_path, table, **options):
        return load_data(f"parquet:{write(tmp_path / 'x.parquet', table)}", **options)

    @pytest.mark.parametrize("image", ["image", "img", "picture"])
    @pytest.mark.parametrize("label", ["label", "labels", "fine_label", "y", "target"])
    def test_column_names(self, tmp_path, image, label):
        data = self.load(tmp_path, hub_table(self.COLOUR, self.LABELS, image, label))
        assert data.shape == (3, 5, 6)
        assert np.array_equal(data.batch(range(4)) * np.float32(255), self.COLOUR.transpose(0, 3, 1, 2))
        assert data.class_names == ("0", "1", "2")

    def test_bytes_of_any_format(self, tmp_path):
        table = {"image": [encode(x, f) for x, f in zip(self.GREY, ("PNG", "BMP", "TIFF", "PNG"), strict=True)],
                 "label": self.LABELS}
        data = self.load(tmp_path, table)
        assert np.array_equal(data.batch(range(4))[:, 0] * np.float32(255), self.GREY)
        assert "BMP/PNG/TIFF" in data.description

    @pytest.mark.parametrize("layout", ["HW", "HWC", "CHW"])
    @pytest.mark.parametrize("kind", ["uint8", "int64", "float32", "float64"])
    def test_nested_lists(self, tmp_path, layout, kind):
        values = {"HW": self.GREY, "HWC": self.COLOUR, "CHW": self.COLOUR.transpose(0, 3, 1, 2)}[layout]
        expected = (self.GREY[:, None] if layout == "HW" else self.COLOUR.transpose(0, 3, 1, 2)) / np.float32(255)
        stored_values = (values / 255).astype(kind) if kind.startswith("float") else values.astype(kind)
        depth = pa.from_numpy_dtype(kind)
        for _ in layout:
            depth = pa.list_(depth)
        data = self.load(tmp_path, {"image": pa.array(stored_values.tolist(), depth), "label": self.LABELS})
        assert data.image(1).dtype == np.float32
        np.testing.assert_allclose(data.batch(range(4)), expected, rtol=1e-6)
        assert on_grid(data)

    def test_fixed_size_lists(self, tmp_path):
        kind = pa.list_(pa.list_(pa.uint8(), 6), 5)
        data = self.load(tmp_path, {"image": pa.array(self.GREY.tolist(), kind), "label": self.LABELS})
        assert np.array_equal(data.batch([2, 0])[:, 0] * np.float32(255), self.GREY[[2, 0]])

    def test_flat_lists_with_a_shape(self, tmp_path):
        flat = pa.array(self.COLOUR.reshape(4, -1).tolist(), pa.list_(pa.uint8()))
        field = pa.field("image", flat.type, metadata={"shape": "[5, 6, 3]"})
        tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(self.COLOUR)
        tables = [pa.table({"image": flat, "label": self.LABELS, "shape": [[5, 6, 3]] * 4}),
                  pa.table([flat, pa.array(self.LABELS)], schema=pa.schema([field, ("label", pa.int64())])),
                  pa.table({"image": tensor, "label": self.LABELS})]
        for table in tables:
            data = self.load(tmp_path, table)
            assert np.array_equal(data.batch(range(4)) * np.float32(255), self.COLOUR.transpose(0, 3, 1, 2))

    @pytest.mark.parametrize("view", ["HWC", "CHW of HWC", "WHC of HWC", "HWC of CHW"])
    def test_tensors_are_read_as_they_were_meant(self, tmp_path, view):
        """`from_numpy_ndarray` stores a transposed view as it lies in memory, with a permutation."""
        channels_first = np.ascontiguousarray(self.COLOUR.transpose(0, 3, 1, 2))
        meant = {"HWC": self.COLOUR, "CHW of HWC": self.COLOUR.transpose(0, 3, 1, 2),
                 "WHC of HWC": self.COLOUR.transpose(0, 2, 1, 3),
                 "HWC of CHW": channels_first.transpose(0, 2, 3, 1)}[view]
        tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(meant)
        table = pa.table({"image": pa.chunked_array([tensor[1:], tensor[:1]]), "label": self.LABELS})
        data = self.load(tmp_path, table)
        expected = meant if meant.shape[1] == 3 else meant.transpose(0, 3, 1, 2)
        assert np.array_equal(data.batch([3, 0, 1, 2]) * np.float32(255), expected)

    def test_a_transposed_grey_tensor_stays_transposed(self, tmp_path):
        tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(self.GREY.transpose(0, 2, 1))
        data = self.load(tmp_path, {"image": tensor, "label": self.LABELS})
        assert np.array_equal(data.batch(range(4))[:, 0] * np.float32(255), self.GREY.transpose(0, 2, 1))

    @pytest.mark.parametrize("options", [
        {"permutation": [2, 0, 1]}, {"permutation": [2, 0, 1], "dim_names": ["H", "W", "C"]},
        {"dim_names": ["height", "width", "channels"]}, {"permutation": [1, 2, 0], "dim_names": ["C", "H", "W"]},
        {"dim_names": ["a", "b", "c"]}, {}])
    @pytest.mark.parametrize("form", ["type", "metadata", "variable"])
    def test_permutations_and_names_of_axes(self, tmp_path, options, form):
        """The type as registered, as metadata alone, and Arrow's variable shapes, which pyarrow does not know."""
        flat = pa.FixedSizeListArray.from_arrays(pa.array(self.COLOUR.ravel()), 90)
        name = "arrow.fixed_shape_tensor"
        told = json.dumps({"shape": [5, 6, 3], **options})
        metadata = {"ARROW:extension:name": name, "ARROW:extension:metadata": told}
        table = pa.table([flat, pa.array(self.LABELS)], schema=pa.schema([
            pa.field("image", flat.type, metadata=metadata), ("label", pa.int64())]))
        if form == "variable":
            table = self.of_variable_shape(flat.cast(pa.list_(pa.uint8())), [[5, 6, 3]] * 4, self.LABELS, options)
        if form == "type":
            kind = pa.fixed_shape_tensor(pa.uint8(), [5, 6, 3], **options)
            table = pa.table({"image": pa.ExtensionArray.from_storage(kind, flat), "label": self.LABELS})
        path = write(tmp_path / "x.parquet", table)
        if form == "metadata":
            pa.unregister_extension_type(name)
        try:
            data = load_data(f"parquet:{path}")
        finally:
            if form == "metadata":
                pa.register_extension_type(pa.fixed_shape_tensor(pa.uint8(), [1]))
        assert np.array_equal(data.batch(range(4)) * np.float32(255), self.COLOUR.transpose(0, 3, 1, 2))

    @pytest.mark.parametrize(("shape", "options", "message"), [
        ([5, 6], {"permutation": [1, 0], "dim_names": ["H", "W"]}, "different images"),
        ([3, 10, 3], {"permutation": [1, 2, 0]}, "different images"),
        ([5, 6, 3], {"dim_names": ["C", "H", "W"]}, "is no image"), ([5, 9, 2], {}, "is no image"),
    ])
    def test_tensors_that_are_no_images(self, tmp_path, shape, options, message):
        kind = pa.fixed_shape_tensor(pa.uint8(), shape, **options)
        flat = pa.array(np.zeros(2 * int(np.prod(shape)), np.uint8))
        storage = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(shape)))
        with pytest.raises(DataError, match=f"row 0 of .*{message}"):
            self.load(tmp_path, {"image": pa.ExtensionArray.from_storage(kind, storage), "label": [0, 1]})

    @pytest.mark.parametrize("form", ["fixed", "variable"])
    def test_names_go_before_the_order_of_axes(self, tmp_path, form):
        """Stored as (W, C, H), by its names alone or with a permutation."""
        for told in ({"dim_names": ["W", "C", "H"]}, {"dim_names": ["W", "C", "H"], "permutation": [1, 2, 0]}):
            flat = pa.FixedSizeListArray.from_arrays(pa.array(self.COLOUR.transpose(0, 2, 3, 1).ravel()), 90)
            if form == "fixed":
                column = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.uint8(), [6, 3, 5], **told), flat)
                table = pa.table({"image": column, "label": self.LABELS})
            else:
                table = self.of_variable_shape(flat.cast(pa.list_(pa.uint8())), [[6, 3, 5]] * 4, self.LABELS, told)
            data = self.load(tmp_path, table)
            assert np.array_equal(data.batch(range(4)) * np.float32(255), self.COLOUR.transpose(0, 3, 1, 2))

    def of_variable_shape(self, values, shapes, labels, told):
        """A table of Arrow's tensors of variable shape, by metadata: not all versions of pyarrow know the type."""
        shapes = pa.array(shapes, pa.list_(pa.int32(), len(shapes[0])))
        stored = pa.StructArray.from_arrays([values, shapes], ["data", "shape"])
        field = pa.field("image", stored.type, metadata={
            "ARROW:extension:name": "arrow.variable_shape_tensor", "ARROW:extension:metadata": json.dumps(told)})
        return pa.table([stored, pa.array(labels)], schema=pa.schema([field, ("label", pa.int64())]))

    def test_tensors_of_several_shapes(self, tmp_path):
        values = pa.array([[1] * 6] * 2, pa.list_(pa.uint8()))
        table = self.of_variable_shape(values, [[2, 3], [3, 2]], [0, 1], {})
        with pytest.raises(DataError, match=r"row 1 of .* has shape \[3, 2\], the first image \[2, 3\]"):
            self.load(tmp_path, table)

    @pytest.mark.parametrize("kind", ["list_view", "large_list_view", "large_list"])
    def test_lists_of_other_sorts(self, tmp_path, kind):
        make = getattr(pa, kind, None) or pytest.skip(f"this pyarrow has no {kind}")
        column = pa.array(self.GREY.tolist(), make(make(pa.uint8())))
        data = self.load(tmp_path, {"image": column, "label": self.LABELS})
        assert np.array_equal(data.batch(range(4))[:, 0] * np.float32(255), self.GREY)

    @pytest.mark.parametrize("kind", ["binary_view", "large_binary", "dictionary", "views in a struct"])
    def test_encoded_images_of_other_sorts(self, tmp_path, kind):
        content = [encode(x) for x in self.GREY]
        if kind == "dictionary":
            column = pa.array(content).dictionary_encode()
        elif kind == "views in a struct":
            column = pa.array([{"bytes": one, "path": None} for one in content],
                              pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())]))
        else:
            column = pa.array(content, getattr(pa, kind)())
        data = self.load(tmp_path, {"image": column, "label": self.LABELS})
        assert np.array_equal(data.batch(range(4))[:, 0] * np.float32(255), self.GREY)

    @pytest.mark.parametrize("form", ["null bytes", "path alone", "text", "dictionary of text"])
    def test_paths_start_at_the_file(self, tmp_path, form, monkeypatch):
        """An absolute path is taken as it is."""
        files = write_images(tmp_path / "set" / "images", self.GREY)
        paths = [f"images/{file.name}" for file in files[:3]] + [str(files[3])]
        both = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        column = {"null bytes": pa.array([{"bytes": None, "path": p} for p in paths], both),
                  "path alone": pa.array([{"path": p} for p in paths]), "text": pa.array(paths),
                  "dictionary of text": pa.array(paths).dictionary_encode()}[form]
        monkeypatch.chdir(tmp_path)
        write(tmp_path / "set" / "x.parquet", {"image": column, "label": self.LABELS})
        data = load_data("parquet:set/x.parquet")
        assert np.array_equal(data.batch(range(4))[:, 0] * np.float32(255), self.GREY)
        assert data.fingerprint([0]) == self.load(tmp_path, hub_table(self.GREY, self.LABELS)).fingerprint([0])
        files[0].unlink()
        with pytest.raises(FileError, match=r"row 0 of .*x\.parquet holds no image bytes.*0\.png cannot be read"):
            load_data("parquet:set/x.parquet")

    @pytest.mark.parametrize(("labels", "expected", "names"), [
        (["dog", "cat", "hen", "cat"], [1, 0, 2, 0], ("cat", "dog", "hen")),
        (pa.array(["dog", "cat", "hen", "cat"]).dictionary_encode(), [1, 0, 2, 0], ("cat", "dog", "hen")),
        (pa.array(["dog", "cat", "hen", "cat"], pa.string_view()), [1, 0, 2, 0], ("cat", "dog", "hen")),
        (pa.DictionaryArray.from_arrays(pa.array([0, 1, 3, 1], pa.uint8()), ["dog", "cat", "cow", "hen"], ordered=True),
         [0, 1, 3, 1], ("dog", "cat", "cow", "hen")),
        (["0", "10", "2", "10"], [0, 10, 2, 10], tuple(map(str, range(11)))),
        ([0.0, 1.0, 2.0, 1.0], [0, 1, 2, 1], ("0", "1", "2")), ([True, False] * 2, [1, 0] * 2, ("0", "1")),
        (pa.array([0, 1, 2, 1]).dictionary_encode(), [0, 1, 2, 1], ("0", "1", "2")),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]], [0, 1, 2, 1], ("0", "1", "2")),
    ])
    def test_labels_as_people_store_them(self, tmp_path, labels, expected, names):
        data = self.load(tmp_path, {"image": [encode(x) for x in self.GREY], "label": labels})
        assert data.labels.tolist() == expected
        assert data.class_names == names

    def test_the_categories_of_pandas_keep_their_order(self, tmp_path):
        """As pandas writes them, with classes that no row has; several files agree on the order, or it is by name."""
        def categorical(names):
            told = {"columns": [{"name": "label", "pandas_type": "categorical"}]}
            column = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), names)
            table = pa.table({"image": [encode(x) for x in self.GREY[:2]], "label": column})
            return table.replace_schema_metadata({"pandas": json.dumps(told)})

        write(tmp_path / "test-0.parquet", categorical(["dog", "cat", "eel"]))
        write(tmp_path / "test-1.parquet", categorical(["dog", "cat", "eel"]))
        data = load_data(f"parquet:{tmp_path}")
        assert (data.labels.tolist(), data.class_names) == ([0, 1, 0, 1], ("dog", "cat", "eel"))
        write(tmp_path / "test-1.parquet", categorical(["cat", "dog", "eel"]))
        data = load_data(f"parquet:{tmp_path}")
        assert (data.labels.tolist(), data.class_names) == ([1, 0, 0, 1], ("cat", "dog"))

    def test_names_among_those_that_are_known(self, tmp_path):
        table = hub_table(self.GREY, ["hen", "cat", "cow", "cat"], names=["cat", "dog", "cow", "hen"])
        assert self.load(tmp_path, table).labels.tolist() == [3, 0, 2, 0]
        with pytest.raises(DataError, match=r"row 1 of .* label 'eel', which is none of the classes cat, dog"):
            self.load(tmp_path, hub_table(self.GREY, ["cat", "eel", "dog", "cat"], names=["cat", "dog"]))

    @pytest.mark.parametrize(("shape", "message"), [
        (None, "flat lists of 90 values"), ([[5, 5, 3]] * 4, "cannot have shape"), ([[90]] * 4, "two or three"),
        ([[5, 6, 3]] * 3 + [[6, 5, 3]], "row 3 of .* has shape")])
    def test_flat_lists_with_no_or_a_wrong_shape(self, tmp_path, shape, message):
        table = {"image": self.COLOUR.reshape(4, -1).tolist(), "label": self.LABELS}
        with pytest.raises(DataError, match=message):
            self.load(tmp_path, table if shape is None else {**table, "shape": shape})

    def test_a_wrong_shape_in_the_metadata(self, tmp_path):
        field = pa.field("image", pa.list_(pa.uint8()), metadata={"shape": "five by six"})
        flat = pa.array(self.GREY.reshape(4, -1).tolist(), field.type)
        table = pa.table([flat, pa.array(self.LABELS)], schema=pa.schema([field, ("label", pa.int64())]))
        with pytest.raises(DataError, match="five by six"):
            self.load(tmp_path, table)

    def test_class_names_of_the_hub(self, tmp_path):
        names = ["cat", "dog", "cow", "hen"]
        data = self.load(tmp_path, hub_table(self.GREY, self.LABELS, names=names))
        assert data.class_names == tuple(names)
        with pytest.raises(InputError, match="num_classes is 3, but the data name 4"):
            self.load(tmp_path, hub_table(self.GREY, self.LABELS, names=names), num_classes=3)

    @pytest.mark.parametrize("metadata", ["nonsense", "[]", '{"info": {"features": {"label": {"names": 3}}}}'])
    def test_other_metadata_is_passed_over(self, tmp_path, metadata):
        table = hub_table(self.GREY, self.LABELS).replace_schema_metadata({"huggingface": metadata})
        assert self.load(tmp_path, table).num_classes == 3

    def test_the_number_of_classes_can_be_given(self, tmp_path):
        assert self.load(tmp_path, hub_table(self.GREY, self.LABELS), num_classes=7).num_classes == 7
        with pytest.raises(DataError, match=r"row 2 of .* has label 2; labels must be in 0\.\.1 \(2 classes\)"):
            self.load(tmp_path, hub_table(self.GREY, self.LABELS), num_classes=2)

    @pytest.mark.parametrize("prefix", ["", "data/"])
    def test_a_folder_of_splits(self, tmp_path, prefix):
        write(tmp_path / f"{prefix}train-00000-of-00002.parquet", hub_table(self.GREY[:3], self.LABELS[:3]))
        write(tmp_path / f"{prefix}train-00001-of-00002.parquet", hub_table(self.GREY[3:], self.LABELS[3:]))
        write(tmp_path / f"{prefix}test.parquet", hub_table(self.GREY[:2], self.LABELS[:2]))
        data = load_data(f"parquet:{tmp_path}", "train")
        assert data.labels.tolist() == list(self.LABELS)
        assert np.array_equal(data.image(3)[0] * np.float32(255), self.GREY[3])
        assert data.source.where(3).startswith("row 0 of ")
        assert data.source.where(3).endswith("train-00001-of-00002.parquet")
        assert len(load_data(f"parquet:{tmp_path}")) == 2
        with pytest.raises(InputError, match="no split 'validation'; the splits found: test, train"):
            load_data(f"parquet:{tmp_path}", "validation")

    def test_files_with_different_columns(self, tmp_path):
        write(tmp_path / "test-0.parquet", hub_table(self.GREY, self.LABELS))
        write(tmp_path / "test-1.parquet", hub_table(self.GREY, self.LABELS, label="y"))
        with pytest.raises(DataError, match="differ in their columns"):
            load_data(f"parquet:{tmp_path}")

    def test_missing_and_corrupt_files(self, tmp_path):
        with pytest.raises(FileError, match=r"nowhere\.parquet does not exist"):
            load_data(f"parquet:{tmp_path / 'nowhere.parquet'}")
        with pytest.raises(FileError, match=r"holds no \.parquet files"):
            load_data(f"parquet:{tmp_path}")
        path = write(tmp_path / "x.parquet", hub_table(self.GREY, self.LABELS))
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(FileError, match=r"x\.parquet cannot be read as a parquet file"):
            load_data(f"parquet:{path}")

    @pytest.mark.parametrize(("columns", "message"), [
        ({"image": [b""], "class": [1]}, r"no label column .*image \(binary\), class \(int64\)"),
        ({"text": ["a"], "label": [1]}, r"no image column.*text \(string\), label \(int64\)"),
        ({"left": [b""], "right": [b""], "label": [1]}, r"several columns that could be images \(left, right\)"),
        ({"image": [[["a"]]], "label": [1]}, "pixels must be numbers, these are string"),
        ({"image": [b""] * 2, "label": ["a", "b"]}, "row 0 of .*cannot be decoded"),
        ({"image": [b""] * 2, "label": [1.0, 0.5]}, r"row 1 of .* has label 0\.5; labels must be whole numbers"),
        ({"image": [b""] * 2, "label": [0.0, float("nan")]}, r"row 1 of .* has label nan \(a missing label\?\)"),
        ({"image": [b""] * 2, "label": [b"a", b"b"]}, "the column label has type binary"),
        ({"image": [b""] * 2, "label": [[0, 1], [1, 1]]}, r"row 1 of .* label \[1, 1\].* one-hot"),
        ({"image": [b""] * 2, "label": ["a", None]}, r"row 1 of .*x\.parquet has no label"),
        ({"image": [b"", None], "label": [0, 1]}, "row 0 of .*cannot be decoded"),
        ({"image": [{"path": None}, {"path": "b"}], "label": [0, 1]}, "row 0 of .* neither bytes nor a path"),
        ({"image": [{"path": "../a.png"}] * 2, "label": [0, 1]}, "row 0 of .*leads out of the folder"),
        ({"image": ["https://x.org/a.png"] * 2, "label": [0, 1]}, "row 0 of .*only files are read"),
        ({"image": [b""] * 2, "label": [0, None]}, r"row 1 of .*x\.parquet has no label"),
        ({"image": [b""] * 2, "label": [1, -1]}, r"row 1 of .*x\.parquet has label -1; labels must be at least 0"),
        ({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}, r"x\.parquet holds no images"),
        ({"image": [[[0, 1], [1, 300]]] * 2, "label": [0, 1]}, r"row 0 of .* pixel of value 300.*whole numbers in 0"),
        ({"image": [[[0.0, 1.5]]] * 2, "label": [0, 1]}, r"pixel of value 1\.5.*in \[0, 1\]"),
        ({"image": [[[0.0, 1.0]], [[float("nan"), 1.0]]], "label": [0, 1]}, r"row 1 of .*pixel of value nan"),
        ({"image": [[[0, 1], [1, 3]], [[1, 2], [3]]], "label": [0, 1]}, "row 1 of .* a list of 1 values among"),
        ({"image": [[[0, 1]], [[1, None]]], "label": [0, 1]}, r"row 1 of .* a missing value"),
        ({"image": [[[0, 1]], None], "label": [0, 1]}, r"row 1 of .* a missing value"),
        ({"image": np.zeros((2, 5, 6, 4)).tolist(), "label": [0, 1]}, r"shape \(5, 6, 4\) is none of"),
    ])
    def test_unusable_content(self, tmp_path, columns, message):
        with pytest.raises(DataError, match=message):
            self.load(tmp_path, columns)

    def test_one_class_is_not_enough(self, tmp_path):
        with pytest.raises(DataError, match="has 1 class; certification needs at least two"):
            self.load(tmp_path, hub_table(self.GREY, [0, 0, 0, 0]))

    @pytest.mark.parametrize("content", [b"", b"not an image", encode(GREY[0])[:40], None])
    def test_a_corrupt_image(self, tmp_path, content):
        kind, words = (FileError, r"2\.png cannot be read") if content is None else (DataError, "cannot be decoded")
        with pytest.raises(kind, match=rf"row 2 of .*x\.parquet.*{words}"):
            self.load(tmp_path, hub_table([*self.GREY[:2], content], [0, 1, 2]))

    def test_an_image_that_breaks_off_is_found_when_it_is_read(self, tmp_path):
        whole = encode(pixels(1, 64, 64)[0])
        data = self.load(tmp_path, hub_table([pixels(1, 64, 64)[0], whole[:len(whole) // 2]], [0, 1]))
        data.image(0)
        with pytest.raises(DataError, match=r"row 1 of .*x\.parquet: cannot be decoded"):
            data.image(1)

    def test_images_of_different_sizes(self, tmp_path):
        table = hub_table([pixels(1, 10, 12)[0], pixels(1, 12, 20)[0]], [0, 1])
        with pytest.raises(DataError, match=r"row 0 of .* is 10x12, row 1 of .* is 12x20; give resize and crop"):
            self.load(tmp_path, table)
        with pytest.raises(DataError, match=r"after preprocessing \(shorter side to 8"):
            self.load(tmp_path, table, resize=8)
        data = self.load(tmp_path, table, resize=8, crop=8)
        assert data.batch([0, 1]).shape == (2, 1, 8, 8)
        assert on_grid(data)

    def test_arrays_are_resized_too(self, tmp_path):
        table = {"image": (self.COLOUR / 255).tolist(), "label": self.LABELS}
        data = self.load(tmp_path, table, resize=10, crop=10)
        assert data.batch([0, 1]).shape == (2, 3, 10, 10)
        assert data.batch([]).shape == (0, 3, 10, 10)
        assert data.batch(range(4)).min() >= 0
        assert data.batch(range(4)).max() <= 1

    def test_a_large_set_is_checked_by_sample_and_then_when_read(self, tmp_path, monkeypatch):
        monkeypatch.setattr(encoded_module, "SURVEY_LIMIT", 3)
        monkeypatch.setattr(encoded_module, "SURVEY_SAMPLE", 2)
        odd_size = [self.GREY[0], pixels(1, 7, 7)[0], self.GREY[2], self.GREY[3]]
        data = self.load(tmp_path, hub_table(odd_size, self.LABELS))
        assert data.image(3).shape == (1, 5, 6)
        with pytest.raises(DataError, match=r"row 1 of .* comes out as 7x7, the others as 5x6"):
            data.batch(range(4))
        odd_mode = [self.GREY[0], self.COLOUR[1], self.GREY[2], self.GREY[3]]
        with pytest.raises(DataError, match=r"row 1 of .* a colour image among grey ones"):
            self.load(tmp_path, hub_table(odd_mode, self.LABELS)).image(1)

    def test_an_image_bomb(self, tmp_path):
        def png_of(width, height):
            head = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
            return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + head + zlib.crc32(head).to_bytes(4, "big") \
                + (9).to_bytes(4, "big") + b"IDAT" + b"x" * 9

        for side, message in ((9_000, "the limit is 64,000,000"), (100_000, "too large to decode")):
            with pytest.raises(DataError, match=rf"row 1 of .*{message}"):
                self.load(tmp_path, hub_table([self.GREY[0], png_of(side, side)], [0, 1]))

    @pytest.mark.filterwarnings("error")
    def test_an_image_bomb_where_warnings_are_errors(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
        with pytest.raises(DataError, match="too large to decode"):
            self.load(tmp_path, hub_table(self.GREY, self.LABELS))

    @pytest.mark.parametrize(("content", "bits"), [
        *((png(16, kind, bytes(range(2 * n))), 16) for kind, n in ((0, 1), (2, 3), (4, 2), (6, 4))),
        (b"P6 1 1 65535\n" + bytes(6), 16), (b"P6#a 8\n 1 #b\n1\n1023\n" + bytes(6), 10), (b"P3 1 1 256\n1 2 3\n", 9),
        (b"P5 1 1 65535\n" + bytes(2), 16), (b"P2 1 1 4095\n7\n", 12), (b"Pf\n1 1\n-1.0\n" + bytes(4), 32),
        (tiff(16, 1), 16), (tiff(16, 3), 16), (tiff(16, 4), 16), (tiff(16, 1, 2), 16), (tiff(32, 1), 32),
        (tiff(32, 1, 3), 32), (JPEG_OF_12_BITS, 12),
    ])
    def test_images_of_more_than_8_bits(self, tmp_path, content, bits):
        """By the file's own header: Pillow would give the high bytes of most of them, in the mode of 8 bits."""
        with pytest.raises(DataError, match=rf"row 1 of .*more than 8 bits per channel \({bits}\).*convert it to 8"):
            self.load(tmp_path, hub_table([encode(self.GREY[0]), content], [0, 1]))

    def test_a_signed_tiff(self, tmp_path):
        with pytest.raises(DataError, match=r"row 0 of .*signed or floats"):
            self.load(tmp_path, hub_table([tiff(8, 1, 2)] * 2, [0, 1]))

    @pytest.mark.parametrize(("content", "expected"), [
        (png(1, 0, b"\x80"), [[255]]), (png(2, 0, b"\x40"), [[85]]), (png(4, 0, b"\x30"), [[51]]),
        (png(8, 0, b"\x05"), [[5]]), (png(8, 2, bytes([1, 2, 3])), [[1], [2], [3]]), (png(8, 4, bytes([9, 7])), [[9]]),
        (png(8, 6, bytes([1, 2, 3, 4])), [[1], [2], [3]]), (b"P6 1 1 15\n" + bytes([0, 1, 15]), [[0], [17], [255]]),
        (b"P5 1 1 255\n\x07", [[7]]), (b"P1 1 1\n1\n", [[0]]), (tiff(8, 3), [[1], [2], [3]]), (tiff(8, 1), [[1]]),
    ])
    def test_images_of_8_bits_and_less(self, tmp_path, content, expected):
        data = self.load(tmp_path, hub_table([content] * 2, [0, 1]))
        assert (255 * data.image(1))[:, 0].round().astype(int).tolist() == expected

    @pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
    def test_of_several_frames_the_first_is_taken(self, tmp_path, format):
        first, second = (Image.fromarray(np.full((4, 4, 3), shade, np.uint8)) for shade in (50, 200))
        file = io.BytesIO()
        first.save(file, format, save_all=True, append_images=[second])
        data = self.load(tmp_path, hub_table([file.getvalue()] * 2, [0, 1]))
        assert np.abs(255 * data.image(0) - 50).max() <= 1


class TestImageFolder:
    def fill(self, root, count=2, shape=(6, 5, 3), classes=("dog", "cat")):
        for seed, name in enumerate(classes):
            write_images(root / name, pixels(count, *shape, seed=seed))
        return root

    def test_classes_and_files_in_the_order_of_their_names(self, tmp_path):
        self.fill(tmp_path / "test")
        (tmp_path / "test" / "cat" / "notes.txt").write_text("no image")
        (tmp_path / "test" / ".hidden").mkdir()
        data = load_data(f"imagefolder:{tmp_path}")
        assert data.class_names == ("cat", "dog")
        assert data.labels.tolist() == [0, 0, 1, 1]
        assert [Path(data.source.where(i)).name for i in range(4)] == ["0.png", "1.png"] * 2
        expected = np.concatenate([pixels(2, 6, 5, 3, seed=1), pixels(2, 6, 5, 3, seed=0)]).transpose(0, 3, 1, 2)
        assert np.array_equal(data.batch(range(4)) * np.float32(255), expected)
        assert "as stored" in data.description

    @pytest.mark.parametrize("folder", ["test", "val", "validation"])
    def test_the_folders_of_the_test_split(self, tmp_path, folder):
        self.fill(tmp_path / folder)
        self.fill(tmp_path / "train", count=3)
        assert len(load_data(f"imagefolder:{tmp_path}", "test")) == 4
        assert len(load_data(f"imagefolder:{tmp_path}", "train")) == 6

    def test_folders_below_a_class_belong_to_it(self, tmp_path):
        """As in the layout CLASS/images/*.png; what is hidden does not count."""
        images = pixels(3, 4, 4)
        write_images(tmp_path / "test" / "a" / "images", images[:2])
        write_images(tmp_path / "test" / "b", images[2:], ".PNG")
        write_images(tmp_path / "test" / "b" / ".cache", images)
        for name in (".DS_Store", "Thumbs.db", "._0.png"):
            (tmp_path / "test" / "b" / name).write_text("no image")
        data = load_data(f"imagefolder:{tmp_path}")
        assert (data.labels.tolist(), data.class_names) == ([0, 0, 1], ("a", "b"))
        assert np.array_equal(data.batch(range(3))[:, 0] * np.float32(255), images)

    def test_a_folder_without_splits(self, tmp_path):
        data = load_data(f"imagefolder:{self.fill(tmp_path)}")
        assert (len(data), data.num_classes) == (4, 2)
        assert "not divided into splits" in data.description

    def test_a_split_that_is_not_there(self, tmp_path):
        self.fill(tmp_path / "train")
        with pytest.raises(InputError, match="no split 'test'; the splits found: train"):
            load_data(f"imagefolder:{tmp_path}", "test")

    def test_missing_folders_and_images(self, tmp_path):
        with pytest.raises(FileError, match="nowhere is not a folder"):
            load_data(f"imagefolder:{tmp_path / 'nowhere'}")
        with pytest.raises(DataError, match=r"holds no images.*classes found: none"):
            load_data(f"imagefolder:{tmp_path}")
        self.fill(tmp_path, classes=("cat",))
        with pytest.raises(DataError, match="has 1 class"):
            load_data(f"imagefolder:{tmp_path}")

    def test_the_number_of_classes_must_agree(self, tmp_path):
        with pytest.raises(InputError, match="num_classes is 5, but the data name 2"):
            load_data(f"imagefolder:{self.fill(tmp_path)}", num_classes=5)

    def test_grey_where_all_are_grey(self, tmp_path):
        grey = Image.fromarray(pixels(1, 6, 5)[0])
        write_images(tmp_path / "a", [grey, grey.convert("1"), grey.convert("LA")])
        write_images(tmp_path / "b", [grey])
        data = load_data(f"imagefolder:{tmp_path}")
        assert data.shape == (1, 6, 5)
        assert np.array_equal(data.image(2), data.image(0))
        assert set(np.unique(data.image(1))) <= {0, 1}
        write_images(tmp_path / "c", [grey.convert("RGB")])
        data = load_data(f"imagefolder:{tmp_path}")
        assert data.shape == (3, 6, 5)
        assert np.array_equal(data.image(0), data.image(4))

    @pytest.mark.filterwarnings("error")
    def test_alpha_is_dropped(self, tmp_path):
        colour = Image.fromarray(pixels(1, 6, 5, 3)[0])
        clear = colour.convert("RGBA")
        clear.putalpha(7)
        palette = colour.quantize(16)
        write_images(tmp_path / "a", [colour, clear, palette])
        palette.save(tmp_path / "a" / "3.png", transparency=b"\x00\x80")
        write_images(tmp_path / "b", [colour])
        data = load_data(f"imagefolder:{tmp_path}")
        assert np.array_equal(data.image(1), data.image(0))
        assert np.array_equal(data.image(3), data.image(2))

    def test_imagenet_preprocessing_for_large_or_mixed_images(self, tmp_path):
        self.fill(tmp_path / "mixed", shape=(40, 60, 3))
        write_images(tmp_path / "mixed" / "cow", pixels(1, 50, 50, 3))
        self.fill(tmp_path / "large", count=1, shape=(300, 280, 3))
        for name in ("mixed", "large"):
            data = load_data(f"imagefolder:{tmp_path / name}")
            assert data.shape == (3, 224, 224)
            assert "shorter side to 256 (bilinear), centre crop 224" in data.description
            assert data.image(0).shape == (3, 224, 224)
        assert load_data(f"imagefolder:{tmp_path / 'mixed'}", resize=32, crop=28).shape == (3, 28, 28)
        assert load_data(f"imagefolder:{tmp_path / 'large'}", crop=100).shape == (3, 100, 100)

    def test_many_images_decode_in_threads_to_the_same(self, tmp_path, monkeypatch):
        images = pixels(60, 64, 64)
        write_images(tmp_path / "a", images)
        write_images(tmp_path / "b", images[:1])
        monkeypatch.setattr(encoded_module.os, "cpu_count", lambda: 3)
        data = load_data(f"imagefolder:{tmp_path}")
        by_name = np.array(sorted(range(60), key=lambda i: f"{i}.png"))
        assert np.array_equal(data.batch(range(60))[:, 0] * np.float32(255), images[by_name])

    def test_a_set_too_large_for_the_cache_decodes_each_time(self, tmp_path, monkeypatch):
        cached = load_data(f"imagefolder:{self.fill(tmp_path)}")
        monkeypatch.setattr(encoded_module, "CACHE_LIMIT", 10)
        fresh = load_data(f"imagefolder:{tmp_path}")
        for _ in range(2):
            assert np.array_equal(fresh.batch([3, 0, 3]), cached.batch([3, 0, 3]))

    def test_corrupt_and_vanished_files(self, tmp_path):
        self.fill(tmp_path)
        data = load_data(f"imagefolder:{tmp_path}")
        (tmp_path / "cat" / "0.png").unlink()
        with pytest.raises(FileError, match=r"0\.png cannot be read"):
            data.image(0)
        (tmp_path / "cat" / "0.png").write_bytes(b"nonsense")
        with pytest.raises(DataError, match=r"cat/0\.png: cannot be decoded; .* not in an image format"):
            load_data(f"imagefolder:{tmp_path}")


class TestPreprocess:
    def test_an_even_image_is_cropped_in_the_middle(self):
        image = np.arange(36, dtype=np.uint8).reshape(1, 6, 6)
        assert np.array_equal(Preprocess(crop=2).apply_array(image)[0], image[0, 2:4, 2:4])

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_a_constant_image_stays_constant(self, dtype):
        image = np.ones((3, 9, 13), dtype=dtype)
        result = Preprocess(resize=7, crop=5).apply_array(image)
        assert result.dtype == dtype
        np.testing.assert_allclose(result, np.ones((3, 5, 5)), rtol=1e-6)

    def test_sizes_truncate_as_in_torchvision(self):
        assert Preprocess(resize=256).output_size((375, 500), "x") == (256, 341)
        assert Preprocess(resize=256).output_size((500, 375), "x") == (341, 256)


class TestFromTensors:
    def test_tensors_arrays_and_integers_agree(self):
        images = pixels(4, 3, 2, 2)
        floats = torch.from_numpy(images).float().div(255).requires_grad_()
        expected = images.astype(np.float32) / np.float32(255)
        for given in (images, images.astype(np.int64), floats, floats.detach().numpy(), torch.from_numpy(images)):
            data = from_tensors(given, torch.tensor([0, 1, 1, 0]), num_classes=4)
            np.testing.assert_allclose(data.batch(range(4)), expected, rtol=1e-6)
            assert (data.num_classes, data.shape, data.levels, data.name) == (4, (3, 2, 2), 255, "tensors")

    def test_levels(self):
        data = from_tensors(np.full((2, 1, 2, 2), 16, dtype=np.uint8), [0, 1], levels=16, name="mine")
        assert (data.levels, data.name) == (16, "mine")
        assert np.array_equal(data.image(0), np.ones((1, 2, 2)))
        with pytest.raises(DataError, match=r"pixel of value 17; pixels must be whole numbers in 0\.\.16"):
            from_tensors(np.full((2, 1, 2, 2), 17), [0, 1], levels=16)

    @pytest.mark.parametrize(("images", "labels", "error", "message"), [
        (np.zeros((2, 4, 4)), [0, 1], InputError, r"\(N, C, H, W\), got \(2, 4, 4\)"),
        (np.zeros((2, 1, 0, 4)), [0, 1], InputError, r"\(N, C, H, W\)"),
        (np.zeros((2, 1, 4, 4), dtype=complex), [0, 1], InputError, "complex128"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.bfloat16), [0, 1], InputError, "cannot be read as an array"),
        ([[1], [1, 2]], [0, 1], InputError, "cannot be read as an array"),
        (np.zeros((2, 1, 4, 4)), [0, 1, 1], InputError, "2 images and 3 labels"),
        (np.zeros((2, 8, 9, 3)), [0, 1], InputError, r"looks like \(N, H, W, C\)"),
        (np.zeros((2, 1, 4, 4), dtype=object), [0, 1], InputError, "got object"),
        (np.zeros((2, 1, 4, 4), dtype=bool), [0, 1], InputError, r"got bool: give 0\.0 and 1\.0"),
        (np.full((2, 1, 4, 4), 300, dtype=np.uint16), [0, 1], DataError, "value 300; .*as floats in"),
        (np.full((2, 1, 4, 4), 1e300), [0, 1], DataError, "value inf"),
        (np.full((2, 1, 4, 4), np.float32(1 + 1e-7)), [0, 1], DataError, r"value 1\.0000001; pixels must"),
        (np.zeros((2, 1, 4, 4)), [0.0, 0.5], DataError, r"row 1 has label 0\.5"),
        (np.zeros((2, 1, 4, 4)), [0.0, np.nan], DataError, r"row 1 has label nan \(a missing label\?\)"),
        (np.zeros((2, 1, 4, 4)), [[0, 1], [1, 1]], DataError, r"row 1 has the label \[1, 1\].*one-hot"),
        (np.zeros((2, 1, 4, 4)), np.array(["a", None], object), DataError, "row 1 has no label"),
        (np.zeros((2, 1, 4, 4)), np.array([b"a", b"b"]), DataError, r"got \|S1"),
        (np.zeros((2, 1, 4, 4)), [0, -1], DataError, "row 1 has label -1"),
        (np.zeros((2, 1, 4, 4)), [0, 0], DataError, "at least two"),
        (np.zeros((0, 1, 4, 4)), np.zeros(0, dtype=int), DataError, "no images"),
        (np.full((2, 1, 4, 4), -0.1), [0, 1], DataError, r"in \[0, 1\]"),
        (np.full((2, 1, 4, 4), np.nan), [0, 1], DataError, "value nan"),
        (np.full((2, 1, 4, 4), 255.0), [0, 1], DataError, "divide 8-bit values by 255"),
    ])
    def test_wrong_input(self, images, labels, error, message):
        with pytest.raises(error, match=message):
            from_tensors(images, labels)

    FLOATS = np.linspace(0, 1, 96, dtype=np.float32).reshape(2, 3, 4, 4)

    @pytest.mark.parametrize("given", [
        FLOATS.astype(">f4"), np.asfortranarray(FLOATS), np.ascontiguousarray(FLOATS[..., ::-1])[..., ::-1],
        FLOATS.tolist(), FLOATS.astype(np.longdouble), np.lib.stride_tricks.as_strided(FLOATS, writeable=False),
        np.where(FLOATS == 1, 1 + 1e-12, FLOATS.astype(float)), np.where(FLOATS == 0, -1e-50, FLOATS.astype(float)),
    ], ids=["big-endian", "Fortran order", "negative strides", "list", "long", "read-only", "above 1", "below 0"])
    def test_arrays_of_any_layout_give_the_same_images(self, given):
        """What is outside by less than float32 can tell is not outside."""
        assert np.array_equal(from_tensors(given, [0, 1]).batch([0, 1]), self.FLOATS)

    @pytest.mark.parametrize(("labels", "expected", "names"), [
        ([1.0, 0.0], [1, 0], ("0", "1")), ([True, False], [1, 0], ("0", "1")), ([[1], [0]], [1, 0], ("0", "1")),
        ([[0, 1], [1, 0]], [1, 0], ("0", "1")), (["dog", "cat"], [1, 0], ("cat", "dog")),
        (["1", "0"], [1, 0], ("0", "1")), (np.array(["dog", "cat"], object), [1, 0], ("cat", "dog")),
        (np.array([1, 0], ">i8"), [1, 0], ("0", "1")),
        (torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]), [2, 0], ("0", "1", "2")),
    ])
    def test_labels_as_people_keep_them(self, labels, expected, names):
        data = from_tensors(np.zeros((2, 1, 4, 4)), labels)
        assert (data.labels.tolist(), data.class_names) == (expected, names)

    def test_labels_against_the_number_of_classes(self):
        with pytest.raises(DataError, match=r"row 1 has label 3; labels must be in 0\.\.2 \(3 classes\)"):
            from_tensors(np.zeros((2, 1, 4, 4)), [0, 3], num_classes=3)
        with pytest.raises(DataError, match="row 1 has label 5000000000; labels must be 0, 1"):
            from_tensors(np.zeros((2, 1, 4, 4)), [0, 5_000_000_000])
        assert from_tensors(np.zeros((2, 1, 4, 4)), [0, 150_000], num_classes=200_000).num_classes == 200_000
        with pytest.raises(InputError, match="num_classes must be at least 2"):
            from_tensors(np.zeros((2, 1, 4, 4)), [0, 1], num_classes=1)


class TestImageData:
    def test_batches_are_new_arrays_in_the_order_asked_for(self):
        data = from_tensors(np.linspace(0, 1, 4, dtype=np.float32).reshape(4, 1, 1, 1), [0, 1, 0, 1])
        batch = data.batch(np.array([3, 0, 3]))
        assert np.array_equal(batch.ravel(), np.float32([1, 0, 1]))
        batch[:] = 5
        assert data.image(3).item() == 1
        assert data.batch([]).shape == (0, 1, 1, 1)

    @pytest.mark.parametrize(("indices", "message"), [
        ([4], r"no image 4: the data set holds 4 \(0 to 3\)"), ([0, -1], "no image -1"), ([0.5], "flat sequence"),
        ([[0]], "flat sequence"), ([True], "flat sequence")])
    def test_indices_out_of_range(self, indices, message):
        data = from_tensors(np.zeros((4, 1, 1, 1)), [0, 1, 0, 1])
        with pytest.raises(InputError, match=message):
            data.batch(indices)
        with pytest.raises(InputError, match=message):
            data.fingerprint(indices)

    def test_the_fingerprint_is_what_it_says(self):
        data = from_tensors(np.full((2, 1, 1, 2), 7, dtype=np.uint8), [1, 0])
        header = b"smoothcert data 1; shape (1, 1, 2); levels 255; as stored"
        framed = b"".join(len(x).to_bytes(8, "little") + x for x in (header, b"\x07\x07"))
        assert data.fingerprint([0]) == hashlib.sha256(framed + (1).to_bytes(8, "little")).hexdigest()

    def test_the_fingerprint_depends_on_content_alone(self, tmp_path):
        images, labels = pixels(4, 5, 6), [0, 1, 2, 1]
        first = load_data(f"parquet:{write(tmp_path / 'a' / 'x.parquet', hub_table(images, labels))}")
        write(tmp_path / "b" / "train-0.parquet", hub_table(images[:1], labels[:1]))
        write(tmp_path / "b" / "train-1.parquet", hub_table(images[1:], labels[1:]))
        second = load_data(f"parquet:{tmp_path / 'b'}", "train")
        assert first.fingerprint(range(4)) == second.fingerprint(range(4))
        prints = [first.fingerprint([0, 1]), first.fingerprint([1, 0]), first.fingerprint([0]), first.fingerprint([])]
        for changed in (hub_table(pixels(4, 5, 6, seed=1), labels), hub_table(images, [2, 1, 2, 1])):
            prints.append(load_data(f"parquet:{write(tmp_path / 'c.parquet', changed)}").fingerprint([0]))
        prints.append(load_data(f"parquet:{tmp_path / 'a' / 'x.parquet'}", crop=4).fingerprint([0]))
        assert len(set(prints)) == len(prints)

    def test_a_data_set_travels_to_another_process(self, tmp_path):
        data = load_data(f"parquet:{write(tmp_path / 'x.parquet', hub_table(pixels(4, 5, 6), [0, 1, 2, 1]))}")
        copy = pickle.loads(pickle.dumps(data))
        assert np.array_equal(copy.batch(range(4)), data.batch(range(4)))
        assert copy.fingerprint([0]) == data.fingerprint([0])


class TestLoadData:
    @pytest.mark.parametrize(("spec", "message"), [
        ("mnits", r'unknown data set .mnits. \(did you mean "mnist"\?\); known: digits, mnist, cifar10, parquet:PATH'),
        ("parqet:/a/long/path/to/it", r'did you mean "parquet:PATH"'), ("imagefolder", r'mean "imagefolder:PATH"'),
        ("", "unknown data set")])
    def test_unknown_specs(self, spec, message):
        with pytest.raises(UnknownNameError, match=message):
            load_data(spec)

    @pytest.mark.parametrize("kind", ["parquet", "imagefolder"])
    def test_a_spec_without_its_path(self, kind):
        with pytest.raises(InputError, match=f"names no path; write {kind}:PATH"):
            load_data(f"{kind}:")

    def test_the_import_is_light(self):
        code = ("import sys, smoothcert.data; "
                "print(sorted({'torch', 'PIL', 'sklearn', 'pyarrow', 'datasets'} & set(sys.modules)))")
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert result.stdout.strip() == "[]"


class TestSelectIndices:
    def test_ranges(self):
        assert select_indices(5).tolist() == [0, 1, 2, 3, 4]
        assert select_indices(10, start=1, every=4).tolist() == [1, 5, 9]
        assert select_indices(10, every=3, max_images=2).tolist() == [0, 9]
        assert select_indices(10, start=1, every=2, max_images=3).tolist() == [1, 5, 9]
        assert select_indices(10, start=4, max_images=1).tolist() == [4]
        assert select_indices(10, max_images=99).dtype == np.int64

    @pytest.mark.parametrize(("classes", "each", "most"), [(3, 4, 3), (10, 1000, 10), (10, 37, 25), (1000, 50, 1000)])
    def test_of_data_sorted_by_class_some_images_show_every_class(self, classes, each, most):
        chosen = select_indices(classes * each, max_images=most)
        assert len(np.unique(chosen)) == most
        counts = np.bincount(chosen // each, minlength=classes)
        assert counts.min() >= most // classes >= 1
        assert counts.max() <= -(-most // classes)

    @pytest.mark.parametrize(("size", "most"), [(10, 4), (360, 100), (10_000, 9_999), (2_000_000, 1_999_999)])
    def test_places_are_those_of_an_even_grid(self, size, most):
        assert np.array_equal(take_evenly(np.arange(size), most), np.linspace(0, size - 1, most).round())

    def test_explicit_indices_keep_their_order(self):
        for given in ([7, 0, 3], np.array([7, 0, 3]), (7, 0, 3)):
            assert select_indices(8, indices=given).tolist() == [7, 0, 3]

    @pytest.mark.parametrize(("options", "message"), [
        ({"start": 10}, r"start is 10, but the data set holds 10 images \(0 to 9\)"), ({"start": -1}, "start"),
        ({"every": 0}, "every"), ({"max_images": 0}, "max_images"), ({"indices": []}, "indices is empty"),
        ({"indices": [1, 10]}, r"no image 10: the data set holds 10 \(0 to 9\)"), ({"indices": [-1]}, "no image -1"),
        ({"indices": [3, 1, 3]}, "image 3 is named twice"), ({"indices": [0.5]}, "whole number, got 0.5"),
        ({"indices": [True]}, "whole number, got True"), ({"indices": [1], "start": 1}, "leave start"),
        ({"indices": [1], "every": 2}, "leave start"), ({"indices": [1], "max_images": 1}, "leave start")])
    def test_wrong_requests(self, options, message):
        with pytest.raises(InputError, match=message):
            select_indices(10, **options)

    def test_an_empty_data_set(self):
        with pytest.raises(InputError, match="size must be at least 1"):
            select_indices(0)


class TestChannelStatistics:
    def test_they_are_the_moments_of_all_pixels(self):
        images = np.random.default_rng(0).random((1200, 2, 3, 3), dtype=np.float32)
        mean, std = channel_statistics(from_tensors(images, np.arange(1200) % 2))
        np.testing.assert_allclose(mean, images.mean((0, 2, 3)), rtol=1e-5)
        np.testing.assert_allclose(std, images.std((0, 2, 3)), rtol=1e-5)

    def test_a_sample_is_evenly_spaced(self):
        images = np.repeat(np.float32([0, 1]), 50).reshape(100, 1, 1, 1)
        mean, std = channel_statistics(from_tensors(images, np.arange(100) % 2), max_images=10)
        assert (mean, std) == ((0.5,), (0.5,))

    def test_a_constant_channel_has_the_least_std(self):
        mean, std = channel_statistics(from_tensors(np.full((4, 1, 2, 2), 0.25), [0, 1, 0, 1]))
        assert (mean, std) == ((0.25,), (1e-3,))
