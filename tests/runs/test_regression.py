"""Regressions: the run and its store, which nothing that computes it may change, and what the verbs make of it."""

import json
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.special import ndtr, ndtri
from typer.testing import CliRunner

import smoothcert
from smoothcert.cli.main import app
from smoothcert.data import from_tensors
from smoothcert.errors import ConfigError, InputError, ModelError, StoreError
from smoothcert.results.gather import read_result
from smoothcert.runs.certify import certify
from smoothcert.runs.executors import here
from smoothcert.runs.options import CertifyConfig
from smoothcert.runs.regression import prepare_regression
from smoothcert.stats import PercentilePlan
from smoothcert.store.intervals import Sketches, write_reread
from smoothcert.store.records import Record
from smoothcert.store.store import read_store
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.verify import verify

RADII = (0.0, 0.1, 0.3)


class Linear(torch.nn.Module):
    """Two outputs: w x and its cube."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = x.flatten(1) @ self.weight
        return torch.stack([first, first**3], dim=1)


def inputs(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, 1, 4, 4), dtype=np.float32)


def targets(count: int) -> np.ndarray:
    first = inputs(count).reshape(count, -1) @ np.linspace(-1, 1, 16)
    return np.stack([first, np.full(count, 100.0)], axis=1)


def options(out: Path, **more) -> CertifyConfig:
    data = from_tensors(inputs(5), targets(5), real=True, name="numbers")
    given = {"model": Linear(), "data": data, "task": "regression", "sigma": 0.5, "radii": RADII, "n": 730,
             "alpha": 0.01, "seed": 3, "noise": "gaussian", "out": out}
    return CertifyConfig.parse({**given, **more})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return certify(options(tmp_path_factory.mktemp("regression") / "store"))


@pytest.fixture(scope="module")
def command():
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_intervals_of_a_linear_function_hold_its_whole_range(store):
    """w x moves by |w| r exactly, and its percentiles are known, as are those of its cube."""
    slope = float(np.linalg.norm(np.linspace(-1, 1, 16)))
    estimate, lower, upper = Sketches.of(store).read()
    truth = targets(5)[:, 0]
    for place, radius in enumerate(RADII):
        for k, power in enumerate((1, 3)):
            assert (lower[:, k, place] <= (truth - slope * radius) ** power).all()
            assert (upper[:, k, place] >= (truth + slope * radius) ** power).all()
        spread = 2 * slope * (radius + 0.5 * 3.3 * np.sqrt(np.pi / 2 / 730))  # with the error of a median
        assert (upper[:, 0, place] - lower[:, 0, place] < 1.3 * spread + 0.05).all()
    np.testing.assert_allclose(estimate[:, 0], truth, atol=0.6)


def test_records_hold_the_order_statistics_of_the_samples(store):
    """As the sampler of classifications draws them: each copy is the input and noise of its own key."""
    run = store.identity.regression
    record = store.records.to_pylist()[2]  # the second input, first output
    rng = smoothcert.SmoothedRegressor(Linear(), sigma=0.5, seed=3, noise="gaussian")
    found = rng.certify(inputs(5)[1], RADII, n=730, alpha=0.01, index=1)
    assert (record["index"], record["output"], record["target"]) == (1, 0, targets(5)[1, 0])
    assert found.estimate.tolist() == [record["estimate"], store.records.to_pylist()[3]["estimate"]]
    assert found.lower[:, 0].tolist() == record["lower"]
    assert run.ranks[0] == 1
    assert run.ranks[-1] == 730
    assert record["sketch"] == sorted(record["sketch"])


def test_other_work_gives_the_same_bytes(store, tmp_path, monkeypatch):
    """In other order, resumed, in another process's run, and by another number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run = prepare_regression(options(tmp_path / "one")).reopen()()

        def some(run, pending):
            yield from islice(here(run, pending[::-1]), 3)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run.fill(some)
        assert read_store(tmp_path / "one").num_records == 3
        again = certify(options(tmp_path / "one"))
    finally:
        torch.set_num_threads(threads)
    shard = "shard-00000.parquet"
    assert (again.folder / shard).read_bytes() == (store.folder / shard).read_bytes()


def test_tasks_are_known_after_the_networks_were_released(tmp_path):
    """The driver of several workers lets go of its networks, then hands out the two records of each input together."""
    run = prepare_regression(options(tmp_path / "store"))
    run.release()
    assert run.tasks([1, 2, 3, 9]) == [(1,), (2, 3), (9,)]


def test_a_store_is_verified_by_its_order_statistics(store, tmp_path):
    assert verify(VerifyConfig(store=store.folder)).problems == []
    again = VerifyConfig.parse({"store": store.folder, "resample": 4, "model": Linear(), "data": options(
        tmp_path).data})
    assert verify(again).problems == []
    other = Linear()
    with torch.no_grad():
        other.weight += 1
    with pytest.raises(smoothcert.SmoothcertError, match="sha256"):
        verify(VerifyConfig.parse({"store": store.folder, "resample": 1, "model": other, "data": options(
            tmp_path).data}))


