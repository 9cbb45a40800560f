"""What a path without its kind is told."""

from pathlib import Path

import pytest

from smoothcert.data import load_data
from smoothcert.errors import UnknownNameError


@pytest.mark.parametrize(("there", "spec", "expected"), [
    (["tv/cifar-10-batches-py/test_batch"], "tv", "cifar10, and --data-dir tv"),
    (["rows/test.parquet", "rows/README.md"], "rows", "parquet:rows"),
    (["hub/data/test-0.parquet", "hub/README.md"], "hub", "parquet:hub"),
    (["hub/default/test/0000.parquet"], "hub", "parquet:hub"),
    (["arrays/state.json", "arrays/data-0.arrow"], "arrays", "datasets:arrays"),
    (["pets/test/cat/0.png"], "pets", "imagefolder:pets"),
    (["pets/cat/0.JPEG", "pets/cat/sizes.csv"], "pets", "imagefolder:pets"),
    (["list/labels.csv", "list/images/0.png"], "list", "csv:list/labels.csv"),
    (["corrupted/fog.npy", "corrupted/labels.npy"], "corrupted", "npz:corrupted/fog.npy"),
    (["images.npz"], "images.npz", "npz:images.npz"),
    (["rows.csv.gz"], "rows.csv.gz", "csv:rows.csv.gz"),
])
def test_it_is_told_how_to_be_named(tmp_path, monkeypatch, there, spec, expected):
    monkeypatch.chdir(tmp_path)
    for file in map(Path, there):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    with pytest.raises(UnknownNameError, match=f"which is a (file|folder): write {expected};"):
        load_data(spec)


def test_what_is_no_data_gets_no_advice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("weights.pt").touch()
    with pytest.raises(UnknownNameError) as caught:
        load_data("weights.pt")
    assert "write" not in str(caught.value)
