"""The HTML report: figures that are the stores', words that are escaped, and a page that works in a browser."""

import html
import json
import os
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.errors import InputError, StoreError
from smoothcert.report.html import check_page, report_page, write_page
from smoothcert.report.html.charts import attack_points, chart_data, points_legend
from smoothcert.report.html.facts import settings, warnings
from smoothcert.report.tables import element, embed, round_down
from smoothcert.results.attacks import AttackResult
from smoothcert.results.curves import curve_of
from smoothcert.results.gather import GALLERY, gather_page
from smoothcert.store.store import read_store
from stores import DIGITS, attacked
from stores import made as made_store

EVIL = "</script><script>window.pwned=1</script><b>\"'&"
made = partial(made_store, count=80, right=2, method="two-sided", told={"model": EVIL, "versions": {"smoothcert": "x"}})
CHROMIUM = os.environ.get("SMOOTHCERT_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


class Evil:
    """The digits, under names that try to be markup."""

    class_names = tuple(f"{EVIL}{k}" for k in range(10))
    source, batch = DIGITS.source, DIGITS.batch


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("reported")
    noise = {"kind": "gaussian", "format": "sfc64-v1", "sigma": 0.5}
    return [str(made(folder / "a<b> & c")), str(made(folder / "bf16", 0.5, 1, precision="bf16", noise=noise)),
            str(attacked(folder / "attack"))]


@pytest.fixture(scope="module")
def page_file(stores, tmp_path_factory) -> Path:
    runs, attacks, *_ = gather_page(stores, lambda store: Evil)
    file = tmp_path_factory.mktemp("page") / "report.html"
    write_page(file, report_page(runs, attacks=attacks, title=EVIL))
    return file


def test_markup_escapes_whatever_it_did_not_make():
    assert element("p", EVIL, element("b", "<"), title='"') == (
        '<p title="&quot;">&lt;/script&gt;&lt;script&gt;window.pwned=1&lt;/script&gt;&lt;b&gt;&quot;&#x27;&amp;'
        '<b>&lt;</b></p>')
    text = embed({"name": EVIL + "\u2028"})
    assert "<" not in text
    assert json.loads(text) == {"name": EVIL + "\u2028"}
    with pytest.raises(ValueError, match="JSON"):
        embed(float("nan"))


def test_figures_are_cut_and_never_raised():
    values = np.random.default_rng(0).random(1000) * 3
    cut = np.array(round_down(values))
    assert (cut <= values).all()
    assert (cut > values - 1.001e-6).all()


def test_the_page_draws_the_stores_own_curves(stores):
    runs, *_ = gather_page(stores, None)
    for run, drawn in zip(runs, chart_data(runs, 0.05), strict=True):
        curve = curve_of(run.result, 0.05)
        for name, exact in (("radius", curve.radius), ("accuracy", curve.accuracy), ("test_set", curve.lower)):
            assert len(drawn[name]) == len(exact)
            assert (np.array(drawn[name]) <= exact).all()
            np.testing.assert_allclose(drawn[name], exact, atol=1.001e-6)
        at = run.result.at(curve.radius, 0.05)
        np.testing.assert_allclose(drawn["population"], at.population, atol=1.001e-6)
        votes = run.store.counts("estimate").max(axis=1) / 1000
        np.testing.assert_allclose(drawn["votes"]["observed"],
                                   np.histogram(votes, np.linspace(0, 1, 51))[0] / len(votes), atol=1.001e-6)


def test_a_stopped_runs_curve_is_only_where_it_was_decided(tmp_path):
    radii = [0.1, 0.3, 0.45]
    design = {"design": "radii", "method": "two-sided", "alpha": 0.001, "n0": 100, "n_max": 1000, "radii": radii,
              "margin": None}
    (run,), *_ = gather_page([str(made(tmp_path / "seq", procedure=design))], None)
    (drawn,) = chart_data([run], 0.05)
    assert drawn["points"]["radius"] == radii
    for name in ("accuracy", "test_set", "population", "all_radii"):
        exact = getattr(run.result.at(radii, 0.05), name)
        assert (np.array(drawn["points"][name]) <= exact).all()
        np.testing.assert_allclose(drawn["points"][name], exact, atol=1.001e-6)
    (undecided,) = chart_data([replace(run, result=replace(run.result, decided=()))], 0.05)
    assert undecided["points"]["radius"] == []
    (plain,) = chart_data([replace(run, result=replace(run.result, decided=None))], 0.05)
    assert plain["points"] is None


def test_each_picture_has_its_label_answer_and_radius(stores):
    (run,), *_ = gather_page(stores[:1], lambda store: DIGITS)
    page = report_page([run])
    cards = re.findall(r"<figcaption><span>image ([\d,]+)</span><span>label <b>(\w+)</b></span>"
                       r"<span>answer <b>(\w+)</b>(?: \(wrong\))?</span><span>radius <b>([\w.]+)</b></span>", page)
    assert len(cards) == GALLERY
    place = {int(index): k for k, index in enumerate(run.store.column("index"))}
    for index, label, answer, radius in cards:
        k = place[int(index)]
        given = int(run.store.column("prediction")[k])
        assert int(label) == run.store.column("label")[k]
        assert answer == ("abstained" if given < 0 else str(given))
        assert radius == ("none" if given < 0 else f"{np.floor(1000 * run.store.column('radius')[k]) / 1000:.3f}")


def test_a_page_without_pictures_holds_none(stores):
    runs, *_ = gather_page(stores[:1], None)
    page = report_page(runs)
    assert "data:image" not in page
    assert len(page) < 120_000


def test_nothing_that_users_named_becomes_markup(page_file):
    text = page_file.read_text(encoding="utf-8")
    assert "<script>window.pwned" not in text
    assert "<b>\"'" not in text
    assert "a&lt;b&gt; &amp; c" in text
    assert len(re.findall(r"<script", text)) == 3, "the data and the page's two own scripts"


def test_nothing_is_fetched(page_file):
    text = page_file.read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "default-src 'none'" in html.unescape(text)


def test_warnings_say_what_a_reader_must_know(stores, tmp_path):
    runs, *_ = gather_page(stores[:2], None)
    assert warnings(runs[0]) == []
    words = " ".join(warnings(runs[1]))
    assert "bf16" in words
    assert "not on a grid" in words
    off = made(tmp_path / "off", off_grid=True, recertified_from="x", model={"by": "probe", "sha256": "0"})
    words = " ".join(warnings(gather_page([str(off)], None)[0][0]))
    for part in ("80 of 80 images are off", "recomputed from stored counts", "answers to fixed inputs"):
        assert part in words
    sequential = {"design": "radii", "method": "t-certify", "alpha": 0.001, "n0": 100, "n_max": 1000, "radii": [0.25],
                  "margin": None}
    words = " ".join(warnings(gather_page([str(made(tmp_path / "seq", procedure=sequential))], None)[0][0]))
    assert "settled at radius 0.25" in words
    assert "2 alpha" in words


def test_a_published_log_makes_a_page_that_says_what_it_cannot(tmp_path):
    log = tmp_path / "sigma_0.25.tsv"
    log.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\t0.3\t1\t1.0\n20\t2\t-1\t0.0\t0\t1.0\n")
    runs, *_ = gather_page([str(log)], lambda store: Evil)
    words = " ".join(warnings(runs[0]))
    assert "may be rounded up" in words
    assert "does not say which model" in words
    assert "no images shown" in report_page(runs)
    assert ("images", "2") in settings(runs[0])


def test_images_are_left_out_with_a_reason_and_capped(stores, tmp_path):
    def none(store):
        raise InputError("there are no images here")

    (run,), *_ = gather_page(stores[:1], none)
    assert run.gallery is None
    assert "there are no images here" in report_page([run])
    (run,), *_ = gather_page(stores[:1], lambda store: DIGITS)
    assert len(run.gallery.clean) == GALLERY
    assert report_page([run]).count('<img src="data:image/png') == 2 * GALLERY


def test_a_damaged_store_is_named_and_the_rest_is_shown(stores, tmp_path):
    bad = made(tmp_path / "bad<i>")
    (bad / "shard-00000.parquet").write_bytes(b"")
    page = tmp_path / "page.html"
    command = ["report", str(bad), *stores, str(tmp_path / "none"), "-o", str(page), "--no-gallery"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    told = done.output.replace("\n", " ")
    text = page.read_text(encoding="utf-8")
    missing = html.unescape(text[text.index('id="missing"'):text.index('id="warnings"')])
    assert "bad<i>" not in text
    for words in ("bad<i>/shard-00000.parquet has changed", f"there is no store {tmp_path / 'none'}"):
        assert words in missing
        assert words in told
    whole = report_page(gather_page(stores, None).runs, attacks=gather_page(stores, None).attacks)
    assert "Missing from this page" not in whole
    table = text[text.index('id="tables"'):text.index('id="meaning"')]
    assert table == whole[whole.index('id="tables"'):whole.index('id="meaning"')], "the others are all there"
    page.unlink()
    assert CliRunner().invoke(app, ["report", str(bad), "-o", str(page)]).exit_code == 1
    assert not page.exists()


def test_many_certificates_make_a_small_page(tmp_path):
    (run,), *_ = gather_page([str(made(tmp_path / "s"))], None)
    rng, count = np.random.default_rng(0), 300_000
    many = run.result.__class__(**{**vars(run.result), "index": np.arange(count), "radius": rng.gamma(2, 0.2, count),
                                   "correct": rng.random(count) < 0.9, "abstained": np.zeros(count, bool),
                                   "label": None})
    columns = {"prediction": rng.integers(0, 10, count), "off_grid": np.zeros(count, bool)}
    store = replace(run.store, at_hand=pa.table(columns))
    vars(store)["records"] = run.store.records
    page = report_page([run.__class__(many, store)])
    assert len(page) < 700_000


def test_bad_requests_say_what_to_do(stores, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="at least one certify store"):
        gather_page(stores[2:], None)
    with pytest.raises(InputError, match=r"\.html"):
        check_page(Path("x.png"))
    for arguments, words in (([stores[0], "-o", "x.txt"], "must end in .html"), (["no", "-o", "x.html"], "no"),
                             ([stores[0], "-o", "x.html", "--radii", "a"], "radii.0: must be a number")):
        done = CliRunner().invoke(app, ["report", *arguments])
        assert done.exit_code in (1, 2)
        assert words in done.output.replace("\n", " ")
        assert not list(tmp_path.glob("x*"))
    done = CliRunner().invoke(app, ["report", stores[0], "-o", "new/x.html", "--no-gallery", "--radii", "0.125"])
    assert done.exit_code == 0, done.output
    assert "r 0.125" in (tmp_path / "new" / "x.html").read_text()


BROKEN_WORDS = """() => {
    const found = [], walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        for (const word of node.textContent.matchAll(/(?<![^ (])[A-Za-z]{2,16}(?![^ ,.:;)])/g)) {
            const range = document.createRange();
            range.setStart(node, word.index);
            range.setEnd(node, word.index + word[0].length);
            if (new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1) found.push(word[0]);
        }
    }
    return found;
}"""


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the dev extra")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: install it, or set SMOOTHCERT_CHROMIUM to its program")
    with sync_api.sync_playwright() as player:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
                 "--disable-sync", "--no-first-run"]
        running = player.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield running
        running.close()