@pytest.mark.parametrize(("column", "words"), [("lower", "its order statistics give"), ("sketch", "do not ascend"),
                                               ("estimate", "its order statistics give")])
def test_changed_values_are_found(store, tmp_path, column, words):
    rows = store.records.to_pylist()
    value = rows[4][column]
    rows[4][column] = value + 1 if column == "estimate" else [value[0] + 1000, *value[1:]]
    smoothcert.store.store.write_store(tmp_path / "s", store.identity, store.provenance.raw,
                                       [Record.from_row(row) for row in rows])
    (problem,) = verify(VerifyConfig(store=tmp_path / "s")).problems
    assert words in problem
    assert "record 4 (image 2)" in problem


def test_intervals_are_read_again_at_other_radii_and_levels(store, tmp_path, command):
    """Where the sketch has the rank exactly as all samples give them; elsewhere wider, never narrower."""
    sampler = prepare_regression(options(tmp_path / "x")).sampler
    values = np.stack([np.sort(sampler.draw(sampler.subject(inputs(5)[k], k), "estimate", 730), axis=0)
                       for k in range(5)])
    sketches = Sketches.of(store).at((0.05, 0.3), 0.05)
    plan = PercentilePlan(0.5, (0.05, 0.3), 730, 0.05, outputs=2)
    _, lower, upper = sketches.read()
    for place, (low, high) in enumerate(plan.ranks - 1):
        assert (lower[:, :, place] <= values[:, low]).all()
        assert (upper[:, :, place] >= values[:, high]).all()
    write_reread(tmp_path / "again", store, sketches)
    again = read_store(tmp_path / "again")
    assert verify(VerifyConfig(store=again.folder)).problems == []
    assert again.identity.regression.radii == [0.05, 0.3]
    assert again.identity.procedure.alpha == 0.05
    done = command("recertify", store.folder, "--alpha", 0.05, "--radii", "0.05,0.3", "-o", tmp_path / "twice")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "twice" / "shard-00000.parquet").read_bytes() == (
        again.folder / "shard-00000.parquet").read_bytes()
    with pytest.raises(InputError, match=r"radius 4: .* needs"):
        sketches.at((4.0,))
    drawn = command("verify", tmp_path / "twice", "--resample", 1, "--model", "x.py:y")
    assert "give that store" in drawn.output


def test_widths_and_targets_inside(store):
    result = read_result(store)
    _, lower, upper = result.sketches.read()
    for one in result.at():
        width = upper[:, one.output, RADII.index(one.radius)] - lower[:, one.output, RADII.index(one.radius)]
        assert (one.mean, one.median) == pytest.approx((width.mean(), np.median(width)), rel=1e-6)
        assert one.low in width
        assert one.high in width
        assert one.inside == (1.0 if one.output == 0 else 0.0)
        assert one.exact
    assert [one.exact for one in result.at((0.1, 0.123))] == [True, False] * 2


def test_what_verbs_print_and_draw(store, tmp_path, command):
    printed = command("table", store.folder)
    assert "5 inputs, sigma 0.5, percentile 0.5, 2 outputs, alpha 0.01, n 730" in printed.output
    assert "targets inside" in printed.output
    (entry,) = json.loads(command("table", store.folder, "--json").output)
    assert [one["radius"] for one in entry["figures"]] == [*RADII, *RADII]
    assert "is: regression store" in command("info", store.folder).output
    assert command("table", store.folder, "--radii", "0.1,0.2", "--format", "csv").output.count("\n") == 5
    for words in (("plot", "widths", store.folder, "-o", tmp_path / "w.png"),
                  ("report", store.folder, "-o", tmp_path / "r.html"),
                  ("export", store.folder, "-o", tmp_path / "e.parquet")):
        done = command(*words)
        assert done.exit_code == 0, done.output
    assert "Certified intervals" in (tmp_path / "r.html").read_text()
    assert "lower_0.3" in pq.read_schema(tmp_path / "e.parquet").names


