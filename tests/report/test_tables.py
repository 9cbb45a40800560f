"""Tables and pictures: figures rounded down, curves that lose nothing."""

import csv
import io
import json
from dataclasses import replace
from math import comb, nan
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from printed import gathered_json, gathered_table, plain, store_text, table
from smoothcert.cli.main import app
from smoothcert.errors import CardWarning, ConfigError, InputError, StoreError, UnknownNameError
from smoothcert.interop import open_records
from smoothcert.report.certified import render_comparison
from smoothcert.report.describe import Description
from smoothcert.report.html.facts import settings, warnings
from smoothcert.report.html.page import report_page
from smoothcert.report.plots import plot_curves
from smoothcert.report.shown import render
from smoothcert.results.attacks import outcomes
from smoothcert.results.base import Points, check_same_data, unseen_classes
from smoothcert.results.best import CertifiedRuns, best_method
from smoothcert.results.certified import Result, default_radii, merge_runs
from smoothcert.results.compare import compare, violations
from smoothcert.results.curves import certified_curve
from smoothcert.results.figures import down, radius_words
from smoothcert.results.gather import gather, gather_page
from smoothcert.results.predictions import Predicted
from smoothcert.runs.options import DistributionalConfig
from smoothcert.stats import one_pass_accuracy, paired_interval
from smoothcert.store.records import Record, Tally
from smoothcert.store.store import open_store, read_store, write_store
from stores import attacked, identity_of, made


def result(radius, correct, name="run", index=None, **changes) -> Result:
    radius, correct = np.asarray(radius, float), np.asarray(correct, bool)
    told = {"sigma": 0.5, "alpha": 0.001, "method": "cohen", "n": 1000, **changes}
    return Result(name, np.arange(len(radius)) if index is None else np.asarray(index), radius, correct, radius == 0,
                  **told)


def test_printed_figures_are_never_rounded_up():
    assert down(99.99, 1) == "99.9"
    assert down(0.98765, 3) == "0.987"
    for count in range(1001):
        assert float(down(100 * (count / 1000), 1)) == count / 10, "an exact figure stays as it is"
    rng = np.random.default_rng(0)
    for value in rng.random(2000) * 5:
        assert float(down(value, 3)) <= value < float(down(value, 3)) + 0.001 + 1e-12


def test_a_curve_has_every_corner_of_the_step_function():
    rng = np.random.default_rng(0)
    told = result(rng.random(50).round(2), rng.random(50) < 0.8)
    curve = certified_curve(told)
    for r in np.linspace(0, 1.1, 221):
        exact = np.mean(told.correct & (told.radius >= r))
        later = np.flatnonzero(curve.radius >= r)
        assert (curve.accuracy[later[0]] if later.size else 0) == exact
    assert curve.accuracy[-1] == 0
    assert (curve.lower <= curve.accuracy).all()


def test_a_curve_of_nothing_right():
    curve = certified_curve(result([0.0, 0.5], [False, False]))
    assert (curve.accuracy == 0).all()


def test_what_is_said_of_many_t_certificates_rests_on_2_alpha(tmp_path):
    """At alpha 0.02, so that the bounds differ: those of t-certify at alpha are those of cohen at 2 alpha."""
    radius, correct = np.linspace(0.01, 1, 60), np.ones(60, bool)
    t, cohen = (result(radius, correct, method=m, alpha=a) for m, a in (("t-certify", 0.02), ("cohen", 0.04)))
    radii = [0.0, 0.25, 0.5]
    for bound in ("test_set", "bernstein", "population", "all_radii"):
        assert np.array_equal(getattr(t.at(radii, 0.05), bound), getattr(cohen.at(radii, 0.05), bound))
        assert (getattr(t.at(radii, 0.05), bound) < getattr(replace(t, method="cohen").at(radii, 0.05), bound)).any()
    assert np.array_equal(certified_curve(t).lower, certified_curve(cohen).lower)
    assert result([0.5], [True], method="t-certify", alpha=0.7).at([0.0], 0.05).population[0] == 0
    boards = [CertifiedRuns.of([one, replace(one, name="b")], Points(tuple(radii))) for one in (t, cohen)]
    assert np.array_equal(boards[0].envelopes[0].values["test_set"], boards[1].envelopes[0].values["test_set"])
    assert "run, b: t-certify is proved at 2 alpha" in " ".join(boards[0].notes)
    store, attack = open_records(made(tmp_path / "s", right=3)), open_records(attacked(tmp_path / "attack", count=60))
    told = store.identity.replace(procedure={**store.identity.procedure.raw, "method": "t-certify"})
    once, twice = (violations(attack, one) for one in (store, replace(store, identity=told)))
    assert twice.expected - once.expected == pytest.approx(60 * 0.001 * 2)


