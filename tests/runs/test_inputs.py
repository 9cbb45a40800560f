"""Runs on tables: how the inputs are read is told once, and known to every verb after that."""

import json
import shutil

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from smoothcert.classifiers.card import read_card
from smoothcert.errors import ConfigError, InputError, ModelError, QualityWarning
from smoothcert.runs.attack import attack
from smoothcert.runs.certify import certify
from smoothcert.runs.options import AttackConfig, CertifyConfig
from smoothcert.runs.reopen import reopen_data
from smoothcert.store.store import read_store
from smoothcert.training.options import TrainConfig
from smoothcert.training.train import train
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.verify import verify


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A table in two splits, and a network that was trained on two of its columns."""
    folder = tmp_path_factory.mktemp("table")
    (folder / "t").mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 120), ("test", 12)):
        rows = rng.normal(size=(count, 3)).round(3)
        kind = np.where(rows[:, 2] > rows[:, 0], "up", "down")
        lines = [",".join([*map(str, row), "7", which]) for row, which in zip(rows, kind, strict=True)]
        (folder / f"t/{split}.csv").write_text("\n".join(["a,b,c,y,kind", *lines]) + "\n")
    train(TrainConfig.parse({"data": f"csv:{folder / 't'}", "features": "c,a", "label": "kind", "bounds": "-9,9",
                             "model": "linear", "sigma": 0.25, "epochs": 2, "batch_size": 16, "seed": 0,
                             "out": folder / "m"}))
    return folder


def test_a_model_folder_and_a_store_remember_how_inputs_are_read(work, tmp_path):
    card = read_card(work / "m")
    assert (card.input_shape, card.class_names, card.levels) == ((2,), ("down", "up"), None)
    assert card.data == {"data": f"csv:{work / 't'}", "resize": None, "crop": None, "features": ["c", "a"],
                         "label": "kind", "bounds": [-9.0, 9.0]}
    out = tmp_path / "s"
    certify(CertifyConfig.parse({"model": work / "m", "n": 100, "seed": 0, "out": out}))
    store = read_store(out)
    assert store.identity.data.shape == [2]
    data = reopen_data(store)
    assert (data.columns, data.bounds, data.class_names) == (("c", "a"), (-9.0, 9.0), ("down", "up"))
    assert not verify(VerifyConfig.parse({"store": out, "model": work / "m", "resample": 2})).problems
    shutil.copytree(work / "t", tmp_path / "moved/t")
    assert reopen_data(store, f"csv:{tmp_path / 'moved/t'}").columns == ("c", "a")
    with pytest.raises(InputError, match="not their SHA-256"):
        reopen_data(store, f"csv:{tmp_path / 'moved/t'}", features=("a", "c"))
    assert attack(AttackConfig.parse({"model": work / "m", "eps": 0.5, "m": 2, "steps": 2, "n": 50, "max_images": 3,
                                      "seed": 0, "out": tmp_path / "a"})).identity.data.raw["shape"] == [2]


def test_columns_of_another_order_are_put_in_that_of_the_training(work, tmp_path):
    rows = [line.split(",") for line in (work / "t/test.csv").read_text().split()]
    for split in ("train", "test"):
        shutil.copy(work / f"t/{split}.csv", tmp_path / f"{split}.csv")
    train(TrainConfig.parse({"data": f"csv:{tmp_path}", "label": "kind", "model": "linear", "sigma": 0.25, "epochs": 1,
                             "batch_size": 16, "seed": 0, "out": tmp_path / "m"}))
    options = {"model": tmp_path / "m", "n": 100, "seed": 0}
    before = certify(CertifyConfig.parse({**options, "out": tmp_path / "s"}))
    turned = "\n".join(",".join([c, b, a, y, kind]) for a, b, c, y, kind in rows) + "\n"
    (tmp_path / "test.csv").write_text(turned)
    after = certify(CertifyConfig.parse({**options, "out": tmp_path / "s2"}))
    assert after.counts("certify").tolist() == before.counts("certify").tolist()
    (tmp_path / "other.csv").write_text(turned)
    other = {**options, "data": f"csv:{tmp_path / 'other.csv'}", "label": "kind", "out": tmp_path / "s3"}
    moved = certify(CertifyConfig.parse(other))
    assert moved.counts("certify").tolist() == before.counts("certify").tolist()
    assert not verify(VerifyConfig.parse({"store": moved.folder, "model": tmp_path / "m", "resample": 2})).problems
    more = "\n".join(",".join([c, "x" if kind == "kind" else "7", b, a, y, kind]) for a, b, c, y, kind in rows) + "\n"
    (tmp_path / "other.csv").write_text(more)
    wider = certify(CertifyConfig.parse({**other, "out": tmp_path / "s4"}))
    assert wider.counts("certify").tolist() == before.counts("certify").tolist()
    (tmp_path / "other.csv").write_text(turned.replace("c,b,", "c,B,", 1))
    with pytest.raises(InputError, match="was fitted on the columns a, b, c, y, and the inputs have c, B, a, y: name"):
        certify(CertifyConfig.parse({**other, "out": tmp_path / "s5"}))
    named = certify(CertifyConfig.parse({**other, "features": "a,B,c,y", "out": tmp_path / "s5"}))
    assert named.counts("certify").tolist() == before.counts("certify").tolist()


def test_the_inputs_of_the_training_are_said_to_be_so(work, tmp_path):
    shutil.copy(work / "t/train.csv", tmp_path / "all.csv")
    train(TrainConfig.parse({"data": f"csv:{tmp_path / 'all.csv'}", "label": "kind", "model": "linear", "sigma": 0.25,
                             "epochs": 1, "batch_size": 16, "seed": 0, "out": tmp_path / "m"}))
    with pytest.warns(QualityWarning, match="has no splits, so these are inputs that .* was trained on"):
        certify(CertifyConfig.parse({"model": tmp_path / "m", "n": 100, "max_images": 3, "out": tmp_path / "s"}))


def test_a_file_of_scikit_learn_is_given_the_columns_that_it_was_fitted_on(work, tmp_path):
    skops, pandas = pytest.importorskip("skops.io"), pytest.importorskip("pandas")
    table = pandas.read_csv(work / "t/train.csv")
    skops.dump(LogisticRegression().fit(table[["c", "a"]], table.kind), tmp_path / "m.skops")
    options = {"model": f"sklearn:{tmp_path / 'm.skops'}", "data": f"csv:{work / 't'}", "label": "kind", "sigma": 0.25,
               "n": 100, "seed": 0}
    with pytest.raises(InputError, match="was fitted on the columns c, a, and the inputs have a, c"):
        certify(CertifyConfig.parse({**options, "features": "a,c", "out": tmp_path / "s"}))
    with pytest.raises(ModelError, match=r"takes 2 features \(c, a\), and the inputs have 4"):
        certify(CertifyConfig.parse({**options, "out": tmp_path / "s"}))
    assert not (tmp_path / "s").exists()
    stores = [certify(CertifyConfig.parse({**options, "features": "c,a", "batch_size": size,
                                           "out": tmp_path / f"s{size}"})) for size in (7, 100)]
    assert stores[0].counts("certify").tolist() == stores[1].counts("certify").tolist()
    noted = json.loads((tmp_path / "s7/.source.json").read_text())
    assert (noted["features"], noted["label"]) == (["c", "a"], "kind")


def test_mistakes_in_columns_are_told_with_the_others():
    with pytest.raises(ConfigError) as caught:
        CertifyConfig.parse({"model": "m", "out": "s", "features": "a,a", "bounds": "2,1", "levels": 0, "sigma": -1})
    assert len(caught.value.problems) == 4
    with pytest.raises(ConfigError, match="may not hold its answer"):
        CertifyConfig.parse({"model": "m", "out": "s", "features": "a,b", "label": "b"})
