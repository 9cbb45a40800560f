"""The verbs as functions: objects for models and data, stores in memory and on disk, and their identity."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import smoothcert
from smoothcert import SmoothedClassifier, attack, certify, plot, predict, table, train
from smoothcert.classifiers.classifier import open_classifier
from smoothcert.errors import ConfigError, IdentityError, InputError, ModelError

IMAGES = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1])
DATA = (IMAGES, LABELS)
FAST = {"sigma": 0.25, "n": 100, "seed": 0}


class Net(nn.Module):
    def __init__(self, num_classes: int = 3):
        super().__init__()
        self.last = nn.Linear(16, num_classes)
        self.drop = nn.Dropout(0.5)
        with torch.no_grad():
            self.last.weight.copy_(torch.sin(torch.arange(16 * num_classes)).reshape(num_classes, 16))
            self.last.bias.zero_()

    def forward(self, x):
        return self.drop(self.last(x.flatten(1)))


def build(input_shape, num_classes):
    return Net(num_classes)


def scores(x):
    return Net().eval()(x)


@pytest.fixture(scope="module")
def store():
    return certify(Net().eval(), DATA, **FAST)


def test_a_store_in_memory_has_the_records_of_one_on_disk(store, tmp_path):
    kept = certify(Net().eval(), DATA, **FAST, out=tmp_path / "store")
    assert kept.records.equals(store.records)
    assert kept.identity.raw == store.identity.raw
    assert (store.complete, store.num_records, str(store.folder)) == (True, 5, "(in memory)/Net")
    saved = store.save(tmp_path / "saved")
    for name in ("shard-00000.parquet",):
        assert (tmp_path / "saved" / name).read_bytes() == (tmp_path / "store" / name).read_bytes()
    assert saved.records.equals(store.records)


@pytest.mark.parametrize("model", [
    Net, build, scores, partial(build, input_shape=(1, 4, 4)), SmoothedClassifier(Net().eval(), 0.25, 3, seed=0),
], ids=["class", "factory", "function", "partial", "smoothed"])
def test_a_model_may_come_in_many_forms(model, store):
    options = {"n": 100} if isinstance(model, SmoothedClassifier) else FAST
    assert certify(model, DATA, **options).column("radius").tolist() == store.column("radius").tolist()


def test_loaders_and_datasets_are_the_same_images(store):
    for data in (TensorDataset(*DATA), DataLoader(TensorDataset(*DATA), batch_size=2, shuffle=True)):
        assert certify(Net().eval(), data, **FAST).identity.raw == store.identity.raw


def test_an_object_is_identified_as_open_classifier_does(store):
    opened = open_classifier(Net().eval(), (1, 4, 4), 3)
    assert store.identity.model.raw == opened.identity
    assert {"by", "sha256", "sources", "attributes", "answers"} <= set(opened.identity)
    other = Net().eval()
    other.drop.p = 0.25
    assert open_classifier(other, (1, 4, 4), 3).identity["attributes"] != opened.identity["attributes"]


def test_the_same_call_resumes_and_another_model_is_refused(tmp_path):
    net = Net().eval()
    certify(net, DATA, **FAST, out=tmp_path)
    before = (tmp_path / "shard-00000.parquet").stat().st_mtime_ns
    certify(net, DATA, **FAST, out=tmp_path)
    assert (tmp_path / "shard-00000.parquet").stat().st_mtime_ns == before
    with torch.no_grad():
        net.last.weight += 0.1
    with pytest.raises(IdentityError, match=r"model\.sha256"):
        certify(net, DATA, **FAST, out=tmp_path)
    with pytest.raises(IdentityError, match=r"data\.sha256"):
        certify(Net().eval(), (IMAGES / 2, LABELS), **FAST, out=tmp_path)


def test_predict_attack_and_train_take_objects_too(tmp_path):
    net = Net().eval()
    assert predict(net, DATA, **FAST).kind == "predict"
    found = attack(net, DATA, sigma=0.25, eps=0.5, m=4, steps=2, n=100, seed=0)
    assert (found.kind, found.num_records) == ("attack", 10)
    card = train("linear", TensorDataset(*DATA), sigma=0.25, epochs=1, validation=0, out=tmp_path / "m")
    assert (card.data["data"], card.num_classes) == ("tensors", 3)
    assert certify(str(tmp_path / "m"), DATA, n=100).identity.noise.sigma == 0.25


def test_several_processes_take_objects_that_they_can_import(store):
    assert certify(Net().eval(), DATA, **FAST, workers=2).records.equals(store.records)
    with pytest.raises(InputError, match="workers: the model that was given"):
        certify(lambda x: 2 * scores(x), DATA, **FAST, workers=2)


@pytest.mark.parametrize(("options", "error", "words"), [
    ({"model": 3}, ConfigError, "must be the name or the place of a model"),
    ({"model": Net()}, ModelError, r"call model\.eval\(\) first"),
    ({"model": lambda x: x.mean()}, ModelError, "logits"),
    ({"sigma": None}, InputError, "because Net was not trained with one"),
    ({"sigma": -1, "nn": 3}, ConfigError, r"(?s)2 mistakes.*sigma.*nn: unknown option"),
    ({"model": SmoothedClassifier(scores, 0.5, 3)}, InputError, "leave sigma out"),
], ids=["no model", "train mode", "no logits", "no sigma", "options", "two sigmas"])
def test_mistakes_are_told_before_anything_is_written(options, error, words, tmp_path):
    with pytest.raises(error, match=words):
        certify(**{"model": Net().eval(), "data": DATA, **FAST, "out": tmp_path / "s", **options})
    assert not (tmp_path / "s").exists()


def test_a_smoothed_classifier_is_not_smoothed_again():
    with pytest.raises((ModelError, InputError), match=r"smoothed already|does not name a model"):
        open_classifier(SmoothedClassifier(Net().eval(), 0.25, 3), (1, 4, 4), 3)


def test_tables_and_pictures_of_stores(store):
    assert "certified accuracy" in table(store, radii=[0, 0.1]).to_text()
    both = table({"one": store, "two": store})
    assert "two" in str(both)
    assert "<table" in both._repr_html_()
    with pytest.raises(InputError, match="stores of one kind"):
        table([store, predict(Net().eval(), DATA, **FAST)])
    figure = plot({"ours": store})
    assert figure.axes[0].get_legend_handles_labels() is not None


def test_importing_smoothcert_imports_no_torch():
    import subprocess
    import sys

    code = "import sys, smoothcert; assert 'torch' not in sys.modules and 'certify' in smoothcert.__all__"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(getattr(smoothcert, name) is not None for name in smoothcert.__all__)


def test_pictures_of_data_that_were_given_as_objects_ask_for_them():
    store = certify(Net().eval(), DATA, **FAST)
    with pytest.raises(InputError, match="were given as an object, tensors: give them again as data"):
        plot(store, "gallery")
    assert plot(store, "gallery", data=DATA).axes


def test_axes_of_another_type_are_refused():
    with pytest.raises(InputError, match="ax: must be matplotlib axes, got int"):
        plot(certify(Net().eval(), DATA, **FAST), "curve", ax=3)