def test_pictures(tmp_path):
    curves = [certified_curve(result([0.2, 0.4, 0.9], [True, True, False], name)) for name in ("a <b> & c", "d")]
    files = [tmp_path / "new" / f"c.{kind}" for kind in ("png", "svg", "pdf")]
    plot_curves(curves, files, "title")
    assert files[0].read_bytes()[:4] == b"\x89PNG"
    svg = files[1].read_text()
    assert "certified accuracy" in svg
    assert "<b>" not in svg, "names are escaped"
    assert files[2].read_bytes()[:4] == b"%PDF"
    first = files[1].read_bytes()
    plot_curves(curves, files[1:2], "title")
    assert files[1].read_bytes() == first, "the same curves give the same file"


def test_every_format_has_every_run():
    runs = [result([0.3, 0.6], [True, False], "a_1"), result([0.3, 0.0], [True, False], "b|2")]
    for style in ("text", "markdown", "csv", "latex"):
        shown = table(runs, [0, 0.25], 0.05, style)
        assert "50.0" in shown or "0.5," in shown
        assert ("a_1" in shown) or (r"a\_1" in shown)
    assert "UNFINISHED" in table([Result(**{**vars(runs[0]), "complete": False})], [0], 0.05, "text")
    with pytest.raises(UnknownNameError, match="latex"):
        table(runs, [0], 0.05, "latx")


def test_abstentions_count_as_wrong_and_are_shown():
    told = plain(result([0.0, 0.0, 0.7, 0.2], [False, False, True, True]), [0, 0.5], 0.05)
    assert told["abstained"] == 2
    assert told["accuracy"] == [0.5, 0.25]
    assert told["acr"] == pytest.approx(0.9 / 4)


def test_merging():
    a, b = result([0.1], [True], "a", [3]), result([0.2], [False], "b", [1])
    both = merge_runs([a, b])
    assert both.index.tolist() == [1, 3]
    assert both.radius.tolist() == [0.2, 0.1]
    with pytest.raises(InputError, match="same images"):
        merge_runs([a, a])
    with pytest.raises(InputError, match="alpha"):
        merge_runs([a, result([0.2], [False], "b", [1], setting={"alpha": 0.01})])


def test_a_merged_run_of_two_cards_says_so():
    parts = [result([0.3], [True], name, [place], cards=(card,))
             for place, (name, card) in enumerate((("a", "A100"), ("b", "H200")))]
    with pytest.warns(CardWarning, match="the merged run holds records made on A100 and on H200"):
        assert merge_runs(parts).cards == ("A100", "H200")


@pytest.mark.parametrize("sigma", [0.01, 0.12, 0.5, 1.0, 3.0, 60.0])
def test_default_radii_cover_what_can_be_certified(sigma):
    radii = default_radii([result([0.0], [False], sigma=sigma)])
    assert radii[0] == 0
    assert 1 <= len(radii) <= 13
    assert np.allclose(np.diff(radii), radii[1] if len(radii) > 1 else 0)


def test_what_holds_nothing_says_what_to_do(tmp_path):
    procedure = {"method": "cohen", "n0": 1, "n": 1, "margin": None}
    with open_store(tmp_path / "s", identity_of("certify", 5, 0.25, procedure), {}):
        pass
    (tmp_path / "log.tsv").write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n")
    for name, words in (("s", "let its run finish"), ("log.tsv", "there is nothing to show")):
        store = open_records(tmp_path / name)
        with pytest.raises(StoreError, match=words):
            Result.of(store)
        with pytest.raises(StoreError, match=words):
            Predicted.of(store)


