"""The layouts in which people have the splits of a data set, of one kind of file or another."""

import gzip

import pytest

from smoothcert.data import load_data
from smoothcert.data.splits import find_split
from smoothcert.errors import DataError, FileError, InputError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder, split="test", *endings):
    split_files = find_split(folder, split, *endings or (".parquet",))
    return [file.relative_to(folder).as_posix() for file in split_files.files], split_files.divided


@pytest.mark.parametrize(("there", "expected"), [
    (["test.parquet", "train.parquet"], ["test.parquet"]),
    (["test-00001-of-00002.parquet", "test-00000-of-00002.parquet", "train-00000-of-00001.parquet"],
     ["test-00000-of-00002.parquet", "test-00001-of-00002.parquet"]),
    (["test_01.parquet", "test_00.parquet", "test_labels.parquet"], ["test_00.parquet", "test_01.parquet"]),
    (["test.0.parquet", "test.1.parquet"], ["test.0.parquet", "test.1.parquet"]),
    (["Test/b.parquet", "Test/a.snappy.parquet", "Test/._a.parquet", "train/a.parquet"],
     ["Test/a.snappy.parquet", "Test/b.parquet"]),
    (["data/test-0.parquet"], ["data/test-0.parquet"]),
    (["default/test/0000.parquet", "default/train/0000.parquet"], ["default/test/0000.parquet"]),
    (["plain_text/test-00000-of-00001.parquet"], ["plain_text/test-00000-of-00001.parquet"]),
    (["TEST.parquet", "train.parquet"], ["TEST.parquet"]),
    (["val.parquet", "train.parquet"], ["val.parquet"]),
    (["validation-0.parquet", "train-0.parquet"], ["validation-0.parquet"]),
    (["data/test.parquet", "validation.parquet"], ["data/test.parquet"]),
    (["test.parquet", "other/test.parquet", "third/test.parquet"], ["test.parquet"]),
])
def test_layouts(tmp_path, there, expected):
    touch(tmp_path, *there)
    assert found(tmp_path) == (expected, True)


@pytest.mark.parametrize("parts", [["part-00000-5f.snappy.parquet", "part-00001-5f.snappy.parquet"],
                                   ["part.0.parquet", "part.1.parquet"], ["0000.parquet", "0001.parquet"]])
def test_parts_of_one_table_are_not_divided(tmp_path, parts):
    touch(tmp_path, *parts, "_SUCCESS")
    assert found(tmp_path) == (parts, False)


def test_what_is_not_found_is_said(tmp_path):
    with pytest.raises(FileError, match=r"nowhere does not exist; parquet:PATH takes a \.parquet file or a folder"):
        found(tmp_path / "nowhere")
    with pytest.raises(FileError, match=r"holds no \.csv files, nor do the folders in it"):
        found(tmp_path, "test", ".csv", ".csv.gz")
    touch(tmp_path, "train_0.parquet", "b/dev.parquet", "a/0.parquet")
    with pytest.raises(InputError, match="no split 'test'; the splits found: 0, dev, train"):
        found(tmp_path)
    touch(tmp_path, "c/test.parquet", "d/test.parquet")
    with pytest.raises(InputError, match=r"'test' in several of its folders \(c, d\): give one, such as parquet:.*/c"):
        found(tmp_path)


def test_packed_tables_of_a_folder(tmp_path):
    for split, rows in (("train", "1,0\n2,1\n3,1\n"), ("test", "4,0\n5,1\n")):
        (tmp_path / f"{split}.csv.gz").write_bytes(gzip.compress(f"a,y\n{rows}".encode()))
    data = load_data(f"csv:{tmp_path}")
    assert (data.batch([0, 1]).ravel().tolist(), data.divided) == ([4, 5], True)


def test_arrays_in_several_files_are_not_read_from_the_first_alone(tmp_path):
    touch(tmp_path, "test-0.npz", "test-1.npz")
    with pytest.raises(DataError, match=r"has 2 files of the split 'test' \(test-0\.npz, \.\.\.\)"):
        load_data(f"npz:{tmp_path}")
