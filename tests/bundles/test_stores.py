"""The names and folders that stores have in a bundle."""

import shutil

import pytest

import smoothcert
from smoothcert.bundles.stores import open_stores
from stores import made


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return made(tmp_path_factory.mktemp("named") / "s", count=20)


def test_any_name_becomes_a_folder_that_every_system_takes(store, tmp_path):
    names = ["a b", "a-b", "A B", "..", "é<script>", "'; rm -rf ~", "x" * 200, "|", "_.-", "a\nb", "\udcff"]
    paths = [shutil.copytree(store, tmp_path / str(k) / name.replace("..", "up")) for k, name in enumerate(names)]
    paths[3] = paths[3] / ".." / "up"
    found = open_stores([str(path) for path in paths])
    places = [one.place for one in found]
    assert len({*map(str.lower, places)}) == len(names)
    for place in places:
        folder = place.removeprefix("stores/")
        assert place.startswith("stores/")
        assert folder.isascii()
        assert 0 < len(folder) <= 64
        assert not set(folder) & set("/\\ <>:|?*'\"\n")
        assert folder not in (".", "..")
    written = smoothcert.bundle(paths, tmp_path / "b", no_selftest=True, digest_only=True)
    assert written.holds
    for name in ("index.html", "report.html", "standards.html"):
        assert "é<script>" not in (tmp_path / "b" / name).read_text()


def test_a_mapping_gives_names_and_methods_give_groups(store, tmp_path):
    other = shutil.copytree(store, tmp_path / "t")
    smoothcert.bundle({"ours": store, "theirs": other}, tmp_path / "b", no_selftest=True, digest_only=True)
    assert sorted(path.name for path in (tmp_path / "b" / "stores").iterdir()) == ["ours", "theirs"]
    found = open_stores([f"ours={store}", f"theirs={other}"])
    assert [one.result.group for one in found] == ["ours", "theirs"]
    assert [one.place for one in found] == ["stores/ours", "stores/theirs"]
