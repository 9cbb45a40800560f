"""The selftest is green where all is well, and red where a biased noise, a wrong bound or a miscount is planted."""

import json
import shutil
import warnings
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from functools import cache

import mpmath
import numpy as np
import pytest
import torch
from scipy import special, stats
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.errors import ConfigError, EngineWarning, FileError, InputError
from smoothcert.io.files import sha256
from smoothcert.noise import GridNoise, Sfc64Stream
from smoothcert.noise.keys import STAGES
from smoothcert.report.html import report_page
from smoothcert.report.html.facts import find_untested
from smoothcert.report.selftest import SelfTest, SelftestCheck, read_selftest, selftest_text
from smoothcert.results.gather import gather_page
from smoothcert.selftest import bounds, run
from smoothcert.selftest.finding import FALSE_ALARM, QUICK, Finding, Planned, Setting, Sizes, binomial_p, by_chance
from smoothcert.selftest.integers import IntegerNetwork, plan_integer_checks
from smoothcert.selftest.normals import Normals
from smoothcert.selftest.options import SelftestConfig
from smoothcert.selftest.votes import Certificates, EngineVotes, Networks, other_shapes, spaces
from smoothcert.smoothing import voters
from smoothcert.smoothing.engines import ENGINES, runtimes
from smoothcert.smoothing.engines.protocol import Refused
from smoothcert.smoothing.engines.runtimes import PACKAGES, RUNTIMES
from smoothcert.smoothing.rows import HostRows
from smoothcert.smoothing.spaces import Space
from smoothcert.smoothing.voters import NetworkVoter
from smoothcert.stats import at_radii, binomial, procedures, radius
from smoothcert.store.shards import Shard
from smoothcert.store.store import write_store
from stores import made

LEVEL = FALSE_ALARM / 20
SETTING = Setting(torch.device("cpu"), "float32", "grid", "auto", None, 5, QUICK)
COMPILER = shutil.which("g++") or shutil.which("c++")


def reds(planned, level=LEVEL) -> set[str]:
    """Names of the checks that are red; as in `run`, one that raises is."""
    found = {check.name: run._run(check, level) for check in planned}
    assert not [one for one in found.values() if one.verdict == "skipped"]
    return {name for name, one in found.items() if one.verdict == "red"}


@cache
def networks() -> Networks:
    """Shared: the votes of float64 and of the plain model are those of an installation in order."""
    shared = Networks(SETTING)
    assert (shared.reference[0] > 0).sum() > 4, "votes of one class would show no miscount"
    assert shared.plain.sum() == 2 * shared.rows.shape[1]
    return shared


def engine_checks(engine: str, named: bool = True) -> list[Planned]:
    votes = EngineVotes(engine, named, networks())
    return [*votes.plan_checks(), *Certificates(votes).plan_checks()]


# Green

@pytest.mark.parametrize("engine", [
    "plain", pytest.param("compile", marks=[
        pytest.mark.slow, pytest.mark.skipif(not COMPILER, reason="needs a C++ compiler")]),
    *(pytest.param(name, marks=pytest.mark.slow) for name in PACKAGES)])
def test_every_engine_is_green_on_a_cpu(engine):
    for package in PACKAGES.get(engine, ()):
        pytest.importorskip(package)
    assert reds(engine_checks(engine)) == set()


@pytest.mark.parametrize("noise", ["gaussian", "sound"])
def test_the_other_noises_are_green(noise):
    assert reds(Normals(replace(SETTING, noise_kind=noise)).plan_checks()) == set()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_integer_networks_are_green(runtime):
    pytest.importorskip(runtime)
    found = [check.run(LEVEL) for check in plan_integer_checks(runtime, named=True)]
    assert found[0].passed
    assert found[1].passed or "without VNNI" in found[1].measured