def trinomial(m: int, p_10: float, p_01: float) -> dict[tuple[int, int], float]:
    """P(b, c) of b and c disputed images of m."""
    return {(b, c): comb(m, b) * comb(m - b, c) * p_10**b * p_01**c * (1 - p_10 - p_01) ** (m - b - c)
            for b in range(m + 1) for c in range(m + 1 - b)}


@pytest.mark.parametrize("rho", [0.05, 0.2])
@pytest.mark.parametrize("m", [1, 5, 14])
def test_a_paired_interval_covers_the_difference(m, rho):
    intervals = {(b, c): paired_interval(b, c, m, rho) for b in range(m + 1) for c in range(m + 1 - b)}
    grid = np.linspace(0, 1, 11)
    for p_10 in grid:
        for p_01 in grid[grid <= 1 - p_10 + 1e-9]:
            inside = sum(chance for seen, chance in trinomial(m, p_10, min(p_01, 1 - p_10)).items()
                         if intervals[seen][0] <= p_10 - p_01 <= intervals[seen][1])
            assert inside >= 1 - rho - 1e-12


def test_a_paired_interval_has_the_sign_of_mcnemars_exact_test():
    rho, m = 0.05, 24
    for b in range(m + 1):
        for c in range(m + 1 - b):
            low, high = paired_interval(b, c, m, rho)
            tail = sum(comb(b + c, k) for k in range(b, b + c + 1)) / 2 ** (b + c)
            assert (low > 0) == (tail < 0.45 * rho)
            assert (-high, -low) == pytest.approx(paired_interval(c, b, m, rho), abs=1e-9)
            assert -1 <= low <= (b - c) / m <= high <= 1


def test_a_paired_interval_narrows_around_the_difference():
    widths = [np.subtract(*paired_interval(6 * m, 2 * m, 100 * m, 0.05)[::-1]) for m in (1, 16, 256)]
    assert widths[1] < widths[0] / 2.5
    assert widths[2] < widths[1] / 3
    assert np.allclose(paired_interval(60_000, 20_000, 1_000_000, 0.05), 0.04, atol=0.002)


def test_a_comparison_counts_what_one_run_alone_has():
    first = result([1.0, 1.0, 0.2, 0.0], [True, True, True, False], "a", [0, 1, 2, 9])
    second = result([0.6, 0.3, 0.9, 0.9], [True, True, False, True], "b", [1, 2, 0, 7])
    found = compare(first, second, [0.25, 0.5, 2.0], 0.05)
    assert found.images == 3
    assert found.left_out == (1, 1)
    assert [(d.only_first, d.only_second) for d in found.differences] == [(1, 1), (1, 0), (0, 0)]
    assert [d.value for d in found.differences] == pytest.approx([0, 1 / 3, 0])
    assert found.acr == pytest.approx((2.2 / 3, 0.9 / 3))
    assert compare(first, first, [0.5], 0.05).differences[0].value == 0
    for style in ("text", "markdown", "csv", "latex"):
        assert "0.25" in render_comparison(found, style)
    with pytest.raises(InputError, match="no image in common"):
        compare(first, result([1.0], [True], "c", [5]), [0.5], 0.05)


def test_an_interval_is_printed_outwards():
    runs = [result([1.0] * 997 + [0.0] * 3, [True] * 997 + [False] * 3, "a"),
            result([1.0] * 900 + [0.0] * 100, [True] * 900 + [False] * 100, "b")]
    (found,) = compare(*runs, [0.5], 0.05).differences
    shown = render_comparison(compare(*runs, [0.5], 0.05), "text")
    low, high = (float(v) / 100 for v in shown.split("[")[1].split("]")[0].split(","))
    assert low <= found.low
    assert found.low - low < 0.0011
    assert high >= found.high
    assert high - found.high < 0.0011


INTEGERS = {"by": "file", "sha256": "cd" * 32,
            "runtime": {"name": "onnxruntime", "version": "1.32", "instructions": "avx512_vnni"}}


