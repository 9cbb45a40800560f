"""Inputs that are no images: csv:, parquet:, npz: and datasets: sources, and Python objects of any shape."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv, ipc

from image_files import pixels, write_images
from smoothcert.data import channel_statistics, from_tensors, load_data
from smoothcert.errors import ColumnsWarning, DataError, FileError, InputError

SERIES = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
LABELS = [0, 1, 0, 1]
ROWS = {"age": [1.0, 2, 3.5, 4], "sex": [1, 0, 1, 1], "name": ["p", "q", "r", "s"], "label": ["well", "ill"] * 2}


def lists(values):
    return pa.array([one.tolist() for one in values])


def write(folder, kind, columns):
    """Write the same columns as a file of one kind, and return how it is named."""
    table = pa.table(columns)
    if kind == "csv":
        csv.write_csv(table, folder / "x.csv")
        return f"csv:{folder / 'x.csv'}"
    if kind == "parquet":
        pq.write_table(table, folder / "x.parquet")
        return f"parquet:{folder / 'x.parquet'}"
    return save(folder / "saved", table)


def save(folder, table):
    """Write a table as `save_to_disk` of Hugging Face's datasets does."""
    folder.mkdir(parents=True)
    with ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    return f"datasets:{folder}"


def declared(shape):
    features = {"x": {"shape": shape, "dtype": "float32", "_type": "Array2D"}}
    return {"huggingface": json.dumps({"info": {"features": features}})}


@pytest.mark.filterwarnings("ignore::smoothcert.errors.ColumnsWarning")
@pytest.mark.parametrize("kind", ["csv", "parquet", "datasets"])
class TestColumns:
    def test_numbers_become_the_entries_of_a_row(self, tmp_path, kind):
        spec = write(tmp_path, kind, ROWS)
        data = load_data(spec)
        assert (data.shape, data.bounds, data.levels, data.class_names) == ((2,), None, None, ("ill", "well"))
        np.testing.assert_array_equal(data.batch([2, 1]), np.float32([[3.5, 1], [2, 0]]))
        chosen = load_data(spec, features="sex,age", label="name", bounds=(0, 4), levels=2)
        assert (chosen.num_classes, chosen.bounds, chosen.levels) == (4, (0.0, 4.0), 2)
        np.testing.assert_array_equal(chosen.image(2), np.float32([1, 3.5]))
        assert data.fingerprint(range(4)) == load_data(spec, features=["age", "sex"]).fingerprint(range(4))
        assert data.fingerprint(range(4)) != load_data(spec, features="sex,age").fingerprint(range(4))

    def test_columns_that_number_the_rows_are_no_features(self, tmp_path, kind):
        spec = write(tmp_path, kind, {"Unnamed: 0": [0, 1, 2, 3], "Id": [7, 8, 9, 10], **ROWS})
        with pytest.warns(ColumnsWarning, match="left out Unnamed: 0, Id, name, which hold no numbers, or number the"):
            assert load_data(spec).shape == (2,)
        assert load_data(spec, features="Id,age,sex").shape == (3,)

    @pytest.mark.parametrize(("options", "error", "words"), [
        ({"features": "ages,weight"}, DataError, r'no column ages \(did you mean "age"\?\), weight; its columns: age'),
        ({"label": "class"}, DataError, "no column class"),
        ({"features": "age,name"}, DataError, "name: row 0 of .* holds 'p', which is not a number"),
        ({"features": "age,age"}, InputError, "each once"),
        ({"features": "age,,sex"}, InputError, "part 2 of the list"),
        ({"features": "age,label"}, DataError, "no label column beside the features"),
        ({"features": "age", "label": "age"}, InputError, "may not hold its answer"),
        ({"resize": 4}, InputError, "resize and crop are for images"),
        ({"bounds": (0, 3)}, DataError, r"age: row 2 of .*: 3\.5 is outside the bounds \[0, 3\]; 2 such rows"),
        ({"bounds": (3, 0)}, InputError, "low < high"),
        ({"levels": 0}, InputError, "levels"),
    ])
    def test_wrong_options(self, tmp_path, kind, options, error, words):
        with pytest.raises(error, match=words):
            load_data(write(tmp_path, kind, ROWS), **options)

    def test_all_gaps_are_told_at_once(self, tmp_path, kind):
        columns = {**ROWS, "age": [1.0, None, 3, None], "sex": [1.0, 2, np.inf, 4]}
        with pytest.raises(DataError) as caught:
            load_data(write(tmp_path, kind, columns))
        for words in ("age: row 1", "a value is missing (NaN or empty); 2 such rows", "sex: row 2", "inf is infinite"):
            assert words in str(caught.value)
        (tmp_path / "more").mkdir()
        with pytest.raises(DataError, match=r"(?s)name: .*not a number.*age: row 1"):
            load_data(write(tmp_path / "more", kind, columns), features="age,name")


