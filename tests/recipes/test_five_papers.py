"""The page of the five papers: what is kept of runs, what stands beside the printed figures, and what is left."""

import json
import re
from pathlib import Path

import pytest
import yaml

from smoothcert.recipes.plan import plan
from smoothcert.recipes.recipe import read_recipe, recipe_names

ROOT = Path(__file__).parents[2]
PAPERS = ("cohen2019", "salman2019", "feng2020", "saremi2020", "yang2021", "study", "cifar10-fast")


@pytest.fixture
def five(monkeypatch):
    """The module, as `python evidence/five_papers.py` imports it."""
    monkeypatch.syspath_prepend(str(ROOT / "evidence"))
    import five_papers

    return five_papers


def reproduced(folder: Path, scale: str, row: str, shares: dict[float, float], out_of_reach: bool = False) -> Path:
    """What `smoothcert reproduce saremi2020-table1` leaves of one row, with `shares` certified by radius."""
    task = plan(read_recipe("saremi2020-table1"), scale).tasks[row][-1]
    figures = [{"at": radius, "obtained": share, "low": share - 0.05, "high": share + 0.05, "expected": None,
                "out_of_reach": out_of_reach and radius > 1} for radius, share in shares.items()]
    line = {"row": row, "rows": [row], "step": "certified", "verb": "certify", "folder": task.folder, "images": 500,
            "seconds": 1.0, "figures": figures, "setting": "", "measure": "accuracy", "acr": 0.98765,
            "expected_acr": None, "abstained": 0.012, "expected_abstained": None}
    folder.mkdir(parents=True)
    told = {"recipe": "saremi2020-table1", "scale": scale, "lines": [line], "best": []}
    (folder / "reproduced.json").write_text(json.dumps(told))
    return folder


def line_of(page: str, *words: str) -> list[str]:
    (found,) = [line for line in page.splitlines() if all(word in line for word in words)]
    return [cell.strip() for cell in found.strip("|").split("|")]


ONE = [{"paper": "Saremi & Srivastava 2020", "items": [{"name": "Table 1", "recipes": ["saremi2020-table1"]}]}]


def test_what_was_obtained_stands_beside_what_is_printed(five, tmp_path):
    kept = tmp_path / "kept"
    shares = {0.5: 0.8567, 1.0: 0.7, 1.5: 0.5, 2.0: 0.3}
    five.keep(reproduced(tmp_path / "a" / "b", "cpu", "pi-0.6", shares), kept)
    five.keep(reproduced(tmp_path / "c", "cpu", "pi-0.3", {0.5: 0.9, 1.0: 0.6, 1.5: 0, 2.0: 0}, True), kept)
    five.keep(reproduced(tmp_path / "d", "smoke", "h-0.3", shares), kept)
    assert [path.name for path in kept.iterdir()] == ["saremi2020-table1-cpu.json"]
    page = five.page(ONE, kept, tmp_path)
    assert line_of(page, "g[pi], certified", "printed")[-4:] == ["88", "77", "56", "28"]
    assert line_of(page, "pi-0.6, certified")[1:] == [
        "cpu, 500 images", "0.987", "1.2", "", "85.6 [80.6, 90.7]", "70.0 [65.0, 75.0]", "50.0 [45.0, 55.0]",
        "30.0 [25.0, 35.0]"]
    assert line_of(page, "pi-0.3, certified")[-2:] == ["-", "-"]
    assert line_of(page, "g[pi], certified", "best of 2 of 2 rows")[-4:] == ["90.0", "70.0", "50.0", "30.0"]
    assert "Run at scale cpu, 2 of 5 rows." in page
    assert line_of(page, "[Saremi: Table 1]")[2:4] == ["0 of 5 rows", "2 of 5 rows"]


def test_a_later_run_replaces_its_own_lines_only(five, tmp_path):
    kept = tmp_path / "kept"
    for name, row, share in (("a", "h-0.3", 0.1), ("b", "h-0.6", 0.2), ("c", "h-0.3", 0.3)):
        five.keep(reproduced(tmp_path / name, "cpu", row, {0.5: share}), kept)
    page = five.page(ONE, kept, tmp_path)
    assert line_of(page, "h-0.3, certified")[5].startswith("30.0")
    assert line_of(page, "h-0.6, certified")[5].startswith("20.0")
    path = kept / "saremi2020-table1-cpu.json"
    lines = json.loads(path.read_text())
    path.write_text(json.dumps([{**lines[0], "folder": "certify-of-an-older-recipe"}, lines[1]]))
    page = five.page(ONE, kept, tmp_path)
    assert "h-0.3, certified" not in page
    assert "h-0.6, certified" in page


def test_rows_that_are_reached_are_no_longer_missing(five, tmp_path):
    recipe, kept = read_recipe("saremi2020-table1"), tmp_path / "kept"
    rows, before = five.missing([recipe], kept)
    five.keep(reproduced(tmp_path / "a", "paper", "pi-0.6", {0.5: 0.9}), kept)
    left, after = five.missing([recipe], kept)
    assert (rows, left) == (5, 4)
    assert after.measuring == pytest.approx(before.measuring / 2, rel=0.05)  # the other row behind an energy is left
    assert 0 < after.training < before.training


def test_hours_are_reckoned_by_passes_images_and_samples(five):
    """SmoothAdv with m noises and T steps takes m (T + 1) times what Gaussian augmentation takes."""
    import reckoning

    def seconds(name: str, row: str) -> "reckoning.Cost":
        return reckoning.cost({task.folder: task for task in plan(read_recipe(name)).tasks[row]})

    plain, ms = seconds("cohen2019-cifar10", "sigma-0.25"), 1000 / reckoning.rates()["resnet110 reference"]
    assert plain.training == pytest.approx(3 * 90 * 50_000 * ms / 1000)
    assert plain.measuring == pytest.approx(500 * 100_100 / reckoning.rates()["resnet110 ours"])
    adversarial = seconds("salman2019-cifar10", "sigma-0.25-eps-1-pgd-T2-m8")
    assert adversarial.training == pytest.approx(8 * 3 * plain.training * 150 / 90)
    assert reckoning.flops("linear", (1, 28, 28)) == 2 * 784 * 10


def test_the_page_holds_every_recipe_and_printed_figure(five):
    """Of the page that is made now, from what is kept; the one in the repository may be older."""
    papers = yaml.safe_load(five.ITEMS.read_text(encoding="utf-8"))
    assert {name for paper in papers for item in paper["items"] for name in item.get("recipes", [])} >= {
        name for name in recipe_names() if name.startswith(PAPERS)} - {"cifar10-fast-denoised"}
    page = five.main()
    for name in (name for name in recipe_names() if name.startswith(PAPERS[:-1])):
        for (row, step), figures in five.printed(read_recipe(name)).items():
            cells = [cell for line in page.splitlines() if line.startswith(f"| {row}, {step} | printed |")
                     for cell in line.split(" | ")]
            assert {f"{100 * value:.4g}" for at, value in figures.items() if at != "ACR"} <= {
                cell.strip("| ") for cell in cells}, (name, row)
    anchors = {five._anchor(title) for title in re.findall(r"^### (.+)$", page, re.M)}
    assert set(re.findall(r"\(#([^)\s]+)\)", page)) <= anchors
    assert 'about 100,000' in page
