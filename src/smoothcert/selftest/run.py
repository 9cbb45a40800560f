"""The selftest: its checks in order, each with its share of the false alarms; the checks of stores; and the machine."""

import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from smoothcert.errors import SmoothcertError
from smoothcert.machine import pick_device
from smoothcert.noise import build_noise, fresh_seed
from smoothcert.progress import Progress, phase, reporting
from smoothcert.report.selftest import SelfTest, SelftestCheck, Verdict
from smoothcert.selftest import bounds
from smoothcert.selftest.finding import FALSE_ALARM, FULL, QUICK, Finding, Planned, Setting
from smoothcert.selftest.integers import plan_integer_checks
from smoothcert.selftest.known import SHAPE, halfspace
from smoothcert.selftest.normals import Normals
from smoothcert.selftest.options import SelftestConfig
from smoothcert.selftest.votes import Certificates, EngineVotes, Networks, Unusable, other_shapes, spaces
from smoothcert.smoothing.engines import ENGINES
from smoothcert.smoothing.engines.runtimes import PACKAGES, RUNTIMES
from smoothcert.stats import FixedCertify
from smoothcert.store.identity import Identity
from smoothcert.store.provenance import machine_line, provenance
from smoothcert.store.records import Record, Tally
from smoothcert.store.store import read_store, write_store

_RECORDS = 300  # two shards
_CLASSES = 10