def test_the_index_of_pandas_is_no_column(tmp_path):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"a": [1.0, 2, 3, 4], "label": LABELS}, index=pandas.Index([7, 8, 9, 10], name="patient"))
    table.to_parquet(tmp_path / "x.parquet")
    with pytest.warns(ColumnsWarning, match="left out patient"):
        assert load_data(f"parquet:{tmp_path / 'x.parquet'}").columns == ("a",)
    assert load_data(f"parquet:{tmp_path / 'x.parquet'}", features="a,patient").columns == ("a", "patient")


@pytest.mark.parametrize("kind", ["parquet", "datasets"])
class TestLists:
    def test_columns_of_lists_have_their_shape(self, tmp_path, kind):
        columns = {"signal": lists(SERIES), "a": lists(SERIES[:, 0]), "b": lists(SERIES[:, 1]), "label": LABELS}
        spec = write(tmp_path, kind, columns)
        np.testing.assert_array_equal(load_data(spec, features="signal").batch(range(4)), SERIES)
        np.testing.assert_array_equal(load_data(spec, features="a,b").batch(range(4)), SERIES[:, :2])
        np.testing.assert_array_equal(load_data(spec, features="a").batch(range(4)), SERIES[:, 0])
        with pytest.raises(DataError, match=r"a holds lists of shape \(5,\), signal holds lists of shape \(3, 5\)"):
            load_data(spec, features="a,signal")
        with pytest.raises(DataError, match=r"several columns that could be images .*--features"):
            load_data(spec)

    def test_a_list_that_is_no_image_needs_no_option(self, tmp_path, kind):
        assert load_data(write(tmp_path, kind, {"x": lists(SERIES[:, 0]), "y": LABELS})).shape == (5,)

    def test_what_has_the_shape_of_an_image_is_read_as_one_unless_told(self, tmp_path, kind):
        spec = write(tmp_path, kind, {"x": lists(SERIES), "y": LABELS})
        with pytest.raises(DataError, match=r"pixel of value .*--bounds none"):
            load_data(spec)
        assert load_data(spec, bounds="none").shape == (3, 5)

    def test_ragged_and_missing_lists(self, tmp_path, kind):
        with pytest.raises(DataError, match=r"x: row 1 of .*a list of 1 values among lists of 2"):
            load_data(write(tmp_path, kind, {"x": [[1.0, 2], [3.0]], "y": [0, 1]}), features="x")

    def test_another_shape_than_the_hub_declares(self, tmp_path, kind):
        table = pa.table({"x": lists(SERIES), "y": LABELS})
        for shape, words in (([3, 5], None), ([None, 5], None), ([5, 3], r"Array2D of shape \(5, 3\), but its lists")):
            folder = tmp_path / str(shape[0])
            folder.mkdir()
            spec = write(folder, kind, table.replace_schema_metadata(declared(shape)))
            if words is None:
                assert load_data(spec, features="x").shape == (3, 5)
            else:
                with pytest.raises(DataError, match=words):
                    load_data(spec, features="x")


