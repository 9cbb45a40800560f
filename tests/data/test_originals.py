"""MNIST and CIFAR-10 in the files of their authors, as torchvision leaves them on disk."""

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest

from image_files import pixels
from originals import binary, idx, python2_pickle
from smoothcert.data import load_data
from smoothcert.errors import DataError, FileError

GREY, DIGITS = pixels(6, 28, 28), [0, 1, 2, 3, 4, 9]
COLOUR, CLASSES = pixels(4, 3, 32, 32), [3, 8, 8, 0]
IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def put_mnist(folder: Path, images: str = IMAGES, labels: str = LABELS, pack=lambda content: content) -> None:
    put(folder / images, pack(idx(GREY)))
    put(folder / labels, pack(idx(DIGITS)))


class TestMnist:
    @pytest.mark.parametrize("place", ["MNIST/raw", "mnist/raw", "mnist"])
    @pytest.mark.parametrize("packed", [False, True])
    def test_layouts(self, tmp_path, place, packed):
        names = [f"{IMAGES}.gz", f"{LABELS}.gz"] if packed else [IMAGES, LABELS]
        put_mnist(tmp_path / place, *names, pack=gzip.compress if packed else bytes)
        data = load_data("mnist", data_dir=tmp_path)
        assert np.array_equal(data.batch(range(6)), GREY[:, None].astype(np.float32) / np.float32(255))
        assert data.labels.tolist() == DIGITS
        assert (data.name, data.split, data.shape, data.num_classes, data.levels) == ("mnist", "test", (1, 28, 28), 10,
                                                                                      255)

    def test_some_files_may_be_unpacked(self, tmp_path):
        put_mnist(tmp_path / "mnist", f"{IMAGES}.gz", f"{LABELS}.gz", pack=gzip.compress)
        put(tmp_path / "mnist" / IMAGES, idx(GREY))
        assert load_data("mnist", data_dir=tmp_path).labels.tolist() == DIGITS

    def test_names_with_a_dot_in_the_folder_itself(self, tmp_path):
        put_mnist(tmp_path / "MNIST", "t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte")
        assert len(load_data("mnist", data_dir=tmp_path / "MNIST")) == 6

    def test_the_folder_raw_itself(self, tmp_path):
        put_mnist(tmp_path / "MNIST" / "raw")
        assert len(load_data("mnist", data_dir=tmp_path / "MNIST" / "raw")) == 6

    def test_other_sets_with_the_same_file_names_are_not_mnist(self, tmp_path):
        put_mnist(tmp_path / "FashionMNIST" / "raw")
        for folder in (tmp_path, tmp_path / "FashionMNIST", tmp_path / "FashionMNIST" / "raw"):
            with pytest.raises(FileError, match=f"no test images of mnist in .*MNIST/raw/{IMAGES}"):
                load_data("mnist", data_dir=folder)

    def test_resizing(self, tmp_path):
        put_mnist(tmp_path / "MNIST" / "raw")
        data = load_data("mnist", data_dir=tmp_path, resize=14)
        assert data.image(0).shape == data.shape == (1, 14, 14)

    def test_images_without_their_labels(self, tmp_path):
        put(tmp_path / "mnist" / IMAGES, idx(GREY))
        with pytest.raises(FileError, match=f"has no {LABELS} beside it"):
            load_data("mnist", data_dir=tmp_path)

    @pytest.mark.parametrize(("images", "labels", "message"), [
        (idx(GREY)[:-1], idx(DIGITS), r"says that it holds 6 x 28 x 28 bytes, and has 4,703 of 4,704"),
        (idx(GREY), idx(DIGITS[:5]), "holds 6 images and .* 5 labels"),
        (idx(DIGITS), idx(DIGITS), "is no IDX file of bytes with 3 axes: it begins with 00 00 08 01, expected"),
        (b"", idx(DIGITS), "is no IDX file of bytes with 3 axes: it is empty"),
        (b"\x1f\x8b nonsense", idx(DIGITS), "cannot be unpacked by gzip"),
        (gzip.compress(idx(GREY))[:-30], idx(DIGITS), "cannot be unpacked by gzip"),
    ])
    def test_damaged(self, tmp_path, images, labels, message):
        put(tmp_path / "mnist" / IMAGES, images)
        put(tmp_path / "mnist" / LABELS, labels)
        with pytest.raises(FileError, match=message):
            load_data("mnist", data_dir=tmp_path)

    def test_another_size_and_an_eleventh_class(self, tmp_path):
        put(tmp_path / "mnist" / IMAGES, idx(pixels(6, 32, 32)))
        put(tmp_path / "mnist" / LABELS, idx(DIGITS))
        with pytest.raises(DataError, match=r"shape \(1, 32, 32\); those of mnist are \(1, 28, 28\)"):
            load_data("mnist", data_dir=tmp_path)
        put_mnist(tmp_path / "mnist")
        put(tmp_path / "mnist" / LABELS, idx([0, 1, 2, 10, 4, 5]))
        with pytest.raises(DataError, match=f"image 3 of .*{IMAGES} has label 10"):
            load_data("mnist", data_dir=tmp_path)

    def test_more_than_mnist_can_be(self, tmp_path, monkeypatch):
        monkeypatch.setattr("smoothcert.data.originals._MOST_BYTES", 1000)
        put_mnist(tmp_path / "mnist", f"{IMAGES}.gz", f"{LABELS}.gz",
                  pack=lambda content: gzip.compress(bytes(len(content))))
        with pytest.raises(FileError, match=r"unpacked size of .* the limit is 1,000"):
            load_data("mnist", data_dir=tmp_path)


