"""The card of a repository: what the hub reads of it, and what a person wrote into it before."""

import math

import numpy as np
import yaml

from smoothcert.classifiers.card import read_card
from smoothcert.hub.card import write_card_text
from smoothcert.store.store import read_store
from stores import made


def front(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_accuracies_are_those_of_the_store_rounded_down(trained):
    store = read_store(trained / "s")
    told = front(write_card_text("model", "me/net", read_card(trained / "m"), store, (0, 0.1, 0.25), "mit"))
    assert told["license"] == "mit"
    assert {"smoothcert", "randomized-smoothing"} <= set(told["tags"])
    found = told["model-index"][0]["results"][0]
    assert found["task"]["type"] == "image-classification"
    assert found["dataset"] == {"type": "digits", "name": "digits", "split": "test"}
    *shares, acr = found["metrics"]
    for metric, radius in zip(shares, (0, 0.1, 0.25), strict=True):
        exact = np.mean(store.correct & (store.column("radius") >= radius))
        assert metric["name"] == f"certified accuracy at {radius:g} (l2, sigma 0.25)"
        assert exact - 1e-4 < metric["value"] <= exact + 1e-12
        assert metric["args"] == {"alpha": 0.001, "n": 1000, "images": 20}
    exact = np.where(store.correct, store.column("radius"), 0).mean()
    assert acr["value"] == math.floor(exact * 1e4) / 1e4


def test_two_thirds_are_rounded_down(tmp_path):
    store = read_store(made(tmp_path / "s", count=3, seed=7, right=0.5))
    found = front(write_card_text("model", "me/net", None, store, (0,)))["model-index"][0]["results"][0]["metrics"][0]
    assert store.correct.sum() == 2
    assert found["value"] == 0.6666


def test_no_radius_beyond_reach_is_claimed(tmp_path):
    store = read_store(made(tmp_path / "s"))
    found = front(write_card_text("model", "me/net", None, store, (0.1, 5)))["model-index"][0]["results"][0]["metrics"]
    assert [metric["name"].split(" (")[0] for metric in found] == ["certified accuracy at 0.1",
                                                                    "average certified radius"]


def test_what_a_person_wrote_stays_and_figures_are_written_anew(trained, tmp_path):
    card, store = read_card(trained / "m"), read_store(trained / "s")
    own = "---\nlicense: apache-2.0\ntags: [mine]\nwidget: x\n---\n# Mine\n\nWords.\n"
    once = write_card_text("model", "me/net", card, store, (0.1,), own=own)
    assert front(once)["widget"] == "x"
    assert front(once)["license"] == "apache-2.0"
    assert front(once)["tags"][:2] == ["mine", "smoothcert"]
    assert "# Mine\n\nWords.\n" in once
    assert write_card_text("model", "me/net", card, store, (0.1,), own=once) == once
    without = write_card_text("model", "me/net", card, None, own=once)
    assert "model-index" not in front(without)
    assert "certified accuracy" not in without
    assert "Words." in without


def test_a_store_of_any_kind_has_its_table(trained):
    text = write_card_text("dataset", "me/runs", None, read_store(trained / "p"))
    assert "abstained" in text
    assert "smoothcert pull datasets/me/runs" in text
    assert "model-index" not in front(text)