@pytest.mark.parametrize(("changes", "words"), [
    ({}, "m (module abababababab), float32"),
    ({"precision": "bf16", "batch_size": 9}, "m (module abababababab), bf16, by engine eager"),
    ({"precision": "bf16", "runtime": {"name": "openvino", "version": "2026.4", "instructions": "avx512_bf16"}},
     "m (module abababababab), bf16, by openvino 2026.4 on avx512_bf16"),
    ({"model": INTEGERS}, "m (file cdcdcdcdcdcd), quantised to integers, by onnxruntime 1.32 on avx512_vnni"),
    ({"input_dtype": "float16"}, "m (module abababababab), float32 (weights of float16)"),
])
def test_a_comparison_says_which_networks_it_is_of(tmp_path, changes, words):
    first, second = made(tmp_path / "a", right=2), made(tmp_path / "b", right=1, seed=1, **changes)
    runs = [Result.of(read_store(folder)) for folder in (first, second)]
    found = compare(*runs, [0.25], 0.05)
    assert found.networks[1] == words
    assert f"second: {words}" in render_comparison(found, "text")
    assert found.to_json()["networks"][1] == words
    (page,) = gather_page([str(second)], None).runs
    assert dict(settings(page))["certified in"] == words.partition("), ")[2]
    shown = [line for line in warnings(page) if "was made from is another classifier" in line]
    assert bool(shown) == ("integers" in words)


def test_a_table_of_pairs_has_the_intervals_of_the_comparison(tmp_path):
    folders = [made(tmp_path / name, right=right, seed=3) for name, right in (("float32", 2), ("int8", 1.5), ("c", 1))]
    runs = [Result.of(read_store(folder)) for folder in folders]
    points = Points((0.1, 0.25), paired=True)
    found = CertifiedRuns.of(runs, points)
    assert [one[1] for one in found.paired] == [compare(runs[0], run, [0.25], 0.05).differences[0] for run in runs[1:]]
    text, one = render([found], "text"), found.paired[0][0]
    assert "float32 - int8" in text
    assert f"{100 * one.value:+.1f} [" in text
    assert "note: int8 is m (module abababababab), float32" in text
    assert "difference [interval]" in render([found], "markdown")
    assert "difference [interval]" in render([found], "latex")
    rows = list(csv.DictReader(io.StringIO(render([found], "csv"))))
    assert [row["first_minus_this"] == "" for row in rows] == [True] * 2 + [False] * 4
    assert float(rows[2]["paired_low"]) == one.low
    assert found.to_json()[1]["paired"][0] == one.to_dict()
    assert "paired" not in found.to_json()[0]
    with pytest.raises(InputError, match="--paired is the difference of other runs"):
        gather([str(folders[0])]).at(points)
    with pytest.raises(InputError, match="different data sets"):
        CertifiedRuns.of([runs[0], replace(runs[1], label=(runs[1].label + 1) % 10)], points)


def test_runs_over_different_data_are_not_compared():
    a = result([1.0, 0.5], [True, True], "a", label=np.array([3, 4]))
    b = result([1.0, 0.5], [True, True], "b", label=np.array([3, 5]))
    with pytest.raises(InputError, match="image 1 has label 4 in the one and 5 in the other"):
        compare(a, b, [0.5], 0.05)
    named = [replace(a, name=name, setting={"data": {"name": name, "split": "test"}}) for name in ("mnist", "cifar10")]
    with pytest.raises(InputError, match="cifar10"):
        check_same_data(named)
    shown = table([a, b], [0.5], 0.05, "text", envelopes=True)
    assert "not compared" in shown
    assert "*" not in shown
    assert "envelope" not in shown
    assert "a: 2 images" in shown, "each is still shown"


