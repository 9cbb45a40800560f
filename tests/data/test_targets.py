"""Real values in the place of labels, from every kind of source."""

import numpy as np
import pytest

from smoothcert.data import from_tensors
from smoothcert.data.load import open_data
from smoothcert.errors import DataError, InputError

X = np.linspace(-2, 2, 12).reshape(4, 3)
Y = np.array([0.5, -1.0, 3.0, 151.0])


def sources(folder):
    np.savez(folder / "a.npz", x=X, y=Y)
    rows = ["a,b,c,target", *(",".join(map(str, (*x, y))) for x, y in zip(X, Y, strict=True))]
    (folder / "a.csv").write_text("\n".join(rows))
    return {"npz": f"npz:{folder / 'a.npz'}", "csv": f"csv:{folder / 'a.csv'}", "pair": (X, Y),
            "items": list(zip(X.astype(np.float32), Y.tolist(), strict=True))}


@pytest.mark.parametrize("kind", ["npz", "csv", "pair", "items"])
def test_labels_of_every_source_are_targets(tmp_path, kind):
    data = open_data(sources(tmp_path)[kind], "test", real=True)
    assert data.targets is not None
    assert data.targets[:, 0].tolist() == Y.tolist()
    np.testing.assert_allclose(data.batch(range(4)), X, rtol=1e-6)
    with pytest.raises(DataError, match="give task regression"):
        data.with_classes()


def test_targets_are_part_of_the_fingerprint():
    one, other = (from_tensors(X, targets, real=True) for targets in (Y, Y + 1))
    assert one.fingerprint([0, 1]) == from_tensors(X, Y, real=True).fingerprint([0, 1])
    assert one.fingerprint([0, 1]) != other.fingerprint([0, 1])


def test_several_label_columns_of_a_table(tmp_path):
    (tmp_path / "a.csv").write_text("a,up,b,down\n1,0,2,1\n3,1,4,0")
    data = open_data(f"csv:{tmp_path / 'a.csv'}", "test", real=True, label="down, up")
    assert data.targets.tolist() == [[1, 0], [0, 1]]
    assert data.batch([0, 1]).tolist() == [[1, 2], [3, 4]], "no label is an input"
    for given, words in ({"label": "up,sideways"}, "no column sideways"), ({"label": "up,up"}, "^up: give each"), \
            ({"label": "up,down", "features": ["a", "up"]}, "^up: give each"):
        with pytest.raises(DataError, match=words):
            open_data(f"csv:{tmp_path / 'a.csv'}", "test", real=True, **given)
    with pytest.raises(DataError, match="no column up,down"):
        open_data(f"csv:{tmp_path / 'a.csv'}", "test", label="up,down")
    with pytest.raises(InputError, match="part 2 of the list 'up,,down' is empty"):
        open_data(f"csv:{tmp_path / 'a.csv'}", "test", real=True, label="up,,down")


def test_several_label_columns_hold_no_lists(tmp_path):
    (tmp_path / "a.csv").write_text('a,up,down\n1,0,"[1, 2]"\n3,1,"[0, 2]"')
    with pytest.raises(DataError, match=r"^down: several label columns"):
        open_data(f"csv:{tmp_path / 'a.csv'}", "test", real=True, features=["a"], label="up,down")


def test_several_targets_an_input():
    assert from_tensors(X, np.stack([Y, Y], axis=1), real=True).targets.shape == (4, 2)


@pytest.mark.parametrize(("targets", "words"), [
    ([1.0, np.nan, 2.0, 3.0], "row 1 has the target .*must be finite"), (["a", "b", "c", "d"], "must be numbers")])
def test_values_that_are_no_targets(targets, words):
    with pytest.raises(DataError, match=words):
        from_tensors(X, targets, real=True)