def selftest(config: SelftestConfig, progress: Progress | None = None, *, verbose: bool = False) -> SelfTest:
    """Run all checks that the options ask for.

    Raises:
        InputError: a device, format or precision that is not available here, before any check.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    started, date = time.monotonic(), datetime.now(UTC)
    seed = fresh_seed() if config.seed is None else config.seed
    setting = Setting(pick_device(config.device), config.precision, config.noise, config.noise_format,
                      config.batch_size, seed, QUICK if config.quick else FULL)
    setting.voter(halfspace().network.to(setting.device), 2, SHAPE, "plain")  # refused where the library would refuse
    planned = list(_plan_checks(setting, config.engine))
    level = FALSE_ALARM / sum(check.random for check in planned)
    checks = []
    with reporting(progress, verbose), phase("checking", len(planned), "checks") as checking:
        for check in planned:
            checking.say(f"{check.group}: {check.name}")
            checks.append(_run(check, level))
            checking.advance()
    settings = {"engine": config.engine, "precision": config.precision, "device": str(setting.device),
                "noise": config.noise, "noise format": config.noise_format,
                "batch size": str(config.batch_size or "chosen"), "seed": str(setting.seed),
                **({"samples": "few (quick)"} if config.quick else {})}
    return SelfTest(date=f"{date:%Y-%m-%d %H:%M} UTC", seconds=time.monotonic() - started, false_alarm=FALSE_ALARM,
                    settings=settings, environment=_environment(setting), checks=tuple(checks))


def _plan_checks(setting: Setting, engine: str) -> Iterator[Planned]:
    yield from bounds.plan_checks()
    yield from Normals(setting).plan_checks()
    networks = Networks(setting)
    for name in ENGINES if engine == "all" else (engine,):
        votes = EngineVotes(name, engine != "all", networks)
        yield from votes.plan_checks()
        yield from Certificates(votes).plan_checks()
        if name in RUNTIMES and setting.precision == "float32" and setting.device.type == "cpu":
            yield from plan_integer_checks(name, engine != "all")
    yield from spaces(setting)
    yield from other_shapes(setting)
    yield from plan_store_checks()


def _run(check: Planned, level: float) -> SelftestCheck:
    """Run a check and return its verdict; a check that fails in any way is red."""
    started = time.monotonic()
    try:
        found = check.run(level)
    except Unusable:
        found = Finding(None, "the engine does not run here")
    except Exception as error:  # what breaks in an untrusted installation may break in any way
        found = Finding(False, f"failed: {type(error).__name__}: {error}"[:1000])
    verdicts: dict[bool | None, Verdict] = {True: "green", False: "red", None: "skipped"}
    return SelftestCheck(group=check.group, name=check.name, verdict=verdicts[found.passed], measured=found.measured,
                         allowed=found.allowed, seconds=time.monotonic() - started)


def _environment(setting: Setting) -> dict[str, str]:
    """Return versions, threads and device, in words."""
    versions = dict(provenance()["versions"])
    for package in sorted({package for needed in PACKAGES.values() for package in needed}):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    cuda = {"GPU": torch.cuda.get_device_name(setting.device)} if setting.device.type == "cuda" else {}
    return {"machine": machine_line(), **cuda, "threads": str(torch.get_num_threads()),
            "versions": ", ".join(f"{name} {version}" for name, version in versions.items())}


def plan_store_checks() -> list[Planned]:
    """Return the checks that what is written is read back, and that what was damaged is refused."""
    return [Planned.certain("storage", "records come back as they were written", check_round_trip),
            Planned.certain("storage", "damaged shards are refused", check_damage)]


def records() -> list[Record]:
    """Return records with every kind of value: abstentions, radii of full precision, votes of one class and of all."""
    rng, made = np.random.default_rng(0), []
    for index in range(_RECORDS):
        select, estimate = rng.multinomial(100, np.ones(10) / 10), rng.multinomial(10**9, np.eye(10)[index % 10])
        values = {"radius": float(rng.random()) * 10.0 ** -int(rng.integers(0, 300))}
        tallies = [Tally.of("select", select), Tally.of("estimate", estimate)]
        made.append(Record(index, index % 10, index % 11 - 1, values, index % 3 == 0, tallies))
    return made


def check_round_trip() -> Finding:
    """Check that all values come back, to the last bit."""
    with tempfile.TemporaryDirectory() as folder:
        _write_records(Path(folder))
        store = read_store(Path(folder))
        found = [Record.from_row(row) for row in store.records.to_pylist()]
    wrong = sum(one != other for one, other in zip(found, records(), strict=True))
    return Finding(wrong == 0 and store.complete, f"{wrong} of {_RECORDS} differ", "0")


def check_damage() -> Finding:
    """Check that damage (a bit flipped, a byte lost, a shard gone) is an error, and that the whole store is none."""
    if _is_refused(lambda shard: None):
        return Finding(False, "a store without damage is refused")
    taken = [name for name, damage in _DAMAGES.items() if not _is_refused(damage)]
    return Finding(not taken, f"of {len(_DAMAGES)} kinds of damage {', '.join(taken) or 'none'} went unseen", "none")


def _is_refused(damage: Callable[[Path], object]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        _write_records(Path(folder))
        damage(sorted(Path(folder).glob("shard-*.parquet"))[0])
        try:
            _ = read_store(Path(folder)).records
        except SmoothcertError:
            return True
        return False


def _flip(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


def _claim(shard: Path) -> None:
    manifest = shard.parent / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"alpha": 0.001', '"alpha": 0.0001'))


_DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": _flip,
    "a lost byte": lambda shard: shard.write_bytes(shard.read_bytes()[:-1]),
    "an empty shard": lambda shard: shard.write_bytes(b""),
    "a lost shard": lambda shard: shard.unlink(),
    "another alpha in the manifest": _claim,
    "another shard's content": lambda shard: shard.write_bytes(sorted(shard.parent.glob("shard-*"))[-1].read_bytes()),
}


def _write_records(folder: Path) -> None:
    noise = build_noise("grid", 0.25)
    plan = FixedCertify(100, 10**9, 0.001, "two-sided", None, noise.radius)
    identity = Identity.parse({
        "kind": "certify", "model": {"by": "id", "id": "selftest"}, "num_classes": _CLASSES,
        "data": {"name": "selftest", "split": "test", "shape": [1, 8, 8], "sha256": "0" * 64},
        "images": {"count": _RECORDS, "start": 0, "every": 1}, "seed": 0, "procedure": plan.identity(),
        "noise": {**noise.identity(), "format": noise.formats[0]}, "space": "pixels", "engine": "plain",
        "precision": "float32", "device": "cpu",
    })
    write_store(folder, identity, {}, records())