def test_the_best_sigma_is_starred_and_the_best_method_named():
    runs = [result([0.4, 0.4, 0.4, 0.4], [True] * 4, "c.25", group="cohen", sigma=0.25),
            result([1.0, 1.0, 0.0, 0.0], [True, True, False, False], "c.5", group="cohen", sigma=0.5),
            result([0.9, 0.9, 0.9, 0.0], [True] * 3 + [False], "s.5", group="smoothadv", sigma=0.5)]
    board = CertifiedRuns.of(runs, Points((0.25, 0.75, 2.0)))
    assert [stars.tolist() for stars in board.stars] == [[True, False, False], [False, True, False],
                                                         [True, True, False]]
    assert [one.sigma for one in board.envelopes] == [("0.25", "0.5", ""), ("0.5", "0.5", "")]
    assert best_method(board.envelopes) == ["cohen", "smoothadv", ""]
    lines = {line.split("  ")[0]: line.split()[-3:] for line in table(runs, board.radii, 0.05, "text").splitlines()}
    assert lines["c.25"] == ["100.0*", "-", "-"], "1,000 samples at sigma .25 prove no radius above .616"
    assert lines["best sigma of cohen"][-2:] == ["0.25", "0.5"]
    assert lines["best method"][-2:] == ["cohen", "smoothadv"]
    assert "**75.0**" in table(runs, board.radii, 0.05, "markdown")
    assert r"\textbf{75.0}" in table(runs, board.radii, 0.05, "latex")


def test_an_envelope_is_the_best_run_at_a_share_of_rho():
    rng = np.random.default_rng(0)
    runs = [result(rng.random(200) * s, rng.random(200) < 0.9, f"r{s}", sigma=s) for s in (0.5, 1.0, 2.0)]
    radii = [0.1, 0.5, 1.5]
    (one,) = CertifiedRuns.of(runs, Points(tuple(radii), 0.06)).envelopes
    at = [run.at(radii, 0.02) for run in runs]
    for field, values in one.values.items():
        assert (values == np.max([getattr(a, field) for a in at], axis=0)).all()
        assert (values <= np.max([getattr(run.at(radii, 0.06), field) for run in runs], axis=0)).all()
    for style in ("text", "markdown", "csv", "latex"):
        assert ("envelope" in table(runs, radii, 0.06, style, envelopes=True)) > ("envelope" in table(
            runs, radii, 0.06, style))


def test_missing_images_are_noticed():
    runs = [result([1.0] * 4, [True] * 4, "whole"), result([1.0] * 3, [True] * 3, "part")]
    board = CertifiedRuns.of(runs, Points((0.5,)))
    assert board.notes == ("part has 3 of the 4 images: image 3 is missing",)
    assert "different images" in board.warning
    assert not any(stars.any() for stars in board.stars), "shares of other images are not compared"
    assert CertifiedRuns.of(runs[:1], Points((0.5,))).notes == ()


def test_a_log_has_radii_rounded_up_and_unknown_facts():
    log = result([0.5], [True], "log", sigma=nan, n=0, printed=True)
    for style in ("text", "markdown", "latex"):
        assert "rounded up" in table([log], [0.25], 0.05, style)
    assert "sigma ?" in table([log], [0.25], 0.05, "text")
    assert "n ?" in table([log], [0.25], 0.05, "text")
    assert plain(log, [0.25], 0.05)["sigma"] is None
    assert plain(log, [0.25], 0.05)["rounded_up"]
    assert default_radii([log])[-1] <= 0.5
    assert "rounded up" in render_comparison(compare(log, replace(log, name="b"), [0.25], 0.05), "text")


def test_linf_radii():
    told = result([0.5, 1.0], [True, True], setting={"data": {"shape": [3, 32, 32]}}, decided=(0.5,))
    linf = told.in_linf()
    assert (linf.radius <= told.radius / np.sqrt(3072)).all()
    assert linf.at([2 / 255], 0.05).claimed.tolist() == [2], "2/255 needs an l2 radius of 0.435"
    assert linf.at([3 / 255], 0.05).claimed.tolist() == [1]
    assert linf.is_decided(linf.decided[0])
    assert not linf.is_decided(2 / 255)
    assert default_radii([replace(linf, decided=None)])[:3] == [0, 1 / 255, 2 / 255]
    assert radius_words(2 / 255, "linf") == "2/255"
    assert radius_words(0.25, "linf") == "0.25"


