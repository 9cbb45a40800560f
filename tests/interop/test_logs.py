"""Logs as the field writes them: read as what they are, or refused with the true cause; one never hides the others."""

import gzip
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.errors import FileError, StoreError
from smoothcert.interop import name_inputs, read_log, write_log
from smoothcert.report.html import report_page
from smoothcert.report.plots import picture
from smoothcert.report.plots.drawing import draw_picture
from smoothcert.report.plots.kinds import KINDS
from smoothcert.results.certified import Result, accuracies
from smoothcert.results.gather import gather, gather_page
from smoothcert.results.studies import wall
from smoothcert.store.store import read_store
from stores import made

HEAD = "idx\tlabel\tpredict\tradius\tcorrect\ttime"
ROWS = ["0\t3\t3\t0.41\t1\t0:00:01", "1\t8\t8\t0.12\t1\t0:00:01", "2\t1\t-1\t0.0\t0\t1 day, 0:00:01",
        "3\t0\t0\t0.77\t1\t0:00:01"]
TEXT = "\n".join([HEAD, *ROWS]) + "\n"
RADII = [0.41, 0.12, 0.0, 0.77]


def written(folder: Path, content: str | bytes, name: str = "sigma_0.25.tsv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def run(*arguments, code: int = 0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done


def log_of(folder: Path, labels, radii, name: str = "sigma_0.25.tsv") -> Path:
    rows = [f"{i}\t{y}\t{y}\t{r}\t1\t0:00:01" for i, (y, r) in enumerate(zip(labels, radii, strict=True))]
    return written(folder, "\n".join([HEAD, *rows]) + "\n", name)


@pytest.mark.parametrize(("name", "sigma", "n"), [
    ("sigma_0.25", 0.25, None), ("noise_0.50_6947", 0.5, None), ("sigma_0.25.tsv", 0.25, None),
    ("sigma_0.12.txt.gz", 0.12, None), ("Sigma_1.00.LOG", 1.0, None), ("sigma_1.0.best", 1.0, None),
    ("noise_0.25/test/x", 0.25, None), ("noise_0.25/test/sigma_0.50", 0.5, None), ("x", None, None),
    ("sigma_0", None, None), ("noise_0.25/sigma_0.00", None, None), ("sigma_025", None, None), ("sigma_0,5", 0.5, None),
    ("noise0p75.csv", 0.75, None), ("noise_sd0.25", 0.25, None), ("denoise_2/x", None, None),
    ("sigma_0.25_N_1000", 0.25, 1000), ("sigma_0.25-N_100k.tsv", 0.25, 100_000), ("n0_100_N_100000.txt", None, 100_000),
    ("N_100000_n0_100", None, 100_000), ("resnet50_sigma_0.5", 0.5, None),
])
def test_sigma_and_n_come_from_names_and_are_never_made_up(tmp_path, name, sigma, n):
    told = read_log(written(tmp_path, TEXT, name)).identity
    assert told.procedure.n == n
    assert told.noise.sigma == sigma or (sigma is None and np.isnan(told.noise.sigma))
    assert (told.procedure.alpha, told.procedure.method) == (None, None)


def test_a_log_without_an_ending_prints_the_table_of_one_with(tmp_path):
    names = ("noise_0.25/sigma_0.25.tsv", "noise_0.50/sigma_0.50.tsv")
    for folder, ending in ((tmp_path / "with", ""), (tmp_path / "without", ".tsv")):
        for name in names:
            written(folder, TEXT, name.removesuffix(ending) if ending else name)
    shown = [run("table", *sorted(path for path in folder.rglob("*") if path.is_file())).stdout
             for folder in (tmp_path / "with", tmp_path / "without")]
    assert shown[0] == shown[1]
    assert "sigma 0.25" in shown[0]


def test_names_leave_out_the_endings_of_logs_alone():
    assert [one.name for one in name_inputs(["a/sigma_0.25", "a/sigma_0.5.txt.gz", "a/run.best"])] == [
        "sigma_0.25", "sigma_0.5", "run.best"]
    assert [one.name for one in name_inputs(["a/x.tsv", "a/x.csv"])] == ["x.tsv", "x.csv"]


COMMAS = TEXT.replace("1 day, 0:00:01", "0:00:01").replace("\t", ",")
FORMS = {
    "as published": TEXT,
    "byte-order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16 without a mark": TEXT.encode("utf-16-le"),
    "gzip": gzip.compress(TEXT.encode(), mtime=0),
    "gzip in two parts": gzip.compress(TEXT[:100].encode(), mtime=0) + gzip.compress(TEXT[100:].encode(), mtime=0),
    "CRLF": TEXT.replace("\n", "\r\n"),
    "a comment": "# made by me\n" + TEXT.replace("\n1\t", "\n# half\n1\t"),
    "a commented header": "# " + TEXT,
    "capitals": TEXT.replace(HEAD, HEAD.title()),
    "trailing tabs": TEXT.replace("\n", "\t\n"),
    "a trailing tab in the rows": TEXT.replace("\n", "\t\n").replace(HEAD + "\t", HEAD),
    "commas": COMMAS,
    "commas and a long time": TEXT.replace("\t", ","),
    "semicolons and decimal commas": TEXT.replace(".", ",").replace("\t", ";"),
    "tabs and decimal commas": TEXT.replace(".", ","),
    "spaces": TEXT.replace("\t", "   "),
    "quotes": "\n".join(",".join(f'"{cell}"' for cell in line.split("\t")) for line in TEXT.splitlines()) + "\n",
    "quoted decimal commas": "\n".join(",".join(f'"{cell.replace(".", ",")}"' for cell in line.split("\t"))
                                       for line in TEXT.splitlines()) + "\n",
    "whole numbers as floats": TEXT.replace("\t-1\t", "\t-1.0\t").replace("\n0\t", "\n0.0\t"),
    "an unnamed index": "".join(f"{k - 1 if k else ''}\t{line}\n" for k, line in enumerate(TEXT.splitlines())),
    "a negative radius": TEXT.replace("-1\t0.0", "-1\t-0.1"),
    "no radius": TEXT.replace("-1\t0.0", "-1\t"),
    "nan": TEXT.replace("-1\t0.0", "-1\tnan"),
    "a word": TEXT.replace("-1\t0.0", "-1\tabstain"),
    "blank lines": TEXT.replace("\n", "\n\n"),
    "no line end": TEXT.rstrip("\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_whatever_tool_wrote_a_log_it_is_read(tmp_path, form):
    told = read_log(written(tmp_path, FORMS[form]))
    assert told.column("index").tolist() == [0, 1, 2, 3]
    assert told.column("prediction").tolist() == [3, 8, -1, 0]
    assert told.column("radius").tolist() == RADII
    assert list(told.provenance.notes) == []
    write_log(told, tmp_path / "again.tsv")
    assert read_log(tmp_path / "again.tsv").records.equals(told.records)


@pytest.mark.parametrize(("text", "note"), [
    (TEXT + "CleanACC = 3/4 = 0.75\n", "1 line is left out below the last image: 'CleanACC = 3/4"),
    (TEXT + "\nCleanACC\t0.75\nmean radius:\t0.3\t\t\t\t\n", "2 lines are left out"),
    ("Namespace(sigma=0.25)\n" + TEXT, "1 line is left out above the header"),
    (TEXT + "4\t1\t1\t0.", "last line was cut off"),
    (TEXT + "\n".join([HEAD, *(f"1{row}" for row in ROWS)]) + "\n",
     "header is repeated in line 6: several runs were appended"),
])
def test_what_is_left_out_is_noted(tmp_path, text, note):
    path = written(tmp_path, text)
    assert read_log(path).column("radius")[:4].tolist() == RADII
    assert note in run("table", path).stdout


@pytest.mark.parametrize(("content", "words"), [
    ("", "is empty"), (b"\xef\xbb\xbf\n", "is empty"),
    (ROWS[0] + "\n", "has no header: line 1 is"),
    ("a\tb\n", "has no idx, label, predict"),
    (TEXT + TEXT, "image 0 in lines 2 and 7 (the header is repeated in line 6: several runs were appended"),
    (TEXT + ROWS[0] + "\n", "image 0 in lines 2 and 6: a log has a line an image"),
    (TEXT.replace(ROWS[1], "Traceback (most recent call last):"), "line 3: 1 value under 6 columns"),
    (TEXT + "4\t1\n", "line 6: 2 values under 6 columns"),
    ("# x\n" + TEXT.replace("0.12", "wide"), "line 4: a radius must be a finite number of at least 0, got 'wide'"),
    (TEXT.replace("\t8\t8\t0.12", "\t8\t8\t-0.1"), "line 3: a radius must be"),
    (TEXT.replace("\t8\t8\t0.12", "\t8\t8\tnan"), "line 3: a radius must be"),
    (COMMAS.replace("0.41", "0,41"), "line 2: 7 values under 6 columns (idx, label, predict, radius, correct, time), "
                                     "separated by commas (are decimals written with commas?"),
    (TEXT.encode().replace(b"0.12", b"0.1\xe9"), "line 3: its bytes are no UTF-8"),
    (gzip.compress(TEXT.encode(), mtime=0)[:60], "its gzip data are damaged or cut off"),
    (b"PK\x03\x04 and so on", "packed with zip"),
    (b"PAR1\x15\x04\x15", "not a log"),
])
def test_what_cannot_be_read_is_refused_with_the_true_cause(tmp_path, content, words):
    path = written(tmp_path, content)
    with pytest.raises(FileError, match=re.escape(words)) as caught:
        read_log(path)
    assert str(path) in str(caught.value)
    good = written(tmp_path, TEXT, "good.tsv")
    done = run("table", good, path, code=1)
    assert "good: 4 images" in done.stdout, "it never hides the others"
    assert words in done.stderr


GENERALIZED = "idx\tlabel\tpredict\tcount\tany_iid_bound\tgeneralized_bound\tcorrect\ttime\n" + "".join(
    f"{i}\t{y}\t{p}\t900\t{r / 2}\t{r}\t{int(y == p)}\t0:00:01\n"
    for i, y, p, r in ((0, 3, 3, .41), (1, 8, 8, .12), (2, 1, -1, 0.), (3, 0, 0, .77)))


def test_a_radius_column_of_another_name_is_picked_by_all_verbs(tmp_path):
    path, plain = written(tmp_path, GENERALIZED, "generalized.txt"), written(tmp_path, TEXT)
    refused = run("table", path, code=1).stderr
    for words in ("no column radius", "count, any_iid_bound, generalized_bound", "--radius-column"):
        assert words in refused
    pick = ("--radius-column", "generalized_bound")
    shown = json.loads(run("table", path, *pick, "--json").stdout)[0]
    assert shown["acr"] == pytest.approx(sum(RADII) / 4)
    assert any("taken as l2 radii by choice, though the names say generalized" in note for note in shown["notes"])
    half = json.loads(run("table", path, "--radius-column", "Any_IID_bound", "--json").stdout)[0]
    assert half["acr"] == pytest.approx(sum(RADII) / 8)
    both = json.loads(run("table", path, plain, "--radius-column", "generalized_bound,radius", "--json").stdout)
    assert both[0]["acr"] == both[1]["acr"]
    assert "first" in run("compare", path, plain, "--radius-column", "generalized_bound,radius").stdout
    assert "no column generalised_bound" in run("table", path, "--radius-column", "generalised_bound", code=1).stderr
    assert "part 2 of the list 'a,,b' is empty" in run("table", path, "--radius-column", "a,,b", code=2).stderr
    run("plot", "curve", path, *pick, "-o", tmp_path / "c.svg")
    run("report", path, *pick, "-o", tmp_path / "r.html", "--no-gallery")
    run("export", path, *pick, "-o", tmp_path / "e.tsv")
    assert read_log(tmp_path / "e.tsv").column("radius").tolist() == RADII
    assert json.loads(run("info", path, *pick, "--json").stdout)["acr"] == shown["acr"]
    assert gather([str(path)], radius_column="generalized_bound").results[0].acr == shown["acr"]
    assert gather([str(path)], radius_column="none").results[0].images == 4


@pytest.mark.parametrize(("name", "column", "kind"), [
    ("linf_sigma_0.25.tsv", "radius", "linf"), ("l1_sigma_0.25", "radius", "l1"),
    ("generalized_sigma_0.25.tsv", "radius", "generalized"), ("laplace_0.5.tsv", "radius", "l1"),
])
def test_radii_of_another_kind_have_no_place_in_an_l2_table(tmp_path, name, column, kind):
    path, plain = written(tmp_path, TEXT, name), written(tmp_path, TEXT, "plain.tsv")
    done = run("table", plain, path, code=1)
    assert "plain: 4 images" in done.stdout
    assert f"are not l2, but {kind}" in done.stderr
    assert f"are not l2, but {kind}" in run("report", plain, path, "-o", tmp_path / "r.html", code=1).stderr
    run("table", path, "--radius-column", column)
    with pytest.raises(StoreError, match="not l2"):
        gather([str(path)])


def test_linf_radii_of_a_log_are_those_of_an_linf_table(tmp_path):
    path = written(tmp_path, TEXT.replace("radius", "radius_linf"))
    assert "not l2, but linf" in run("table", path, "--radius-column", "radius_linf", code=1).stderr
    told = gather([str(path)], norm="linf", radius_column="radius_linf").results[0]
    assert told.radius.tolist() == RADII
    write_log(read_log(path, radius_column="radius_linf"), tmp_path / "again.tsv")
    assert "not l2, but linf" in run("table", tmp_path / "again.tsv", code=1).stderr, "what is written keeps its norm"
    for told, norm in (("2", "l2"), ("Linf", "linf"), ("1", "l1")):
        lines = [f"{line}\t{told if k else 'norm'}" for k, line in enumerate(TEXT.splitlines())]
        assert read_log(written(tmp_path, "\n".join(lines), "x.tsv")).identity.norm == norm


@pytest.mark.parametrize(("changes", "facts"), [
    ({"method": "two-sided"}, "two-sided, alpha 0.001, n 1,000"),
    ({"procedure": {"design": "radii", "method": "cohen", "alpha": 0.01, "n0": 100, "n_max": 1000, "radii": [0.1, 0.25],
                    "margin": None}}, "cohen, alpha 0.01, n <= 1,000"),
])
def test_an_exported_store_read_back_says_what_was_written(tmp_path, changes, facts):
    before = read_store(made(tmp_path / "s", right=1, **changes))
    run("export", tmp_path / "s", "-o", tmp_path / "plain.tsv")
    shown, back = run("table", tmp_path / "s").stdout, run("table", tmp_path / "plain.tsv").stdout
    assert facts in back
    assert back.splitlines()[1:] == [line.replace("s: ", "plain: ") for line in shown.splitlines()[1:]]
    assert "rounded up" not in back
    told, wanted = Result.of(read_log(tmp_path / "plain.tsv")), Result.of(before)
    for name in ("sigma", "alpha", "method", "n", "margin", "decided", "printed", "norm", "ceiling"):
        assert getattr(told, name) == getattr(wanted, name)
    write_log(read_log(tmp_path / "plain.tsv"), tmp_path / "again.tsv")
    assert (tmp_path / "again.tsv").read_bytes() == (tmp_path / "plain.tsv").read_bytes()


def test_what_a_log_does_not_say_is_unknown_everywhere(tmp_path):
    path = written(tmp_path, TEXT, "sigma_0.25")
    told = json.loads(run("table", path, "--json").stdout)[0]
    assert [told[name] for name in ("alpha", "method", "n", "r_max")] == [None] * 4
    assert "alpha ?, n ?" in run("table", path).stdout
    assert "alpha is not told, so bounds take 0.001" in run("table", path).stdout
    assert "alpha 0.01" in run("table", path, "--alpha", "0.01").stdout
    assert "alpha is not told" not in run("table", path, "--alpha", "0.01").stdout
    assert np.isnan(wall([Result.of(read_log(path))]).wall[0])
    run("plot", "wall", path, "-o", tmp_path / "w.svg")
    assert "r_max unknown" in (tmp_path / "w.svg").read_text()
    known = Result.of(read_log(written(tmp_path, TEXT, "sigma_0.25_N_1000"), alpha=0.001))
    assert wall([known]).wall[0] == pytest.approx(0.6158, abs=1e-4)
    page = report_page(gather_page([str(path)], None).runs)
    assert "It does not say alpha either" in page
    assert re.search(r"samples an image, at most</t[hd]><td>\?</td>", page)


def test_a_log_that_cannot_be_drawn_never_stops_the_others(tmp_path):
    logs = [written(tmp_path, TEXT, f"sigma_{k}.tsv") for k in (0.25, 0.5)]
    empty = written(tmp_path, HEAD + "\n", "empty.tsv")
    linf, predicted = written(tmp_path, TEXT, "linf.tsv"), written(tmp_path, "idx\tlabel\tpredict\n0\t1\t1\n", "p.tsv")
    for kind in ("envelope", "abstention"):
        out = tmp_path / f"{kind}.png"
        done = run("plot", kind, logs[0], empty, predicted, logs[1], tmp_path / "none", "-o", out, code=1)
        assert out.is_file()
        for words in ("empty.tsv has no records", "has no radii", "there is no store"):
            assert words in done.stderr
    done = run("plot", "envelope", logs[0], empty, "-o", tmp_path / "no.png", code=1)
    assert "empty.tsv has no records" in done.stderr, "one is too few for an envelope"
    assert not (tmp_path / "no.png").exists()
    _, problems = draw_picture("curve", KINDS["curve"].options(stores=(str(logs[0]), str(linf))))
    assert len(problems) == 1
    with pytest.warns(UserWarning, match="not l2, but linf"):
        picture("curve", [logs[0], linf])
    done = run("report", logs[0], empty, "-o", tmp_path / "r.html", code=1)
    assert "has no records" in done.stderr
    assert (tmp_path / "r.html").is_file()


def test_many_logs_have_few_notes_and_other_data_come_first(tmp_path):
    rng = np.random.default_rng(0)
    radii = rng.random(20).round(3)
    logs = [log_of(tmp_path / f"m{k}", rng.integers(10, size=20) if k else np.zeros(20, int), radii) for k in range(30)]
    shown = run("table", *logs, "--envelope").stdout
    assert shown.startswith("WARNING: not compared, and nothing is starred:")
    assert "are over different data sets" in shown.splitlines()[0]
    assert "*" not in shown
    assert max(map(len, shown.splitlines())) < 400
    assert "m3/sigma_0.25 and 26 more: radii as logs printed them" in shown
    alike = [log_of(tmp_path / f"a{k}", np.zeros(20, int), radii * k) for k in range(30)]
    shown = run("table", *alike, "--envelope").stdout
    assert "best of a0/sigma_0.25, a1/sigma_0.25, a2/sigma_0.25, a3/sigma_0.25 and 26 more" in shown
    assert max(map(len, shown.splitlines())) < 400
    assert run("table", *logs, "--format", "markdown").stdout.startswith("**Warning: not compared")
    assert run("table", *logs, "--format", "latex").stdout.startswith("% WARNING: not compared")


def test_reports_and_curves_over_other_images_say_so(tmp_path):
    one = log_of(tmp_path, [1, 2, 3], [.1, .2, .3], "one.tsv")
    other, part = log_of(tmp_path, [1, 2, 4], [.1, .2, .3], "other.tsv"), log_of(tmp_path, [1, 2], [.1, .2], "part.tsv")
    for second, words in ((other, "over different data sets: image 2 has label 3"),
                          (part, "the runs are over different images; part has 2 of the 3 images")):
        with pytest.warns(UserWarning, match="not to be compared") as caught:
            run("plot", "curve", one, second, "-o", tmp_path / "c.svg")
        assert words in str(caught[0].message)
        assert "Not to be compared" in (tmp_path / "c.svg").read_text()
        page = report_page(gather_page([str(one), str(second)], None).runs)
        assert "Not to be compared" in page
        assert words in page
        assert "*" not in run("table", one, second, "--radii", "0.1").stdout
    with warnings.catch_warnings(action="error"):
        picture("curve", [one, one])


def test_a_radius_that_no_samples_could_prove_has_a_dash(tmp_path):
    store = made(tmp_path / "s", 0.25, right=1)
    shown = run("table", store, "--radii", "0.1,0.61,0.62,1").stdout
    assert [line.split()[-2:] for line in shown.splitlines()[3:5]] == [["-", "-"]] * 2
    assert "no radius above 0.615 can be proved" in shown
    assert "can be proved" not in run("table", store, "--radii", "0.1,0.6").stdout
    assert "| - | - |" in run("table", store, "--radii", "0.1,0.61,0.62,1", "--format", "markdown").stdout
    assert "-</td>" in report_page(gather_page([str(store)], None).runs, [0.1, 1.0])
    known = written(tmp_path, TEXT, "sigma_0.1_N_100.tsv")
    shown = run("table", known, "--alpha", "0.001", "--radii", "0.5,1").stdout
    assert re.search(r"certified accuracy +25\.0 +-\n", shown), "a radius that a log does claim is shown"


def test_accuracies_are_those_of_each_run_alone():
    rng = np.random.default_rng(0)
    runs = [Result("r", np.arange(m), rng.random(m), rng.random(m) < 0.8, np.zeros(m, bool), 0.5, alpha, "cohen", 1000)
            for m, alpha in ((50, 0.001), (50, None), (50, 0.01), (70, 0.001), (50, 0.001))]
    for told, one in zip(accuracies(runs, [0.0, 0.3, 0.9], 0.05), runs, strict=True):
        for name, values in vars(one.at([0.0, 0.3, 0.9], 0.05)).items():
            assert np.array_equal(getattr(told, name), values)


def test_a_comparison_beyond_what_could_be_proved_has_a_dash(tmp_path):
    stores = [made(tmp_path / f"s{sigma}", sigma, right=1) for sigma in (0.25, 0.5)]
    shown = run("compare", *stores, "--radii", "0.1,1,1.5").stdout
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if re.match(r"[\d.]+ ", line)}
    assert rows["1.5"] == ["-"] * 6
    assert rows["1"][0] == "-", "the first run's samples prove .615 at most"
    assert rows["1"][1] != "-"
    assert "-" not in rows["0.1"]
    assert shown.count("a dash stands beyond it") == 2
    acrs = [re.search(r"ACR ([\d.]+)", run("table", store).stdout)[1] for store in stores]
    assert "ACR {} and {}:".format(*acrs) in shown, "the figures of their tables"