@pytest.mark.parametrize(("words", "why"), [
    (("compare", "S", "S"), "holds the intervals of a regression"),
    (("check", "S", "--require", "acr >= 1"), "holds the intervals of a regression"),
    (("export", "S", "-o", "x.tsv"), "store of kind regression"),
    (("plan", "S", "--radius", "0.5", "--accuracy", "0.5"), "store of kind regression"),
    (("plot", "curve", "S", "-o", "x.png"), "store of kind regression"),
    (("distributional", "S"), "is a regression store"),
    (("recertify", "S", "--method", "cohen"), "is a regression store"),
    (("table", "S", "--norm", "linf"), "store of kind regression"),
    (("table", "S", "S", "--paired"), "here are none"),
    (("table", "S", "--one-pass"), "holds the intervals of a regression"),
    (("table", "S", "--intervals", "all"), "--intervals chooses among the lower bounds that runs of certification"),
    (("info", "S", "--intervals", "all"), "--intervals chooses among the lower bounds that runs of certification"),
    (("recertify", "S", "--intervals", "all", "-o", "x"), "leave out intervals"),
    (("recertify", "S", "--margin", "0", "-o", "x"), "leave out margin"),
])
def test_verbs_of_classes_refuse_it_with_words(store, tmp_path, command, words, why, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(*(str(store.folder) if word == "S" else word for word in words))
    assert done.exit_code != 0
    assert why in done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("given", "words"), [
    ({"method": "cohen", "n0": 100}, "does not take method, n0: leave them out"),
    ({"n_max": 1000}, "does not take n-max: leave it out"),
    ({"batch_size": 10, "engine": "eager"}, "leave out batch-size, engine"),
    ({"precision": "bf16"}, "leave out precision"),
    ({"radii": None}, "give radii"),
    ({"percentile": 1.5}, "percentile"),
    ({"radii": (9.0,)}, "needs more than"),
    ({"task": "classification", "percentile": 0.4}, "does not take percentile"),
    ({"task": "ranking"}, "task"),
    ({"log_to": "tensorboard:x"}, "log-to"),
])
def test_options_that_do_not_belong_are_refused(tmp_path, given, words):
    with pytest.raises(ConfigError, match=words):
        options(tmp_path / "s", **given)


def test_radii_that_two_outputs_cannot_have_are_refused_before_work(tmp_path):
    plan = {"n": 11, "alpha": 0.001, "radii": (0.0,)}  # enough for one output
    with pytest.raises(InputError, match=r"\(2 outputs\) needs n 12 or more"):
        certify(options(tmp_path / "s", **plan))
    assert not (tmp_path / "s").exists()


def test_nan_is_refused_and_infinity_a_value(tmp_path):
    def steep(x):
        first = x.mean((1, 2, 3))
        return torch.where(first > 0.55, torch.inf, first)

    data = (inputs(2), [0.1, 0.2])
    store = certify(options(tmp_path / "inf", model=steep, data=data, model_id="steep", radii=(0.0, 0.5)))
    _, lower, upper = Sketches.of(store).read()
    assert np.isinf(upper[:, 0, 1]).all()
    assert np.isfinite(lower).all()
    assert verify(VerifyConfig(store=store.folder)).problems == []
    assert read_result(store).at()[1].mean == np.inf
    with pytest.raises(ModelError, match="NaN"):
        certify(options(tmp_path / "nan", model=lambda x: steep(x) * 0, data=data, model_id="nan"))


def test_a_file_with_one_output_serves(tmp_path):
    onnx = pytest.importorskip("onnx")
    make, weights = onnx.helper, np.linspace(-1, 1, 16, dtype=np.float32)[:, None]
    image, answer = (make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
                     for name, shape in (("x", ["n", 1, 4, 4]), ("y", ["n", 1])))
    nodes = [make.make_node("Flatten", ["x"], ["flat"]), make.make_node("Gemm", ["flat", "w"], ["y"])]
    graph = make.make_graph(nodes, "g", [image], [answer], [onnx.numpy_helper.from_array(weights, "w")])
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8), tmp_path / "g.onnx")
    store = certify(options(tmp_path / "s", model=str(tmp_path / "g.onnx"), data=(inputs(2), targets(2)[:, 0])))
    _, lower, upper = Sketches.of(store).read()
    assert ((lower[..., 0] <= targets(2)[:, :1]) & (targets(2)[:, :1] <= upper[..., 0])).all()


def test_targets_must_be_as_many_as_outputs(tmp_path):
    with pytest.raises(InputError, match="model: 2, targets of an input of tensors: 1"):
        certify(options(tmp_path / "s", data=(inputs(3), [1.5, 2.5, 3.5])))


def test_an_unfinished_input_is_left_out(store, tmp_path):
    folder = shutil.copytree(store.folder, tmp_path / "part")
    rows = [Record.from_row(row) for row in store.records.to_pylist()]
    shutil.rmtree(folder)
    with smoothcert.store.store.open_store(folder, store.identity, store.provenance.raw) as writer:
        for position in (0, 1, 2):
            writer.add(position, rows[position])
    part = read_store(folder)
    assert Sketches.of(part).index.tolist() == [0]
    with pytest.raises(StoreError, match="not complete"):
        write_reread(tmp_path / "again", part, Sketches.of(part))


def test_percentiles_other_than_the_median(tmp_path):
    """Of x e for e ~ N(0, 1), the 90th percentile is Phi^-1(.9) times the spread."""
    store = certify(options(tmp_path / "s", percentile=0.9, n=2000, radii=(0.0, 0.25)))
    slope = float(np.linalg.norm(np.linspace(-1, 1, 16)))
    truth = targets(5)[:, 0] + 0.5 * slope * ndtri(0.9)
    _, lower, upper = Sketches.of(store).read()
    assert ((lower[:, 0, 1] <= truth - 0.25 * slope) & (truth + 0.25 * slope <= upper[:, 0, 1])).all()
    below = store.identity.regression.ranks.index(int(PercentilePlan(0.5, (0.25,), 2000, 0.01, 0.9, 2).ranks[0, 0]))
    assert 0 < below < len(store.identity.regression.ranks) * ndtr(3)
