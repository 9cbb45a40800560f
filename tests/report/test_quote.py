"""The sentence to quote: its figures are the bounds', its radius does not depend on the outcome."""

from dataclasses import replace

import numpy as np
import pytest

from smoothcert.report.html import report_page
from smoothcert.report.html.quote import quote, quoted_radius
from smoothcert.results.gather import gather_page
from smoothcert.stats.intervals import population_bound, truly_robust
from stores import change_manifest, made

SEQUENTIAL = {"design": "radii", "method": "two-sided", "alpha": 0.001, "n0": 100, "n_max": 1000,
              "radii": [0.1, 0.375, 1.0], "margin": None}


def gathered(folder, **options):
    (run,), *_ = gather_page([str(made(folder, count=80, right=2, **options))], None)
    return run


def test_the_sentence_names_claim_images_level_and_bound(tmp_path):
    run = gathered(tmp_path / "s")
    claimed = int((run.result.correct & (run.result.radius >= 0.25)).sum())
    on_these = np.floor(1000 * truly_robust(claimed, 80, 0.001, 0.05) / 80) / 10
    on_new = np.floor(1000 * population_bound(claimed, 80, 0.001, 0.05)) / 10
    first, second = quote(run, [], 0.05)
    assert first == (
        f"With 95% confidence, at least {on_these}% of the 80 images of digits (test split, numbers 0 to 79) are "
        f"classified correctly by the smoothed classifier (m, sigma 0.25), and stay so under every change of their "
        f"pixels with an l2 norm below 0.25, where pixels lie in [0, 1].")
    assert second == (f"The same is true of at least {on_new}% of new images that are drawn at random like these, also "
                      f"with 95% confidence.")
    assert on_new < on_these
    page = report_page([run])
    assert page.index(first) < page.index('id="warnings"'), "it stands at the top"


@pytest.mark.parametrize(("rho", "words"), [(0.01, "99%"), (0.001, "99.9%"), (1 / 3, "66.6666%")])
def test_the_level_is_never_rounded_up(tmp_path, rho, words):
    assert quote(gathered(tmp_path / "s"), [], rho)[0].startswith(f"With {words} confidence")


def test_the_radius_follows_from_the_setting_alone(tmp_path):
    run = gathered(tmp_path / "s", sigma=0.5)
    other = replace(run.result, radius=run.result.radius / 7)
    for result in (run.result, other):
        assert quoted_radius(result) == 0.5
        assert quoted_radius(result, [0, 0.1, 0.375, 1.0]) == 0.375
        assert quoted_radius(result, [0.375, 50.0]) == 0.375, "no outcome could have proved 50"
        assert quoted_radius(result, [0.0]) in (0.0, 0.5)
    few = replace(run.result, n=10)
    assert 0 <= quoted_radius(few) <= few.ceiling < few.sigma
    decided = gathered(tmp_path / "q", sigma=0.5, procedure=SEQUENTIAL)
    assert quoted_radius(decided.result) == 0.375, "one that it decided"


@pytest.mark.parametrize(("images", "words"), [
    ({"count": 80, "start": 5, "every": 3}, "80 images of digits (test split, one in 3 from number 5 on)"),
    ({"count": 80, "start": 0, "every": 1, "of": 359}, "80 evenly spaced images of digits (test split)"),
    ({"count": 80, "indices": list(range(80))}, "80 chosen images of digits (test split)"),
])
def test_the_sentence_says_which_images(tmp_path, images, words):
    folder = made(tmp_path / "s", count=80)
    change_manifest(folder, lambda content: content["identity"].update(images=images))
    (run,), *_ = gather_page([str(folder)], None)
    assert f" of {words} are classified" in quote(run, [], 0.05)[0]


def test_an_unfinished_run_and_a_log_are_said_to_be_so(tmp_path):
    folder = made(tmp_path / "s", count=80)
    change_manifest(folder, lambda content: content.update(complete=False))
    (run,), *_ = gather_page([str(folder)], None)
    assert "80 images of digits (test split) that this unfinished run has done so far" in quote(run, [], 0.05)[0]
    log = tmp_path / "sigma_0.25.tsv"
    log.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\t0.3\t1\t1.0\n20\t2\t-1\t0.0\t0\t1.0\n")
    (run,), *_ = gather_page([str(log)], None)
    first, _ = quote(run, [], 0.05)
    assert "of the 2 images of the file sigma_0.25 are" in first
    assert first.endswith(", provided that no printed radius was rounded up and each line fails with probability at "
                          "most 0.001.")
