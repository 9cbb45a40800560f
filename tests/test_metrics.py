"""The metric of certified accuracy, against figures of a store and against torchmetrics' own interface."""

import inspect

import numpy as np
import pytest
import torch

from smoothcert.errors import InputError
from smoothcert.metrics import CertifiedAccuracy, torchmetric
from smoothcert.results.certified import Result
from smoothcert.stats import Certificate, ClassCounts
from smoothcert.store.store import read_store
from stores import made

RADII = [0, 0.1, 0.3]


def certificate(prediction, radius):
    counts = ClassCounts([1, 9])
    return Certificate(prediction, radius, counts, (counts,), 0.5, 0.001, "cohen")


def test_batches_of_any_size_give_the_figures_of_the_store(tmp_path):
    made(tmp_path / "s")
    store = read_store(tmp_path / "s")
    result, metric = Result.of(store), CertifiedAccuracy(RADII)
    for start in (0, 7, 50):
        rows = slice(start, {0: 7, 7: 50, 50: None}[start])
        metric.update((store.column("prediction")[rows], store.column("radius")[rows]), store.column("label")[rows])
    values = metric.compute()
    for radius in RADII:
        assert values[f"certified_accuracy_{radius:g}"] == np.mean(result.correct & (result.radius >= radius))
    assert values["acr"] == pytest.approx(np.mean(result.radius * result.correct), rel=1e-12)


def test_certificates_abstentions_and_single_ones():
    metric = CertifiedAccuracy([0, 0.5], acr=False)
    metric.update([certificate(1, 0.6), certificate(None, 0.0)], torch.tensor([1, 1]))
    metric.update(certificate(0, 0.4), 0)
    assert metric.compute() == {"certified_accuracy_0": 2 / 3, "certified_accuracy_0.5": 1 / 3}
    assert metric([certificate(1, 0.6)], [0]) == {"certified_accuracy_0": 0, "certified_accuracy_0.5": 0}
    metric.reset()
    with pytest.raises(InputError, match="before update"):
        metric.compute()


def test_metrics_of_several_processes_are_merged():
    first, second = CertifiedAccuracy([0]), CertifiedAccuracy([0])
    first.update(([1], [0.5]), [1])
    second.update(([1, 1], [0.5, 0.5]), [0, 0])
    first.merge_state(second)
    assert first.compute() == {"certified_accuracy_0": 1 / 3, "acr": 0.5 / 3}
    with pytest.raises(InputError, match="other radii"):
        first.merge_state(CertifiedAccuracy([1]))


@pytest.mark.parametrize(("preds", "target"), [
    (([1, 2], [0.1]), [1, 2]), (([1], [0.1]), [1, 2]), ([1, 2], [1, 2]),
], ids=["radii", "labels", "no certificates"])
def test_what_does_not_fit_together_is_refused(preds, target):
    with pytest.raises(InputError, match="expected"):
        CertifiedAccuracy().update(preds, target)


def test_it_is_used_as_a_metric_of_torchmetrics():
    metrics = pytest.importorskip("torchmetrics")
    ours, theirs = CertifiedAccuracy([0, 0.5]), torchmetric([0, 0.5])
    assert isinstance(theirs, metrics.Metric)
    for name in ("update", "compute", "reset", "forward", "merge_state"):
        assert callable(getattr(ours, name))
    assert list(inspect.signature(ours.update).parameters) == ["preds", "target"]
    for metric in (ours, theirs):
        metric.update((torch.tensor([1, 2]), torch.tensor([0.6, 0.2])), torch.tensor([1, 2]))
        metric.update([certificate(1, 0.1)], [0])
    assert {name: pytest.approx(value) for name, value in ours.compute().items()} == \
        {name: float(value) for name, value in theirs.compute().items()}
    together = metrics.MetricCollection({"robust": torchmetric([0.25])})
    together.update(([1], [0.5]), [1])
    assert "certified_accuracy_0.25" in str(together.compute())