class TestCifar10:
    @pytest.mark.parametrize("parent", [".", "cifar10"])
    @pytest.mark.parametrize(("file", "content"), [
        ("cifar-10-batches-py/test_batch", python2_pickle(COLOUR, CLASSES)),
        ("cifar-10-batches-py/test_batch", pickle.dumps({"data": COLOUR.reshape(4, -1), "labels": CLASSES}, 4)),
        ("cifar-10-batches-bin/test_batch.bin", binary(COLOUR, CLASSES)),
        ("test_batch", python2_pickle(COLOUR, CLASSES)), ("test_batch.bin", binary(COLOUR, CLASSES)),
    ], ids=["python 2", "python 3", "binary", "python, alone", "binary, alone"])
    def test_layouts(self, tmp_path, parent, file, content):
        put(tmp_path / parent / file, content)
        data = load_data("cifar10", data_dir=tmp_path)
        assert np.array_equal(data.batch(range(4)), COLOUR.astype(np.float32) / np.float32(255))
        assert data.labels.tolist() == CLASSES
        assert (data.shape, data.class_names[3]) == ((3, 32, 32), "cat")

    def test_all_layouts_have_one_fingerprint(self, tmp_path):
        put(tmp_path / "a" / "cifar-10-batches-py" / "test_batch", python2_pickle(COLOUR, CLASSES))
        put(tmp_path / "b" / "cifar-10-batches-bin" / "test_batch.bin", binary(COLOUR, CLASSES))
        first, second = (load_data("cifar10", data_dir=tmp_path / name) for name in "ab")
        assert first.fingerprint(range(4)) == second.fingerprint(range(4))

    def test_batches_come_in_their_order(self, tmp_path):
        for k in range(1, 6):
            put(tmp_path / "cifar-10-batches-bin" / f"data_batch_{k}.bin", binary(COLOUR[:1], [k]))
        assert load_data("cifar10", "train", data_dir=tmp_path).labels.tolist() == [1, 2, 3, 4, 5]
        (tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
        with pytest.raises(FileError, match=r"has no data_batch_3\.bin beside it"):
            load_data("cifar10", "train", data_dir=tmp_path)

    def test_messages_count_images_within_their_file(self, tmp_path):
        for k in range(1, 6):
            put(tmp_path / f"data_batch_{k}.bin", binary(COLOUR, [0, 1, 2, 12 if k == 2 else 3]))
        with pytest.raises(DataError, match=r"image 3 of .*data_batch_2\.bin has label 12"):
            load_data("cifar10", "train", data_dir=tmp_path)

    @pytest.mark.parametrize("content", [
        pickle.dumps(Path("x"), protocol=2), pickle.dumps({"data": Path("x"), "labels": [1]}, protocol=2),
        pickle.dumps(2.5), pickle.dumps([1, 2]), pickle.dumps({b"data": COLOUR, b"labels": CLASSES}, protocol=5),
        pickle.dumps({b"data": COLOUR.reshape(4, -1), b"labels": CLASSES}, protocol=2), b"",
        python2_pickle(COLOUR, CLASSES, kind=b"O8"), python2_pickle(COLOUR, CLASSES)[:900],
        python2_pickle(COLOUR, CLASSES[:3]), python2_pickle(COLOUR[:, :1], CLASSES)])
    def test_what_is_no_batch_is_refused(self, tmp_path, content):
        put(tmp_path / "cifar-10-batches-py" / "test_batch", content)
        with pytest.raises(FileError, match=r"damaged, or is no batch of CIFAR-10 as its authors .* a list\. Ar"):
            load_data("cifar10", data_dir=tmp_path)

    def test_nothing_that_a_pickle_names_is_called(self, tmp_path):
        class Hostile:
            def __reduce__(self):
                return Path.touch, (tmp_path / "touched",)

        put(tmp_path / "test_batch", pickle.dumps({"data": Hostile(), "labels": [1]}, protocol=2))
        with pytest.raises(FileError, match="is no batch"):
            load_data("cifar10", data_dir=tmp_path)
        assert not (tmp_path / "touched").exists()

    def test_a_cut_binary_batch(self, tmp_path):
        put(tmp_path / "test_batch.bin", binary(COLOUR, CLASSES)[:-5])
        with pytest.raises(FileError, match=r"has 12,287 bytes, which are no whole rows of 3,073"):
            load_data("cifar10", data_dir=tmp_path)

    def test_an_archive_has_to_be_unpacked(self, tmp_path):
        put(tmp_path / "cifar-10-python.tar.gz", b"")
        with pytest.raises(FileError, match=r"has to be unpacked: tar xzf cifar-10-python\.tar\.gz"):
            load_data("cifar10", data_dir=tmp_path)
