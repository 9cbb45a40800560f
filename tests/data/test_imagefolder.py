"""Folders of images: the values, the order, the names, and the errors."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image_files import pixels, write_images
from smoothcert.data import DATA_DIR_VARIABLE, load_data
from smoothcert.data import encoded as encoded_module
from smoothcert.errors import DataError, FileError, InputError


@pytest.fixture(autouse=True)
def no_data_dir(monkeypatch):
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)


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

    @pytest.mark.parametrize(("train", "test"), [("Training", "Testing"), ("TRAIN", "Test"), ("train", "valid")])
    def test_split_folders_by_their_other_names(self, tmp_path, train, test):
        self.fill(tmp_path / train, count=3)
        self.fill(tmp_path / test)
        assert len(load_data(f"imagefolder:{tmp_path}", "test")) == 4
        assert len(load_data(f"imagefolder:{tmp_path}", "train")) == 6
        assert len(load_data(f"imagefolder:{tmp_path}", test)) == 4
        with pytest.raises(InputError, match=f"no split 'dev'; the splits found: {train}, {test}"):
            load_data(f"imagefolder:{tmp_path}", "dev")

    def test_folders_of_archives_are_no_classes(self, tmp_path):
        self.fill(tmp_path)
        write_images(tmp_path / "__MACOSX" / "cat", pixels(1, 6, 5, 3))
        data = load_data(f"imagefolder:{tmp_path}")
        assert (data.class_names, data.divided) == (("cat", "dog"), False)

    def test_a_list_beside_the_images_is_pointed_out(self, tmp_path):
        write_images(tmp_path / "test", pixels(1, 6, 5, 3))
        (tmp_path / "test" / "metadata.csv").write_text("file_name,label\n0.png,cat\n")
        with pytest.raises(DataError, match=r"holds no images; .*csv:.*metadata\.csv"):
            load_data(f"imagefolder:{tmp_path}")

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


class TestTinyImageNet:
    """The layout of the published archive: val has a list of classes, test has none."""

    PIXELS, CLASSES = pixels(4, 8, 8, 3), ["n02", "n01", "n02", "n01"]

    def fill(self, root):
        for seed, name in enumerate(("n01", "n02", "n03")):
            write_images(root / "train" / name / "images", pixels(2, 8, 8, 3, seed=seed))
        files = write_images(root / "val" / "images", self.PIXELS)
        lines = [f"{file.name}\t{name}\t0\t32\t44\t62\n" for file, name in zip(files, self.CLASSES, strict=True)]
        (root / "val" / "val_annotations.txt").write_text("".join(lines))
        write_images(root / "test" / "images", self.PIXELS[:1])
        return root

    def test_it_is_read_as_it_is(self, tmp_path):
        spec = f"imagefolder:{self.fill(tmp_path)}"
        train, test = load_data(spec, "train"), load_data(spec, "test", classes=["n01", "n02", "n03"])
        assert train.class_names == test.class_names == ("n01", "n02", "n03")
        assert test.labels.tolist() == [0, 0, 1, 1]
        assert np.array_equal(255 * test.batch(range(4)), self.PIXELS[[1, 3, 0, 2]].transpose(0, 3, 1, 2))

    def test_folders_of_classes_in_place_of_the_list_are_the_same_data(self, tmp_path):
        listed = load_data(f"imagefolder:{self.fill(tmp_path / 'a')}").fingerprint(range(4))
        for k, name in enumerate(self.CLASSES):
            folder = tmp_path / "b" / "val" / name
            folder.mkdir(parents=True, exist_ok=True)
            (tmp_path / "a" / "val" / "images" / f"{k}.png").rename(folder / f"{k}.png")
        assert load_data(f"imagefolder:{tmp_path / 'b'}").fingerprint(range(4)) == listed

    @pytest.mark.parametrize("line", ["0.png n01\n", "../0.png\tn01\n"])
    def test_another_list(self, tmp_path, line):
        self.fill(tmp_path)
        with (tmp_path / "val" / "val_annotations.txt").open("a") as file:
            file.write(line)
        with pytest.raises(DataError, match=r"val_annotations\.txt, line 5, is .* a tab between them"):
            load_data(f"imagefolder:{tmp_path}")

    def test_a_listed_image_that_is_not_there(self, tmp_path):
        self.fill(tmp_path)
        (tmp_path / "val" / "images" / "2.png").unlink()
        with pytest.raises(DataError, match=r"1 are in one of the two alone, such as 2\.png, which the folder lacks"):
            load_data(f"imagefolder:{tmp_path}")

    def test_the_list_has_every_image_once(self, tmp_path):
        listed = self.fill(tmp_path) / "val" / "val_annotations.txt"
        lines = listed.read_text().splitlines(keepends=True)
        listed.write_text("".join([*lines, lines[1].split("\t")[0] + "\tn03\n"]))
        with pytest.raises(DataError, match=r"has 1\.png twice, in the lines 2 and 5"):
            load_data(f"imagefolder:{tmp_path}")
        listed.write_text("".join(lines[1:]))
        with pytest.raises(DataError, match=r"such as 0\.png, which the list lacks"):
            load_data(f"imagefolder:{tmp_path}")
