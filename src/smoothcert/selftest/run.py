"""The selftest: its checks in order, each with its share of the false alarms, and what is told of the machine."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata

import torch

from smoothcert.machine import pick_device
from smoothcert.noise import fresh_seed
from smoothcert.progress import Progress, silent
from smoothcert.report.selftest import SelfTest, SelftestCheck, Verdict
from smoothcert.selftest import bounds, storage
from smoothcert.selftest.finding import FALSE_ALARM, FULL, QUICK, Finding, Planned, Setting
from smoothcert.selftest.known import SHAPE, halfspace
from smoothcert.selftest.normals import Normals
from smoothcert.selftest.options import SelftestConfig
from smoothcert.selftest.votes import Certificates, EngineVotes, Networks, Unusable, spaces
from smoothcert.smoothing.engines import ENGINES
from smoothcert.smoothing.engines.onnx_engines import PACKAGES
from smoothcert.store.provenance import machine_line, provenance


def selftest(config: SelftestConfig, progress: Progress = silent) -> SelfTest:
    """Run all checks that the options ask for.

    Raises:
        InputError: a device, format or precision that cannot be had here, before any check.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    started, date = time.monotonic(), datetime.now(UTC)
    setting = _setting(config)
    planned = list(_plan_checks(setting, config.engine))
    level = FALSE_ALARM / sum(check.random for check in planned)
    checks = []
    for number, check in enumerate(planned):
        progress(number, len(planned), f"{check.group}: {check.name}")
        checks.append(_run(check, level))
    progress(len(planned), len(planned), "done")
    return SelfTest(date=f"{date:%Y-%m-%d %H:%M} UTC", seconds=time.monotonic() - started, false_alarm=FALSE_ALARM,
                    settings=_settings(config, setting), environment=_environment(setting), checks=tuple(checks))


def _setting(config: SelftestConfig) -> Setting:
    """The setting, refused with an InputError where the library would refuse it."""
    seed = fresh_seed() if config.seed is None else config.seed
    setting = Setting(pick_device(config.device), config.precision, config.noise, config.noise_format,
                      config.batch_size, seed, QUICK if config.quick else FULL)
    setting.voter(halfspace().network.to(setting.device), 2, SHAPE, "plain")
    return setting


def _plan_checks(setting: Setting, engine: str) -> Iterator[Planned]:
    yield from bounds.plan_checks()
    yield from Normals(setting).plan_checks()
    networks = Networks(setting)
    for name in ENGINES if engine == "all" else (engine,):
        votes = EngineVotes(name, engine != "all", networks)
        yield from votes.plan_checks()
        yield from Certificates(votes).plan_checks()
    yield from spaces(setting)
    yield from storage.plan_checks()


def _run(check: Planned, level: float) -> SelftestCheck:
    """The check's verdict; one that fails in any way is red."""
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


def _settings(config: SelftestConfig, setting: Setting) -> dict[str, str]:
    told = {"engine": config.engine, "precision": config.precision, "device": str(setting.device),
            "noise": config.noise, "noise format": config.noise_format,
            "batch size": str(config.batch_size or "chosen"), "seed": str(setting.seed)}
    return {**told, "samples": "few (quick)"} if config.quick else told


def _environment(setting: Setting) -> dict[str, str]:
    """Versions, threads and device, in words."""
    packages = sorted({package for needed in PACKAGES.values() for package in needed})
    versions = {**provenance()["versions"], **{name: _version(name) for name in packages}}
    cuda = {"GPU": torch.cuda.get_device_name(setting.device)} if setting.device.type == "cuda" else {}
    return {"machine": machine_line(), **cuda, "threads": str(torch.get_num_threads()),
            "versions": ", ".join(f"{name} {version}" for name, version in versions.items())}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