class TestPaths:
    """Tables whose inputs are the paths of images."""

    PIXELS = pixels(4, 6, 5, 3)

    def columns(self, folder, name):
        files = write_images(folder / "pictures", self.PIXELS)
        return {name: [str(file.relative_to(folder)) for file in files], "label": ["cat", "dog"] * 2}

    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    @pytest.mark.parametrize("name", ["image", "file_name", "path"])
    def test_usual_names(self, tmp_path, kind, name):
        data = load_data(write(tmp_path, kind, self.columns(tmp_path, name)))
        assert data.class_names == ("cat", "dog")
        assert np.array_equal(255 * data.batch(range(4)), self.PIXELS.transpose(0, 3, 1, 2))

    def test_another_name_is_asked_for(self, tmp_path):
        spec = write(tmp_path, "csv", self.columns(tmp_path, "where"))
        with pytest.raises(DataError, match=r"no image column .*--features COLUMN; its columns: where \(string\)"):
            load_data(spec)
        assert load_data(spec, features="where", resize=3).shape == (3, 3, 3)

    def test_beside_columns_of_numbers_they_are_asked_for(self, tmp_path):
        spec = write(tmp_path, "csv", {**self.columns(tmp_path, "file_name"), "age": [1.0, 2.0, 3.0, 4.0]})
        with pytest.warns(ColumnsWarning, match="left out file_name, which hold no numbers"):
            assert load_data(spec).columns == ("age",)
        assert load_data(spec, features="file_name").shape == (3, 6, 5)

    def test_other_columns_of_text_are_left_out(self, tmp_path):
        spec = write(tmp_path, "csv", {**self.columns(tmp_path, "file_name"), "note": ["a", "b", "c", "d"]})
        with pytest.warns(ColumnsWarning, match="left out note, which hold no paths of images"):
            assert load_data(spec).shape == (3, 6, 5)

    def test_a_file_that_is_not_there(self, tmp_path):
        spec = write(tmp_path, "csv", {"file_name": ["nowhere.png"], "class": ["cat"]})
        with pytest.raises(FileError, match=r"row 0 of .*x\.csv holds no image bytes, but a path: .*nowhere\.png"):
            load_data(spec)


