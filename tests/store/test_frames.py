"""Stores as flat tables, and how the objects that people hold show themselves."""

import json
import sys

import numpy as np
import pytest

from smoothcert.classifiers.card import ModelCard
from smoothcert.data import load_data
from smoothcert.errors import MissingExtraError
from smoothcert.results.gather import read_result
from smoothcert.stats import AtRadii, Certificate, ClassCounts, FixedN, Prediction
from smoothcert.store.store import read_store
from stores import made


@pytest.fixture
def store(tmp_path):
    made(tmp_path / "s", count=7)
    return read_store(tmp_path / "s")


def test_a_flat_table_has_a_row_a_record_and_no_lists(store):
    table = store.to_arrow()
    assert table.num_rows == 7
    assert "tallies" not in table.column_names
    assert table.column("radius").to_pylist() == store.column("radius").tolist()
    assert table.column("correct").to_pylist() == store.correct.tolist()
    votes = store.counts("estimate")
    assert table.column("estimate_top").to_pylist() == votes.argmax(axis=1).tolist()
    assert table.column("estimate_top_votes").to_pylist() == votes.max(axis=1).tolist()
    assert table.column("estimate_n").to_pylist() == votes.sum(axis=1).tolist()
    assert json.loads(table.schema.metadata[b"smoothcert"]) == store.identity.raw


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_of_other_libraries(store, library):
    pytest.importorskip(library)
    frame = getattr(store, f"to_{library}")()
    assert list(frame.columns) == store.to_arrow().column_names
    np.testing.assert_array_equal(frame["radius"].to_numpy(), store.column("radius"))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_missing_library_is_named(store, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"to_{library}\(\) needs the package {library}.*smoothcert\[frames\]"):
        getattr(store, f"to_{library}")()


COUNTS = ClassCounts([1, 99])
CARD = ModelCard("cnn", {}, (1, 8, 8), 10, tuple("0123456789"), 16, {"data": "digits"}, 0.25, {"kind": "train"})


@pytest.mark.parametrize("shown", [
    Certificate(1, 0.123456789, COUNTS, (COUNTS,), 0.5, 0.001, "cohen"), Prediction(None, 0.5, COUNTS, 0.001),
    load_data("digits"), FixedN(n=100), AtRadii(radii=[0.25], n_max=1000), CARD,
], ids=lambda value: type(value).__name__)
def test_objects_show_themselves_in_a_line_and_in_html(shown):
    assert repr(shown).startswith(f"{type(shown).__name__}(")
    assert len(repr(shown)) < 300
    assert "\n" not in repr(shown)
    assert shown._repr_html_().startswith("<table>")


def test_stores_and_results_show_themselves(store):
    assert repr(store).startswith("Store(kind='certify', records='7', data=")
    result = read_result(store, "<b>")
    assert len(repr(result)) < 300
    assert "<b>&" not in result._repr_html_()
    assert "&lt;b&gt;" in result._repr_html_()


def test_a_shown_radius_is_never_rounded_up():
    assert "radius=0.123456," in repr(Certificate(1, 0.1234569, COUNTS, (COUNTS,), 0.5, 0.001, "cohen"))