def test_predictions_are_shown_rounded_down_and_bounded():
    correct, abstained = np.arange(300) < 200, np.arange(300) >= 298
    told = Predicted("p", np.arange(300), correct, abstained, np.zeros(300, int), 0.5, 0.001, 100)
    shown = table([told, replace(told, name="q", index=np.arange(1, 301))])
    assert " 66.6 " in shown
    assert " 0.6 " in shown
    assert "q has 300 of the 301 images" in shown
    at = told.bounds(0.05)
    assert at.population[0] < at.test_set[0] <= 2 / 3
    found = compare(told, replace(told, correct=~correct & ~abstained), [], 0.05)
    assert (found.differences[0].only_first, found.differences[0].only_second) == (200, 98)


def predicted(folder: Path) -> Path:
    """A store of PREDICT over ten images."""
    counts = np.eye(10, dtype=int)[3] * 100
    records = [Record(i, i % 4, 3, {"p_value": 0.0}, False, [Tally.of("predict", counts)]) for i in range(10)]
    write_store(folder, identity_of("predict", 10, 0.25, {"method": "predict", "n": 100}), {}, records)
    return folder


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> dict[str, str]:
    """A store of each kind that a table can show side by side, and a log."""
    folder = tmp_path_factory.mktemp("kinds")
    log = folder / "log.tsv"
    log.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\t0.3\t1\t1.0\n")
    return {"certify": str(made(folder / "certify")), "attack": str(attacked(folder / "attack")),
            "predict": str(predicted(folder / "predict")), "log": str(log)}


def test_an_attack_has_its_table_in_every_format(kinds):
    runs = gather([kinds["attack"]])
    found = outcomes(runs.results[0].store)
    assert gathered_table(runs) == store_text(runs.results[0].store)
    (content,) = gathered_json(runs)
    assert [one["accuracy"] for one in content["outcomes"]] == [one.accuracy for one in found]
    rows = list(csv.DictReader(io.StringIO(gathered_table(runs, style="csv"))))
    assert [float(row["accuracy"]) for row in rows] == [one.accuracy for one in found]
    for style in ("markdown", "latex"):
        assert gathered_table(runs, style=style).count(f"{100 * found[-1].accuracy:.1f}") == 1
    beside = gather([kinds["attack"], kinds["certify"], kinds["predict"]])
    shown = gathered_table(beside)
    assert shown.index("ACR") < shown.index("new images, at least") < shown.index("what the attack found")
    with pytest.raises(InputError, match="CSV has one kind"):
        gathered_table(beside, style="csv")


@pytest.mark.parametrize(("names", "options", "words"), [
    (["predict"], ["--envelope"], "here are none"), (["certify"], ["--envelope"], "here is one"),
    (["predict"], ["--radii", "0.5"], "--radii are for"), (["attack"], ["--radii", "0.5"], "--radii are for"),
    (["predict"], ["--norm", "linf"], "kind predict: --norm linf is for the radii of certify stores and logs"),
    (["certify", "attack"], ["--norm", "linf"], "kind attack"),
    (["certify"], ["--json", "--format", "csv"], "give one of them"), (["certify", "attack"], ["--merge"], "merged"),
])
def test_what_would_do_nothing_is_refused(kinds, names, options, words):
    for form in ([], [] if "--json" in options else ["--json"]):
        done = CliRunner().invoke(app, ["table", *(kinds[name] for name in names), *options, *form])
        assert (done.exit_code, words in done.output) == (2, True), done.output
    if "--format" in options:
        assert CliRunner().invoke(app, ["compare", kinds["certify"], kinds["certify"], *options]).exit_code == 2


def test_attacks_are_not_compared_image_by_image(kinds):
    done = CliRunner().invoke(app, ["compare", kinds["certify"], kinds["attack"]])
    assert (done.exit_code, "holds attacks" in done.output) == (2, True)


def test_a_log_does_not_say_which_images_are_off_the_grid(kinds):
    assert Description.of(Path(kinds["certify"])).to_json()["off_grid_images"] == 0
    assert "off_grid_images" not in Description.of(Path(kinds["log"])).to_json()


