"""Images in parquet files: the values, the order, the names, and the errors."""

import io
import json
import struct
import zlib

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from image_files import encode, hub_table, on_grid, pixels, write, write_images
from smoothcert.classes import ClassWarning
from smoothcert.data import DATA_DIR_VARIABLE, load_data
from smoothcert.data import encoded as encoded_module
from smoothcert.errors import DataError, FileError, InputError


@pytest.fixture(autouse=True)
def no_data_dir(monkeypatch):
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)


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
        ([5, 6, 3], {"dim_names": ["C", "H", "W"]}, "is not an image"), ([5, 9, 2], {}, "is not an image"),
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

    @pytest.mark.parametrize("form", ["null bytes", "empty bytes", "path alone", "text", "dictionary of text"])
    def test_paths_start_at_the_file(self, tmp_path, form, monkeypatch):
        """An absolute path is taken as it is."""
        files = write_images(tmp_path / "set" / "images", self.GREY)
        paths = [f"images/{file.name}" for file in files[:3]] + [str(files[3])]
        both = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        column = {"null bytes": pa.array([{"bytes": None, "path": p} for p in paths], both),
                  "empty bytes": pa.array([{"bytes": b"", "path": p} for p in paths], both),
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
        """As pandas writes them, with classes that no row has; where files disagree on the order, it is by name."""
        def categorical(names):
            told = {"columns": [{"name": "label", "pandas_type": "categorical"}]}
            column = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), names)
            table = pa.table({"image": [encode(x) for x in self.GREY[:2]], "label": column})
            return table.replace_schema_metadata({"pandas": json.dumps(told)})

        write(tmp_path / "test-0.parquet", categorical(["dog", "cat", "eel"]))
        write(tmp_path / "test-1.parquet", categorical(["dog", "cat", "eel"]))
        data = load_data(f"parquet:{tmp_path}")
        assert (data.labels.tolist(), data.class_names) == ([0, 1, 0, 1], ("dog", "cat", "eel"))
        write(tmp_path / "test-1.parquet", categorical(["dog", "eel"]))
        data = load_data(f"parquet:{tmp_path}")
        assert (data.labels.tolist(), data.class_names) == ([0, 1, 0, 2], ("dog", "cat", "eel"))
        write(tmp_path / "test-1.parquet", categorical(["cat", "dog", "eel"]))
        with pytest.warns(ClassWarning, match=r"categories of label differ between files \(cat, dog, eel and dog"):
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
        ({"image": [b""], "kind": [1]}, r"no label column .*image \(binary\), kind \(int64\)"),
        ({"text": ["a"], "label": [1]}, r"no image column.*text \(string\), label \(int64\)"),
        ({"left": [b""], "right": [b""], "label": [1]}, r"several columns that could be images \(left, right\)"),
        ({"image": [[["a"]]], "label": [1]}, "lists must hold numbers, these are string"),
        ({"image": [b""] * 2, "label": ["a", "b"]}, "row 0 of .*cannot be decoded"),
        ({"image": [b""] * 2, "label": [1.0, 0.5]}, r"row 1 of .* has label 0\.5 \(.*regression\); labels must"),
        ({"image": [b""] * 2, "label": [0.0, float("nan")]}, r"row 1 of .* has label nan \(a missing label\?\)"),
        ({"image": [b""] * 2, "label": [b"a", b"b"]}, "the column label has type binary"),
        ({"image": [b""] * 2, "label": [[0, 1], [1, 1]]}, r"row 1 of .* label \[1, 1\].* one-hot"),
        ({"image": [b""] * 2, "label": ["a", None]}, r"row 1 of .*x\.parquet has no label"),
        ({"image": [b"", None], "label": [0, 1]}, "row 0 of .*cannot be decoded"),
        ({"image": [{"path": None}, {"path": "b"}], "label": [0, 1]}, "row 0 of .* neither bytes nor a path"),
        ({"image": [{"path": "../a.png"}] * 2, "label": [0, 1]}, "row 0 of .*leads out of the folder"),
        ({"image": ["https://x.org/a.png"] * 2, "label": [0, 1]}, "row 0 of .*only files are read"),
        ({"image": [b""] * 2, "label": [0, None]}, r"row 1 of .*x\.parquet has no label"),
        ({"image": [b""] * 2, "label": [1, -1]}, r"row 1 of .*x\.parquet has label -1; labels must be at least 0$"),
        ({"image": [b""] * 2, "label": [-1, -1]}, r"row 0 of .*-1 marks images whose labels are not given: take anoth"),
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
        kind, words = (FileError, r"2\.png cannot be read") if not content else (DataError, "cannot be decoded")
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
