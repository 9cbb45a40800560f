"""Tables and pictures: figures rounded down, curves that lose nothing."""

import numpy as np
import pytest

from smoothcert.errors import InputError, StoreError, UnknownNameError
from smoothcert.report.curves import certified_curve
from smoothcert.report.plots import plot_curves
from smoothcert.report.results import Result, default_radii, merged
from smoothcert.report.tables import _down, render, summary


def result(radius, correct, name="run", index=None, **changes) -> Result:
    radius, correct = np.asarray(radius, float), np.asarray(correct, bool)
    told = {"sigma": 0.5, "alpha": 0.001, "method": "cohen", "n": 1000, **changes}
    return Result(name, np.arange(len(radius)) if index is None else np.asarray(index), radius, correct, radius == 0,
                  **told)


def test_printed_figures_are_never_rounded_up():
    assert _down(99.99, 1) == "99.9"
    assert _down(0.98765, 3) == "0.987"
    for count in range(1001):
        assert float(_down(100 * (count / 1000), 1)) == count / 10, "an exact figure stays as it is"
    rng = np.random.default_rng(0)
    for value in rng.random(2000) * 5:
        assert float(_down(value, 3)) <= value < float(_down(value, 3)) + 0.001 + 1e-12


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
        shown = render(runs, [0, 0.25], 0.05, style)
        assert "50.0" in shown or "0.5," in shown
        assert ("a_1" in shown) or (r"a\_1" in shown)
    assert "UNFINISHED" in render([Result(**{**vars(runs[0]), "complete": False})], [0], 0.05, "text")
    with pytest.raises(UnknownNameError, match="latex"):
        render(runs, [0], 0.05, "latx")


def test_abstentions_count_as_wrong_and_are_shown():
    told = summary(result([0.0, 0.0, 0.7, 0.2], [False, False, True, True]), [0, 0.5], 0.05)
    assert told["abstained"] == 2
    assert told["accuracy"] == [0.5, 0.25]
    assert told["acr"] == pytest.approx(0.9 / 4)


def test_merging():
    a, b = result([0.1], [True], "a", [3]), result([0.2], [False], "b", [1])
    both = merged([a, b])
    assert both.index.tolist() == [1, 3]
    assert both.radius.tolist() == [0.2, 0.1]
    with pytest.raises(InputError, match="same images"):
        merged([a, a])
    with pytest.raises(InputError, match="alpha"):
        merged([a, result([0.2], [False], "b", [1], setting={"alpha": 0.01})])


@pytest.mark.parametrize("sigma", [0.01, 0.12, 0.5, 1.0, 3.0, 60.0])
def test_default_radii_cover_what_can_be_certified_in_few_columns(sigma):
    radii = default_radii([result([0.0], [False], sigma=sigma)])
    assert radii[0] == 0
    assert 1 <= len(radii) <= 13
    assert np.allclose(np.diff(radii), radii[1] if len(radii) > 1 else 0)


def test_a_store_without_records_says_so():
    class Empty:
        folder, kind, complete = type("P", (), {"name": "s"})(), "certify", False

    with pytest.raises(StoreError, match="no records"):
        Result.build(Empty(), None, {}, np.array([]), np.array([]))