@pytest.mark.parametrize(("given", "words"), [
    ({"loss": "cross-entropy", "gamma": "1", "n": 5}, "n asks for a certificate"),
    ({"model": "counts.npz"}, "take the store that it came from"),
])
def test_bounds_over_laws_say_what_they_do_not_take(tmp_path, given, words):
    with pytest.raises(ConfigError, match=words):
        DistributionalConfig.parse({"model": "m", "out": tmp_path / "s", **given})


def test_predict_prints_the_figures_of_its_table(tmp_path):
    counts = np.eye(10, dtype=int) * 100
    records = [Record(i, 3, 3 if i else -1, {"p_value": 0.0}, False, [Tally.of("predict", counts[3])])
               for i in range(60)]
    folder = tmp_path / "a_b&c"
    write_store(folder, identity_of("predict", 60, 0.25, {"method": "predict", "n": 100}), {}, records)
    store = open_records(folder)
    assert " 98.3        1.6 " in store_text(store)
    run = Predicted.of(store)
    assert " 98.3        1.6 " in table([run])
    assert r"a\_b\&c & 60 " in table([run], style="latex")


def of_class(kind: str, folder: Path, label: int = 3) -> Path:
    """A store of a kind over images that are all of one class; beside it, as `all`, the one of digits it is made of."""
    store = read_store({"certify": made, "attack": attacked, "predict": predicted}[kind](folder / "all"))
    return write_like(folder / kind, store.folder, lambda record, row: replace(record, label=label))


def write_like(folder: Path, store: Path, change) -> Path:
    """A store like another one, with names of classes, whose records went through `change`."""
    names = ["cat", "dog", "owl", "a\nb", *(f"class {k}" for k in range(4, 10))]
    found = read_store(store)
    records = [change(Record.from_row(row), k) for k, row in enumerate(found.records.to_pylist())]
    write_store(folder, found.identity, {"classes": names}, records)
    return folder


@pytest.mark.parametrize(("kind", "words"), [
    ("certify", r"60 images show 1 of the 10 classes (a\nb), and the figures speak of no other; --every, or more"),
    ("predict", r"10 images show 1 of the 10 classes (a\nb), and the figures"),
    ("attack", r"20 images show 1 of the 10 classes (a\nb), and the figures"),
])
def test_a_table_of_images_of_few_classes_says_so_in_every_form(tmp_path, kind, words):
    store = of_class(kind, tmp_path)
    runs = gather([str(store)])
    for style in ("text", "markdown", "latex"):
        assert words in gathered_table(runs, style=style).replace("\\textbackslash{}", "\\")
    assert words in gathered_json(runs)[0]["notes"][0]
    if kind == "predict":
        assert words in store_text(read_store(store))
    assert words in Description.of(store).to_json()["notes"][0]
    whole = write_like(tmp_path / "whole", store, lambda record, row: replace(record, label=row % 10))
    assert "of the 10 classes" not in gathered_table(gather([str(whole)]))


def test_pages_and_comparisons_name_classes_they_do_not_show(tmp_path):
    store = of_class("certify", tmp_path)
    found = gather_page([str(store), str(tmp_path / "all"), str(of_class("attack", tmp_path / "b"))], None)
    page = report_page(found.runs, attacks=found.attacks).partition('id="curves"')[0]
    assert "60 images show 1 of the 10 classes (a\\nb), and the figures" in page
    assert "20 images show 1 of the 10 classes (a\\nb), and the figures" in page
    assert "No warnings" not in page
    label, names = np.arange(8) % 4, ("a", "b", "c", "d")
    one = result(np.ones(8), np.ones(8), "one", label=label, classes=names)
    two = result(np.ones(5), np.ones(5), "two", index=[0, 4, 9, 10, 11], label=label[[0, 4, 1, 2, 3]], classes=names)
    assert one.remarks == two.remarks == ()
    told = compare(one, two, [0.5], 0.05)
    assert told.notes == ("one, two: 2 images show 1 of the 4 classes (a), and the figures speak of no other; --every, "
                          "or more images, may show more",)
    assert "note: one, two: 2 images show 1 of" in render_comparison(told, "text")


