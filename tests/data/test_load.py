"""Data sets by name and arrays: the values, the order, the names, and the errors."""

import hashlib
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from image_files import STORED, hub_table, on_grid, pixels, stored, write
from smoothcert.data import DATA_DIR_VARIABLE, channel_statistics, from_tensors, load_data, select_indices, take_evenly
from smoothcert.data import encoded as encoded_module
from smoothcert.data.named import read_digits
from smoothcert.data.preprocess import Preprocess
from smoothcert.errors import DataError, FileError, InputError, MissingExtraError, UnknownNameError


@pytest.fixture(autouse=True)
def no_data_dir(monkeypatch):
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)


class TestDigits:
    def test_every_fifth_image_is_test(self):
        test, train = load_data("digits"), load_data("digits", "train")
        assert (len(test), len(train)) == (359, 1438)
        assert (test.shape, test.levels, test.num_classes, test.class_names[9]) == ((1, 8, 8), 16, 10, "9")
        assert test.labels[:3].tolist() == [4, 9, 4]
        assert train.labels[:5].tolist() == [0, 1, 2, 3, 5]
        assert on_grid(test, 359)
        assert test.batch(range(359)).max() == 1

    def test_they_are_scikit_learns_and_load_without_it(self):
        from sklearn.datasets import load_digits

        images, labels = read_digits()
        np.testing.assert_array_equal(images, load_digits().images)
        np.testing.assert_array_equal(labels, load_digits().target)
        code = "import sys; from smoothcert import load_data; load_data('digits'); print('sklearn' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"False\n"

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
        (np.zeros((2, 4, 4), np.uint8), [0, 1], InputError, r"\(N, C, H, W\), got \(2, 4, 4\)"),
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
        (np.zeros((2, 1, 4, 4)), [0.0, 0.5], DataError, r"row 1 has label 0\.5.*task regression"),
        (np.zeros((2, 1, 4, 4)), [0.0, np.nan], DataError, r"row 1 has label nan \(a missing label\?\)"),
        (np.zeros((2, 1, 4, 4)), [[0, 1], [1, 1]], DataError,
         r"row 1 has the label \[1, 1\].*one-hot.*task multi-label"),
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