class TestCsv:
    def load(self, tmp_path, text, **options):
        (tmp_path / "x.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_data(f"csv:{tmp_path / 'x.csv'}", **options)

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_separators_and_the_marks_of_other_programs(self, tmp_path, separator):
        text = "\ufeffa,b,y\r\n1,2,0\r\n3,\"4\",1\r\n".replace(",", separator)
        assert self.load(tmp_path, text).batch([0, 1]).tolist() == [[1, 2], [3, 4]]

    @pytest.mark.parametrize("text", ["a;b;y\n1,5;2;0\n3;-4,25;1\n", "sep=;\r\na;b;y\r\n1.5;2;0\r\n3;-4.25;1\r\n",
                                      "a, b, y\n1.5, 2, 0\n3, -4.25, 1\n", '"a,A";"b,B";"y"\n"1,5";2;0\n3;"-4,25";1\n'])
    def test_how_spreadsheets_write_them(self, tmp_path, text):
        assert self.load(tmp_path, text).batch([0, 1]).tolist() == [[1.5, 2], [3, -4.25]]

    def test_a_late_fraction_does_not_surprise(self, tmp_path):
        """Types are guessed from the whole file, not from its first block of a megabyte."""
        text = "a,y\n" + "".join(f"{i},{i % 2}\n" for i in range(150_000)) + "0.5,1\n"
        assert self.load(tmp_path, text).image(150_000).tolist() == [0.5]

    def test_cells_may_hold_lists(self, tmp_path):
        text = 's,y\n"[[1, 2], [3, 4], [5, 6]]",0\n"[[1, 2], [3, 4], [5, 6.5]]",1\n'
        assert self.load(tmp_path, text, features="s").image(1).tolist() == [[1, 2], [3, 4], [5, 6.5]]
        with pytest.raises(DataError, match=r"holds lists, but '\[1, 2' in row 1"):
            self.load(tmp_path, 's,y\n"[1, 2]",0\n"[1, 2",1\n')

    def test_compressed_by_gzip(self, tmp_path):
        assert self.load(tmp_path, gzip.compress(b"a,y\n1,0\n2,1\n")).batch([0, 1]).tolist() == [[1], [2]]
        with pytest.raises(FileError, match="cannot be unpacked by gzip"):
            self.load(tmp_path, gzip.compress(b"a,y\n1,0\n2,1\n")[:-9])

    def test_whole_numbers_may_name_columns(self, tmp_path):
        assert self.load(tmp_path, "0,1,label\n5,6,0\n7,8,1\n").columns == ("0", "1")

    @pytest.mark.parametrize(("text", "error", "words"), [
        ("5.1,3.5,setosa\n4.9,3,setosa\n7,3.2,versicolor\n", DataError, r"begins with numbers, 5\.1, 3\.5, and should"),
        ("a,b,y\n1,2,0\n1,2\n3,4,1,5\n2,2,1\n", DataError, "(?s)line 3 has 2 values instead of 3.*line 4 has 4"),
        ("1,2,0\n1,2,1\n", DataError, "begins with numbers"),
        ("", FileError, "cannot be read"),
        ("a,y\n", DataError, "no column of numbers|no images"),
        (b"a,\xe9,y\n1,2,0\n", FileError, "in UTF-8"),
        ("a,a,y\n1,2,0\n1,2,1\n", DataError, "several columns a: keep one"),
        ("a,b\n1,2\n", DataError, "no label column .*--label COLUMN"),
    ])
    def test_damaged_files(self, tmp_path, text, error, words):
        with pytest.raises(error, match=words):
            self.load(tmp_path, text)

    def test_a_folder_has_a_file_for_each_split(self, tmp_path):
        for split, value in (("train", 1), ("test", 2)):
            (tmp_path / f"{split}.csv").write_text(f"a,y\n{value},0\n{value},1\n")
        assert load_data(f"csv:{tmp_path}", "train").image(0) == 1
        assert load_data(f"csv:{tmp_path}").image(0) == 2
        with pytest.raises(InputError, match="no split 'dev'; the splits found: test, train"):
            load_data(f"csv:{tmp_path}", "dev")


class TestNpz:
    def load(self, tmp_path, split="test", options=None, **arrays):
        np.savez(tmp_path / "x.npz", **arrays)
        return load_data(f"npz:{tmp_path / 'x.npz'}", split, **options or {})

    @pytest.mark.parametrize("shape", [(30,), (3, 5), (1, 8, 9), (2, 3, 4, 5)])
    def test_inputs_of_any_shape_and_range(self, tmp_path, shape):
        x = 100 * np.random.default_rng(0).normal(size=(4, *shape))
        data = self.load(tmp_path, x=x, y=LABELS, class_names=["a", "b"])
        assert (data.shape, data.bounds, data.levels, data.class_names) == (shape, None, None, ("a", "b"))
        np.testing.assert_array_equal(data.batch(range(4)), x.astype(np.float32))
        assert data.fingerprint([0]) == self.load(tmp_path, X=x.astype(np.float32), target=LABELS).fingerprint([0])

    def test_splits_and_names(self, tmp_path):
        arrays = {"x_train": SERIES, "y_train": LABELS, "test_x": SERIES[:2], "test_y": LABELS[:2]}
        assert (len(self.load(tmp_path, "train", **arrays)), len(self.load(tmp_path, **arrays))) == (4, 2)
        with pytest.raises(InputError, match="no split 'dev'; the splits found: train, test"):
            self.load(tmp_path, "dev", **arrays)
        assert len(self.load(tmp_path, "Hard", x_Hard=SERIES[:3], y_Hard=LABELS[:3], **arrays)) == 3
        other = {"vectors": SERIES[:, 0], "who": np.array(["p", "q", "p", "q"])}
        assert self.load(tmp_path, options={"features": "vectors", "label": "who"}, **other).class_names == ("p", "q")
        with pytest.raises(DataError, match=r"under a usual name .*its arrays: vectors \(4, 5\), who \(4,\)"):
            self.load(tmp_path, **other)
        with pytest.raises(DataError, match=r'no array vector \(did you mean "vectors"\?\), whom'):
            self.load(tmp_path, options={"features": "vector", "label": "whom"}, **other)

    def test_whole_numbers_of_8_bits_in_the_shape_of_images_are_images(self, tmp_path):
        pixels = np.arange(2 * 6 * 7 * 3, dtype=np.uint8).reshape(2, 6, 7, 3)
        data = self.load(tmp_path, images=pixels, labels=[[0], [1]])
        assert (data.shape, data.bounds, data.levels) == ((3, 6, 7), (0, 1), 255)
        assert self.load(tmp_path, options={"bounds": "none"}, x=pixels, y=[0, 1]).image(1).max() > 1

    @pytest.mark.parametrize("last", [False, True])
    def test_arrays_with_channels_are_images_if_their_values_can_be(self, tmp_path, last):
        shown = pixels(2, 6, 7, 3) if last else pixels(2, 3, 6, 7)
        expected = self.load(tmp_path, x=shown, y=[0, 1])
        for x in (shown.astype(np.int64), shown.astype(np.float32) / np.float32(255)):
            data = self.load(tmp_path, x=x, y=[0, 1])
            assert (data.shape, data.bounds, data.levels) == ((3, 6, 7), (0, 1), 255)
            assert np.array_equal(data.batch([0, 1]), expected.batch([0, 1]))
        for x in (shown - 0.5, shown.astype(np.int64) + 1):
            assert self.load(tmp_path, x=x, y=[0, 1]).bounds is None

    def test_unusable_arrays(self, tmp_path):
        x = SERIES.copy()
        x[1, 2, 3], x[3, 0, 0] = np.nan, np.inf
        with pytest.raises(DataError, match=r"(?s)row 1 of x in .*entry \(2, 3\): a value is missing.*3 of .*infinite"):
            self.load(tmp_path, x=x, y=LABELS)
        with pytest.raises(DataError, match=r"x has shape \(4, 3, 5\) and y has shape \(2,\)"):
            self.load(tmp_path, x=SERIES, y=[0, 1])
        np.savez(tmp_path / "o.npz", x=np.array([[1, "a"]], dtype=object), y=[0])
        with pytest.raises(FileError, match="values of type object"):
            load_data(f"npz:{tmp_path / 'o.npz'}")


class TestNpy:
    """A file of inputs with a file of labels beside it."""

    SHOWN = pixels(4, 6, 7, 3)

    @pytest.mark.parametrize(("inputs", "labels"), [
        ("fog.npy", "labels.npy"), ("cifar10.1_v6_data.npy", "cifar10.1_v6_labels.npy"), ("X_test.npy", "y_test.npy"),
        ("train_images.npy", "train_labels.npy")])
    def test_labels_are_found(self, tmp_path, inputs, labels):
        np.save(tmp_path / inputs, self.SHOWN)
        np.save(tmp_path / "y.npy", [1, 1, 1, 1])
        np.save(tmp_path / labels, LABELS)
        data = load_data(f"npz:{tmp_path / inputs}")
        assert (data.shape, data.bounds, data.labels.tolist()) == ((3, 6, 7), (0, 1), LABELS)
        assert load_data(f"npz:{tmp_path / inputs}", label="y.npy", num_classes=2).labels.tolist() == [1] * 4

    def test_without_labels(self, tmp_path):
        np.save(tmp_path / "fog.npy", self.SHOWN)
        with pytest.raises(DataError, match=r"fog\.npy has no labels beside it, such as labels\.npy"):
            load_data(f"npz:{tmp_path / 'fog.npy'}")
        with pytest.raises(FileError, match=r"absent\.npy"):
            load_data(f"npz:{tmp_path / 'fog.npy'}", label="absent.npy")
        with pytest.raises(FileError, match="leads out of"):
            load_data(f"npz:{tmp_path / 'fog.npy'}", label="../labels.npy")
        with pytest.raises(InputError, match="is one array"):
            load_data(f"npz:{tmp_path / 'fog.npy'}", features="x")


class TestSaved:
    def test_splits_of_a_dictionary(self, tmp_path):
        for split, rows in (("train", 4), ("validation", 2)):
            save(tmp_path / "d" / split, pa.table({"x": lists(SERIES[:rows, 0]), "y": LABELS[:rows]}))
        (tmp_path / "d/dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
        assert (len(load_data(f"datasets:{tmp_path / 'd'}", "train")), len(load_data(f"datasets:{tmp_path / 'd'}"))
                ) == (4, 2)
        with pytest.raises(InputError, match="no split 'dev'"):
            load_data(f"datasets:{tmp_path / 'd'}", "dev")

    def test_damaged_folders(self, tmp_path):
        with pytest.raises(FileError, match=r"has no state\.json"):
            load_data(f"datasets:{tmp_path}")
        spec = save(tmp_path / "s", pa.table({"x": lists(SERIES[:, 0]), "y": LABELS}))
        file = tmp_path / "s/data-00000-of-00001.arrow"
        file.write_bytes(file.read_bytes()[:300])
        with pytest.raises(FileError, match="cannot be read as a file of Arrow"):
            load_data(spec)
        (tmp_path / "s/state.json").write_text('{"_data_files": [{"filename": "../x"}]}')
        with pytest.raises(FileError, match="leads out of"):
            load_data(spec)

    def test_what_the_library_writes_is_read(self, tmp_path):
        datasets = pytest.importorskip("datasets")
        features = datasets.Features({"x": datasets.Array2D((3, 5), "float32"), "n": datasets.Value("int64"),
                                      "label": datasets.Value("int64")})
        given = datasets.Dataset.from_dict({"x": SERIES.tolist(), "n": [1, None, 2, 3], "label": [10, 9, 10, 9]},
                                           features=features)
        given.class_encode_column("label").save_to_disk(tmp_path / "s")
        data = load_data(f"datasets:{tmp_path / 's'}", features="x", numeric_classes=True)
        np.testing.assert_array_equal(data.batch(range(4)), SERIES)
        assert (data.class_names, data.labels.tolist()) == (("9", "10"), [1, 0, 1, 0])  # the library sorts them as text
        with pytest.raises(DataError, match=r"n: row 1 .*missing"):
            load_data(f"datasets:{tmp_path / 's'}", features="n")


class TestObjects:
    @pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 4, 5)])
    def test_pairs_and_arrays_of_any_shape(self, shape):
        x = 9 * np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
        for data in (load_data((x, LABELS)), load_data(list(zip(x, LABELS, strict=True))), from_tensors(x, LABELS)):
            assert (data.shape, data.bounds, data.levels) == (shape, None, None)
            np.testing.assert_array_equal(data.batch(range(4)), x)

    def test_three_axes_are_images_unless_told(self):
        x = SERIES[:, None]
        pairs = list(zip(x, LABELS, strict=True))
        for given in ((x, LABELS), pairs):
            with pytest.raises(DataError, match=r'--bounds none \(in Python, bounds="none"\)'):
                load_data(given)
            assert load_data(given, bounds="none").shape == (1, 3, 5)
            assert load_data(given, bounds=(-9, 9)).bounds == (-9, 9)
        with pytest.raises(DataError, match=r"item 0 of tensors.* outside the bounds"):
            load_data(pairs, bounds=(-1e-3, 1e-3))

    def test_what_is_refused(self):
        with pytest.raises(DataError, match="inputs must all have one shape"):
            load_data([(np.zeros(3), 0), (np.zeros(4), 1)])
        with pytest.raises(InputError, match=r"give it as a list of one, \[1\]"):
            load_data([(1.0, 0), (2.0, 1)])
        with pytest.raises(InputError, match="which have no columns"):
            load_data((SERIES, LABELS), features="a")
        with pytest.raises(InputError, match="features: of no use with digits, whose options are resize, crop"):
            load_data("digits", features="a")


def test_statistics_of_the_first_axis():
    mean, std = channel_statistics(from_tensors(SERIES, LABELS))
    np.testing.assert_allclose(mean, SERIES.mean(axis=(0, 2)), rtol=1e-5)
    np.testing.assert_allclose(std, SERIES.std(axis=(0, 2)), rtol=1e-5)
    assert len(channel_statistics(from_tensors(SERIES[:, 0], LABELS))[0]) == 5