def test_parts_that_show_all_classes_together_lack_none():
    names = ("a", "b")
    parts = [result([1.0, 1.0], [1, 1], name, index=[2 * k, 2 * k + 1], label=np.array([k, k]), classes=names)
             for k, name in enumerate("pq")]
    assert all("1 of the 2 classes" in part.remarks[0] for part in parts)
    assert merge_runs(parts).remarks == ()


@pytest.mark.parametrize(("label", "count", "words"), [
    (np.arange(500), 1000, "500 images show 500 of the 1,000 classes, and the figures speak of no other"),
    (np.arange(2000) % 997, 1000, "2,000 images show 997 of the 1,000 classes (not c997, c998, c999), and the figures"),
    (np.arange(2000) // 50, 1000, "show 40 of the 1,000 classes (c0, c1, c2, c3 and 36 more), and the figures speak"),
    ([2], 10, "1 image shows 1 of the 10 classes, and the figures speak of no other"),
])
def test_unseen_classes_are_told_in_few_words(label, count, words):
    note, = unseen_classes(np.array(label), [f"c{k}" for k in range(count)])
    assert words in note
    assert len(note) < 160


def test_there_is_no_note_on_classes_all_shown_or_unknown(kinds):
    assert unseen_classes(np.array([1, 0, 1]), ["a", "b"]) == ()
    assert unseen_classes(np.array([1, 1]), None) == unseen_classes(None, ["a", "b"]) == ()
    assert "classes" not in gathered_table(gather([kinds["log"]]))


def run_table(*arguments) -> str:
    return CliRunner().invoke(app, ["table", *map(str, arguments)]).stdout


def test_one_noisy_copy_is_a_row_of_its_own(tmp_path):
    """From the votes for the labels, one-sided at all of alpha; of merged parts as of the whole; and labelled."""
    whole = made(tmp_path / "whole", method="two-sided", right=0.5)
    store = read_store(whole)
    votes = store.counts("estimate")[np.arange(60), store.column("label")]
    wanted = one_pass_accuracy(votes, 1000, [0.0, 0.1], 0.25)
    text, told = (run_table(whole, *more, "--one-pass", "--radii", "0,0.1") for more in ([], ["--json"]))
    assert "one noisy copy, at least" in text
    assert "a marginal claim over images and noise: no single answer is certified" in text
    assert "one noisy copy, this test set" in run_table(whole, "--one-pass", "--intervals", "all")
    assert json.loads(told)[0]["one_pass"] == {
        part: getattr(wanted, part).tolist() for part in ("mean", "test_set", "population")}
    csv_row = next(csv.DictReader(io.StringIO(run_table(whole, "--one-pass", "--radii", "0.1", "--format", "csv"))))
    assert float(csv_row["one_pass_population"]) == wanted.population[1]
    assert "one_pass" not in run_table(whole, "--json")
    first = gather([str(whole)], one_pass=True).results[0]
    parts = [replace(first, index=first.index[rows], radius=first.radius[rows], correct=first.correct[rows],
                     abstained=first.abstained[rows], label=first.label[rows], label_limits=replace(
                         first.label_limits, p=first.label_limits.p[rows], q=first.label_limits.q[rows]))
             for rows in (slice(30, 60), slice(0, 30))]
    merged = merge_runs(parts).one_pass([0.0, 0.1], 0.05)
    assert np.array_equal(merged.population, wanted.population)


def test_one_noisy_copy_needs_votes_and_l2(tmp_path, kinds):
    whole = made(tmp_path / "whole")
    for asked, words in (([kinds["log"]], "holds no votes"), ([attacked(tmp_path / "a")], "runs of certification")):
        with pytest.raises((StoreError, InputError), match=words):
            gather([str(one) for one in asked], one_pass=True)
    linf = gather([str(whole)], one_pass=True, norm="linf").at
    with pytest.raises(InputError, match="l2 radii"):
        linf(Points((0.1,), one_pass=True))