@pytest.fixture(scope="module")
def opened(browser, page_file):
    """The page at a desk and in the light, with what it said and asked for on the way."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.set_default_timeout(120_000)
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(page_file.as_uri())
    page.wait_for_selector("#curve path.line", state="attached")
    return page


def drawn(page, chart: str) -> int:
    """Lines that are drawn and have a length."""
    return page.evaluate("""id => [...document.querySelectorAll(`#${id} path.line`)]
                            .filter(path => path.getTotalLength() > 20 &&
                                    parseFloat(getComputedStyle(path).strokeWidth) > 0).length""", chart)


def test_the_page_opens_from_a_file_without_errors_or_requests(opened):
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert opened.evaluate("window.pwned") is None
    assert drawn(opened, "curve") == 3, "two runs and the attack"
    assert drawn(opened, "wall") == 2
    assert drawn(opened, "observed") >= 1


def test_each_drawn_attack_store_has_its_mark_beside_its_name(tmp_path):
    attacks = [AttackResult.of(read_store(attacked(tmp_path / name)), name) for name in ("one", "two", "linf")]
    store = attacks[2].store
    told = store.identity.replace(attack={**store.identity.attack.raw, "options": {"norm": "linf"}})
    attacks[2] = replace(attacks[2], store=replace(store, identity=told))
    shown = points_legend(attacks, runs=2)
    assert re.findall(r'class="f(\d)"', shown) == ["2", "3"], "colours go on after those of the runs"
    assert [point["name"] for point in attack_points(attacks)] == ["one", "two"]
    assert "one (20 images); " in shown
    assert "two (20 images). " in shown
    assert "linf (" not in shown
    assert points_legend(attacks[2:], runs=2) == ""


def test_marks_of_the_legend_are_those_of_the_chart(opened):
    """By their colour, as the browser shows them."""
    shown = opened.evaluate("getComputedStyle(document.querySelector('#curves small path')).fill")
    assert opened.evaluate("getComputedStyle(document.querySelector('#curve .mark')).fill") == shown


def test_every_chart_is_whole_and_at_its_full_width(opened):
    main = opened.evaluate("document.querySelector('main').clientWidth")
    for chart in ("curve", "wall", "observed", "bounded"):
        width = opened.evaluate(f"document.querySelector('#{chart} svg').getBoundingClientRect().width")
        assert width > 0.95 * main, chart
        box = f"document.querySelector('#{chart} .plot').getBBox()"
        left, right = opened.evaluate(f"[{box}.x, {box}.x + {box}.width]")
        assert left >= 50, chart
        assert right <= width, chart
    edges = opened.evaluate("document.querySelector('#observed .line').getAttribute('d').match(/[HV]/g).length")
    assert edges == 101, "50 bins, down to the floor where they are empty, and the last side"


def test_a_stopped_run_is_drawn_as_bars(browser, stores, tmp_path):
    design = {"design": "radii", "method": "two-sided", "alpha": 0.001, "n0": 100, "n_max": 1000, "radii": [0.1, 0.3],
              "margin": None}
    runs, *_ = gather_page([str(made(tmp_path / "seq", procedure=design))], None)
    write_page(tmp_path / "page.html", report_page(runs))
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_selector("#curve .mark", state="attached")
    assert page.locator("#curve .mark").count() == 2
    assert page.locator("#curve path.line[class*=d]").count() == 0
    page.fill("#at", "0.3")
    exact = np.floor(1000 * runs[0].result.at([0.3], 0.05).accuracy[0]) / 10
    assert page.inner_text("#read").startswith(f"seq: {exact} %")
    page.fill("#at", "0.2")
    assert page.inner_text("#read").startswith("seq: >=")
    page.close()


def test_toggles_redraw_the_curves(opened):
    box = opened.locator("[data-run='1']")
    box.focus()
    opened.keyboard.press("Space")
    assert drawn(opened, "curve") == 2
    assert drawn(opened, "wall") == 1
    box.check()
    assert drawn(opened, "curve") == 3
    bands = "document.querySelectorAll('#curve path.band').length"
    assert opened.evaluate(bands) == 2
    opened.select_option("#bound", "")
    assert opened.evaluate(bands) == 0
    opened.select_option("#bound", "test_set")
    opened.select_option("#axis", "linf")
    assert drawn(opened, "curve") == 2, "attacks bounded in l2 have no place on that axis"
    ticks = "[...document.querySelectorAll('#curve .tick[text-anchor=middle]')]"
    last = f"Math.max(...{ticks}.map(tick => Number(tick.textContent)))"
    furthest = opened.evaluate(last)
    opened.select_option("#axis", "l2")
    assert opened.evaluate(last) > 4 * furthest
    assert opened.said == []


def test_curves_are_read_where_asked(opened, stores):
    runs, *_ = gather_page(stores, None)
    opened.fill("#at", "0.3")
    exact = [float(np.floor(1000 * run.result.at([0.3], 0.05).accuracy[0]) / 10) for run in runs]
    shown = [float(found) for found in re.findall(r": (?:>=)?([\d.]+) %", opened.inner_text("#read"))]
    assert shown == exact


def test_tables_sort_by_number_and_back(opened):
    head = "#tables table:first-of-type th:nth-child(3) button"
    column = "[...document.querySelector('#tables table').tBodies[0].rows].map(row => row.cells[2].textContent)"
    opened.locator(head).first.focus()
    opened.keyboard.press("Enter")
    assert opened.evaluate(column) == ["0.5", "0.25"]
    opened.keyboard.press("Enter")
    assert opened.evaluate(column) == ["0.25", "0.5"]
    assert opened.evaluate("document.querySelector('#tables th:nth-child(3)').ariaSort") == "ascending"


def test_the_gallery_can_be_filtered(opened):
    choice = opened.locator(".filter").first
    for verdict in ("right", "abstained", ""):
        choice.select_option(verdict)
        cards = opened.locator(".cards").first
        visible = cards.locator("figure:visible").count()
        assert visible == cards.locator(f"figure{'.' + verdict if verdict else ''}").count()


def test_a_phone_in_the_dark(opened, tmp_path):
    opened.set_viewport_size({"width": 390, "height": 844})
    opened.emulate_media(color_scheme="dark")
    while opened.evaluate("document.querySelector('#curve svg').getBoundingClientRect().width") > 390:
        opened.wait_for_timeout(50)  # wait_for_function would poll by eval, which the page's policy forbids
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    wide = opened.evaluate("""[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > 391
                              && !e.closest('.wide') && !e.closest('details:not([open])')).map(e => e.tagName)""")
    assert wide == []
    hidden = "[...document.querySelectorAll('.wide')].filter(box => box.scrollWidth > box.clientWidth + 1)"
    assert opened.evaluate(f"{hidden}.length") > 0
    assert opened.evaluate(f"{hidden}.every(box => box.classList.contains('scrolls'))"), "each says that it scrolls"
    assert opened.evaluate(BROKEN_WORDS) == []
    lightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
    assert opened.evaluate(lightness) < 60
    opened.select_option("#theme", "light")
    assert opened.evaluate(lightness) > 200
    picture = tmp_path / "phone.png"
    opened.screenshot(path=picture)
    assert picture.stat().st_size > 10_000
    assert opened.said == []