def saturate(session, images, outputs):
    """What a runtime without VNNI gives: products of bytes are added in pairs in 16 bits, of the 8-bit network."""
    network = IntegerNetwork.of_largest(126)
    levels = np.rint(np.asarray(images) * 256).astype(np.int64)
    padded = np.pad(levels, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    products = np.einsum("nchwij,ocij->nohwijc", windows, network.convolution.astype(np.int64))
    pairs = np.clip(products[..., ::2] + products[..., 1::2], -32768, 32767)
    rounded = np.clip((pairs.sum(axis=(4, 5, 6)) + 1 + 8192) >> 14, -128, 127)
    logits = rounded.reshape(len(levels), -1) @ network.product.astype(np.int64) / 64
    return {outputs[0]: logits.astype(np.float32)}


def test_a_kernel_that_saturates_is_red(monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(runtimes, "instruction_sets", lambda onednn=False: frozenset({"avx2", "avx512_vnni"}))
    monkeypatch.setattr(runtimes.OnnxSession, "run", saturate)
    found = plan_integer_checks("onnxruntime", named=True)[1].run(LEVEL)
    assert found.passed is False
    assert "rows unlike integer arithmetic's" in found.measured


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_is_green_and_has_no_smaller_spaces(precision):
    setting = replace(SETTING, precision=precision)
    votes = EngineVotes("eager", True, Networks(setting))
    assert reds([*votes.plan_checks(), *Certificates(votes).plan_checks()]) == set()
    assert spaces(setting) == []


def test_other_shapes_are_green_and_other_noise_for_them_is_red(monkeypatch):
    assert reds(other_shapes(SETTING)) == set()
    opened = Setting.voter

    def voter(setting, model, num_classes, shape, engine):
        return opened(replace(setting, seed=setting.seed + (len(shape) != 3)), model, num_classes, shape, engine)

    monkeypatch.setattr(Setting, "voter", voter)
    assert len(reds(other_shapes(SETTING))) == 3


def test_the_command_prints_keeps_and_exits_with_the_verdict(tmp_path, monkeypatch):
    file = tmp_path / "new" / "selftest.json"
    arguments = ["selftest", "--quick", "--engine", "eager", "--seed", "3", "-q", "-o", str(file)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = read_selftest(file)
    assert found.verdict == "green"
    assert found.count("green") == len(found.checks) > 20
    assert found.settings["seed"] == "3"
    assert "torch" in found.environment["versions"]
    for words in ("engine eager", "Clopper-Pearson", "storage", "seed 3", found.summary):
        assert words in done.output
    assert json.loads(file.read_text())["verdict"] == "green"
    monkeypatch.setattr(run, "_plan_checks", lambda *_: [Planned.chance("a", "b", lambda level: Finding(False, "x"))])
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["verdict"] == "red"


def test_what_cannot_be_had_is_refused_before_any_check():
    for options, error, words in (
        ({"engine": "eagre"}, ConfigError, 'did you mean "eager"'), ({"precision": "tf32"}, InputError, "tf32"),
        ({"noise": "sound", "noise_format": "philox-v1"}, InputError, "formats of its own"),
        ({"seed": -1}, ConfigError, "seed"),
    ):
        with pytest.raises(error, match=words):
            run.selftest(SelftestConfig.parse(options), lambda *_: pytest.fail("a check was begun"))


# Red: noise

def filled(change):
    """`Sfc64Stream.fill` with its numbers changed: change(stream, out) in place."""
    honest = Sfc64Stream.fill

    def fill(self, out):
        position = self.position
        honest(self, out)
        change(self, out, position, honest)

    return fill


def shifted(stream, out, position, honest):
    out += np.float32(0.02)


def stretched(stream, out, position, honest):
    out *= np.float32(1.01)


def clipped(stream, out, position, honest):
    np.clip(out, -3.8, 3.8, out=out)


def coarse(stream, out, position, honest):
    np.rint(out * 8, out=out)
    out /= 8


def common(stream, out, position, honest):
    """A part that all streams share: correlation 0.05."""
    shared = np.empty_like(out)
    honest(Sfc64Stream(77, 0, "attack", out.shape[1], position), shared)
    out[:] = np.sqrt(0.95) * out + np.sqrt(0.05) * shared


def smeared(stream, out, position, honest):
    """Each value with a part of its neighbour's."""
    out[:] = (np.roll(out, 1, axis=1) * 0.02 + out) / np.sqrt(1 + 0.02**2)


@pytest.mark.parametrize(("change", "seen"), [
    (shifted, "moments"), (stretched, "moments"), (clipped, "tails to 5 sigma"),
    (coarse, "distribution (KS, cells)"), (common, "independence of images and stages"),
    (smeared, "independence of values and samples"),
])
def test_biased_noise_is_red(monkeypatch, change, seen):
    """In what its values are, not only in that they are others than the format's; the copies are still those named."""
    monkeypatch.setattr(Sfc64Stream, "fill", filled(change))
    found = reds(Normals(SETTING).plan_checks())
    assert seen in found
    assert change is clipped or "known answers of the formats" in found
    assert "the copies are the format's" not in found


def test_a_stream_repeated_in_selection_and_estimation_is_red(monkeypatch):
    monkeypatch.setitem(STAGES, "estimate", STAGES["select"])
    assert reds(Normals(SETTING).plan_checks()) >= {"no copy comes twice", "independence of images and stages"}


def test_copies_that_are_not_the_formats_are_red(monkeypatch):
    honest = HostRows.draw

    def draw(self, segments):
        rows = honest(self, segments)
        rows.view(-1)[-1] *= 1 + 2**-20
        return rows

    monkeypatch.setattr(HostRows, "draw", draw)
    assert reds(Normals(SETTING).plan_checks()) == {"the copies are the format's"}


def test_wider_noise_shows_in_votes_and_smaller_spaces(monkeypatch):
    honest = GridNoise.place
    monkeypatch.setattr(GridNoise, "place", lambda self, out, *rest: honest(replace(self, sigma=0.3), out, *rest))
    assert "votes of a linear network" in reds(EngineVotes("plain", True, Networks(SETTING)).plan_checks())
    muller, placed = voters.box_muller, Space.place
    monkeypatch.setattr(voters, "box_muller", lambda words: tuple(1.2 * part for part in muller(words)))
    monkeypatch.setattr(voters, "binomial", lambda *given: int(0.45 * given[4]))
    monkeypatch.setattr(Space, "place", lambda self, normals, centre, sigma: placed(self, normals, centre, 1.2 * sigma))
    assert reds(spaces(SETTING)) == {"binary", "logits", "linear"}


# Red: bounds

def wald(k, n, alpha):
    """The normal approximation that textbooks warn of."""
    k, n, alpha = np.broadcast_arrays(*(np.asarray(a, dtype=float) for a in (k, n, alpha)))
    p = np.clip(k / n + special.ndtri(alpha) * np.sqrt(k * (n - k) / n**3), 0, 1 - 1e-15)
    return p, 1 - p


HONEST = binomial.lower_limit
LIMITS = {"Clopper-Pearson limits meet their definition", "certificates from counts",
          "two-sided bounds of three classes"}


@pytest.fixture
def few(monkeypatch):
    """Fewer cases: to be seen, a defect needs few of them."""
    monkeypatch.setattr(bounds, "_COUNTS", ((80, 100), (999, 1000), (10**10 - 300, 10**10)))
    monkeypatch.setattr(bounds, "_ALPHAS", (0.01,))


@pytest.mark.parametrize(("limit", "end_to_end"), [
    (wald, {"radii follow from their votes", "radii above the truth", "size of the radii"}),
    (lambda k, n, alpha: HONEST(k, n, np.full_like(np.asarray(alpha, float), 0.5)),
     {"radii follow from their votes", "radii above the truth", "size of the radii"}),
    (lambda k, n, alpha: HONEST(k, n, np.asarray(alpha) * 1e-3),
     {"radii follow from their votes", "size of the radii"}),
])
def test_a_wrong_limit_is_red_in_the_statistics_and_end_to_end(monkeypatch, few, limit, end_to_end):
    """Wald's; alpha ignored; and one that gives away a thousandth of alpha for nothing: too small is a defect too."""
    for module in (binomial, procedures):
        monkeypatch.setattr(module, "lower_limit", limit)
    assert reds(bounds.plan_checks()) >= LIMITS
    assert reds(engine_checks("plain")) == end_to_end


@pytest.mark.parametrize("change", [lambda r: np.ceil(r * 1000) / 1000, lambda r: r * (1 + 1e-12)])
def test_a_radius_rounded_up_is_red(monkeypatch, few, change):
    honest = radius._toward_zero
    monkeypatch.setattr(radius, "_toward_zero", lambda r: change(honest(r)))
    assert reds(bounds.plan_checks()) >= {"radii of probability bounds", "certificates from counts"}


def test_radii_of_a_run_that_are_above_their_votes_are_red(monkeypatch):
    honest = radius._toward_zero
    monkeypatch.setattr(radius, "_toward_zero", lambda r: honest(r) * (1 + 1e-12))
    assert reds(engine_checks("plain")) == {"radii follow from their votes"}


def test_other_statistics_gone_wrong_are_red(monkeypatch, few):
    with monkeypatch.context() as patch:
        patch.setattr(at_radii, "early_spending", lambda looks: (*range(1, len(looks)), len(looks)))
        assert reds(bounds.plan_checks()) == {"sequential radii"}
    honest = procedures.tail
    monkeypatch.setattr(procedures, "tail", lambda k, n, p: honest(k, n, p) / 2)
    assert reds(bounds.plan_checks()) == {"p-values of predictions"}


# Red: engines and stores

def test_a_lost_vote_is_red(monkeypatch):
    honest = NetworkVoter.count

    def count(self, segments):
        table = honest(self, segments)
        table[-1, table[-1].argmax()] -= 1
        return table

    networks()
    monkeypatch.setattr(NetworkVoter, "count", count)
    assert reds(EngineVotes("plain", True, networks()).plan_checks()) == {
        "votes of a convolutional network", "votes of a linear network"}


def tiring(model, shape, batch, device, precision):
    """Passes the library's check of 500 rows, and answers wrongly after 600."""
    seen = 0

    def answers(rows):
        nonlocal seen
        seen += len(rows)
        logits = model(rows)
        return logits.flip(1) if seen > 600 else logits

    return answers


def test_an_engine_that_miscounts_is_red(monkeypatch):
    monkeypatch.setitem(ENGINES, "eager", tiring)
    found = reds(engine_checks("eager"))
    assert found >= {"votes of a convolutional network", "votes of a linear network", "radii above the truth"}


def test_other_votes_are_red_and_what_cannot_start_is_skipped(monkeypatch):
    def wrong(model, *rest):
        return lambda rows: -model(rows)

    def absent(*_):
        raise Refused("no such device")

    monkeypatch.setitem(ENGINES, "eager", wrong)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)
        first, *_ = EngineVotes("eager", False, networks()).plan_checks()
        told = run._run(first, LEVEL)
        assert told.verdict == "red"
        assert "votes on noisy inputs differ" in told.measured
    monkeypatch.setitem(ENGINES, "eager", absent)
    for named, verdict in ((False, "skipped"), (True, "red")):
        votes = EngineVotes("eager", named, networks())
        first, *rest = [*votes.plan_checks(), *Certificates(votes).plan_checks()]
        assert run._run(first, LEVEL).verdict == verdict
        assert run._run(first, LEVEL).measured == "no such device"
        assert {run._run(check, LEVEL).verdict for check in rest} == {"skipped"}


def test_stores_are_red_where_a_bit_is_lost_or_a_shard_unchecked(monkeypatch):
    assert reds(run.plan_store_checks()) == set()
    with monkeypatch.context() as patch:
        patch.setattr(run, "write_store", lambda folder, identity, told, records: write_store(
            folder, identity, told, [replace(records[0], values={"radius": np.nextafter(0.5, 1)}), *records[1:]]))
        assert reds(run.plan_store_checks()) == {"records come back as they were written"}
    honest = Shard.read

    def trusting(cls, folder, entry):
        path = folder / entry.name
        return honest(folder, entry.model_copy(update={"sha256": sha256(path)}) if path.exists() else entry)

    monkeypatch.setattr(Shard, "read", classmethod(trusting))
    assert reds(run.plan_store_checks()) == {"damaged shards are refused"}


# What the verdicts rest on

def test_long_arithmetic_is_right():
    with mpmath.workdps(70):
        for k, n, p in ((1, 1, 0.3), (80, 100, 0.7), (99_990, 100_000, 0.9998), (10**10 - 5, 10**10, 1 - 1e-9)):
            wanted = mpmath.betainc(k, n - k + 1, 0, mpmath.mpf(p), regularized=True)
            got = mpmath.mpf(str(bounds.at_least(k, n, Decimal(p))))
            assert abs(got / wanted - 1) < 1e-30
        for value in (1e-9, 0.3, 0.4999):
            z = mpmath.mpf(str(bounds.normal_quantile(Decimal(value), special.ndtri(value) + 1e-3)))
            assert abs(mpmath.ncdf(z) - mpmath.mpf(value)) < 1e-40
    assert bounds.half_tail(2, 3) == Fraction(1, 2)
    assert float(bounds.share_within(0.5, 0.25)) == pytest.approx(special.ndtr(2), rel=1e-15)


def test_chance_has_its_share_of_the_false_alarms_and_no_more(monkeypatch):
    assert by_chance({"a": 1e-7, "b": 1.0}, 1.9e-7).passed
    assert not by_chance({"a": 1e-7, "b": 1.0}, 2.1e-7).passed
    assert not by_chance({"a": 0.5, "b": np.nan}, LEVEL).passed
    levels = []
    planned = [Planned.chance("a", "b", lambda level: levels.append(level) or Finding(True, ""))] * 4
    monkeypatch.setattr(run, "_plan_checks", lambda *_: [*planned, *run.plan_store_checks()])
    run.selftest(SelftestConfig())
    assert sum(levels) == pytest.approx(FALSE_ALARM)
    for k, n, p in ((0, 10, 0.3), (3, 10, 0.3), (9, 10, 0.3), (10, 10, 0.3)):
        wanted = 2 * min(stats.binom.cdf(k, n, p), stats.binom.sf(k - 1, n, p))
        assert binomial_p(k, n, p, 1 - p) == pytest.approx(min(1, wanted))


def test_p_values_are_right_or_too_large():
    """At level 0.2 every check of noise is red for at most its share of 40 seeds, and not for none."""
    small = replace(SETTING, sizes=Sizes(4, 200, 20, 200))
    counts: dict[str, int] = {}
    for seed in range(40):
        for check in Normals(replace(small, seed=seed)).plan_checks():
            if check.random:
                counts[check.name] = counts.get(check.name, 0) + (not check.run(0.2).passed)
    assert len(counts) == 5
    assert max(counts.values()) <= stats.binom.ppf(1 - 1e-6, 40, 0.2)
    assert sum(counts.values()) > 0


def test_what_fails_is_red_and_says_why():
    def broken():
        raise OSError("disk on fire")

    told = run._run(Planned.certain("a", "b", broken), LEVEL)
    assert (told.verdict, told.measured) == ("red", "failed: OSError: disk on fire")


# The report

EVIL = "</script><script>window.pwned=1</script><b>\"'&"


def result(verdict="green", **changes) -> SelfTest:
    told = {"date": "2026-01-02 03:04 UTC", "seconds": 1.5, "false_alarm": 1e-6,
            "settings": {"engine": "eager", "precision": "float32", "noise": "grid", "device": "cpu"},
            "environment": {"versions": "torch 9.9, numpy 1", "machine": EVIL},
            "checks": (SelftestCheck(group=EVIL, name=EVIL, verdict=verdict, measured=EVIL, allowed=EVIL),)}
    return SelfTest(**{**told, **changes})


@pytest.fixture
def runs(tmp_path):
    return gather_page([str(made(tmp_path / "store", told={"versions": {"torch": "9.9"}}))], None)[0]


def test_the_report_shows_verdict_date_and_versions_escaped(runs):
    page = report_page(runs, selftest=result("red")).split('id="curves"')[0]
    assert '<section class="warn" id="selftest">' in page
    assert "<details open" in page
    for words in ("red: do not trust certificates made here", "2026-01-02 03:04 UTC", "torch 9.9, numpy 1"):
        assert words in page
    assert "window.pwned=1&lt;" in page
    assert "<script>window" not in page
    green = result(checks=(SelftestCheck(group="engine eager", name="x", verdict="green", measured=""),))
    assert '<section id="selftest">' in report_page(runs, selftest=green)
    assert 'id="selftest"' not in report_page(runs)


def test_runs_made_with_other_things_than_tested_are_named(runs):
    eager = SelftestCheck(group="engine eager", name="x", verdict="green", measured="")
    assert find_untested(result(checks=(eager,)), runs) == []
    other = result(settings={"engine": "all", "noise": "sound", "precision": "bf16", "device": "cuda:0"},
                   environment={"versions": "torch 9.8"}, checks=(eager.model_copy(update={"verdict": "skipped"}),))
    ((name, words),) = find_untested(other, runs)
    assert name == "store"
    assert words.startswith("made with torch 9.9, noise grid, precision float32, device cpu, engine eager,")


def test_the_command_shows_a_result_and_refuses_what_is_none(runs, tmp_path):
    good, bad = tmp_path / "selftest.json", tmp_path / "bad.json"
    good.write_text(json.dumps(result().content()))
    assert read_selftest(good) == result()
    arguments = ["report", str(tmp_path / "store"), "--no-gallery", "-o", str(tmp_path / "page.html"), "--selftest"]
    assert CliRunner().invoke(app, [*arguments, str(good)]).exit_code == 0
    assert 'id="selftest"' in (tmp_path / "page.html").read_text()
    content = result().content()
    for wrong in ("[]", "{", "null", json.dumps({**content, "checks": []}), json.dumps({**content, "x": 1}),
                  json.dumps({**content, "checks": [{**content["checks"][0], "verdict": "fine"}]})):
        bad.write_text(wrong)
        with pytest.raises(FileError, match=r"bad\.json"):
            read_selftest(bad)
    done = CliRunner().invoke(app, [*arguments, str(bad)])
    assert (done.exit_code, "no result of smoothcert selftest" in done.output) == (1, True)


def test_a_verdict_is_that_of_the_checks_and_never_of_the_file(tmp_path):
    file = tmp_path / "forged.json"
    file.write_text(json.dumps({**result("red").content(), "verdict": "green"}))
    assert read_selftest(file).verdict == "red"
    assert result("skipped").verdict == "skipped"
    assert selftest_text(result("red")).splitlines()[-1].startswith("red: do not trust")
