"""Records of a store drawn again from the seeds it tells, to be compared with what it holds."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from smoothcert.attacks import ATTACKS
from smoothcert.config.sampling import SamplingConfig
from smoothcert.errors import IdentityError, InputError
from smoothcert.io.files import make_folder
from smoothcert.noise import NOISES
from smoothcert.runs.attack import prepare_attack
from smoothcert.runs.certify import PREPARE, SamplingRun, prepare_sampling
from smoothcert.runs.distributional import prepare_distributional
from smoothcert.runs.executors import executor_of
from smoothcert.runs.options import (
    OF_CLASSES,
    SEARCH,
    AttackConfig,
    CertifyConfig,
    DistributionalConfig,
    PredictConfig,
)
from smoothcert.runs.reopen import data_options, find_part
from smoothcert.runs.run import Run
from smoothcert.runs.transfer import Original, prepare_transfer
from smoothcert.runs.transfer_options import TransferConfig
from smoothcert.smoothing.sampling import NOISE_FORMATS
from smoothcert.stats import is_same
from smoothcert.store.comparison import differences, without_unrecorded
from smoothcert.store.identity import Identity
from smoothcert.store.manifest import Manifest, Provenance
from smoothcert.store.provenance import provenance
from smoothcert.store.recertify import rebuild_plan
from smoothcert.store.records import Record, Tally
from smoothcert.store.store import Store
from smoothcert.verify.files import Readable, StoreCheck
from smoothcert.verify.options import VerifyConfig

_NAMES = {"cpu": "CPU", "cuda": "GPU"}


def check_resampling(readable: Readable, config: VerifyConfig) -> StoreCheck:
    """Draw `config.resample` records again and compare them with the stored ones, value by value.

    Which ones is a number drawn from the hash of the identity and of all shards: the same each time, and not to be
    foreseen by someone who changes a record.

    The noise is equal on every device. Where the records are drawn again on another kind of device than the run's,
    votes of close calls may differ: at most as many as there are close calls here.

    Raises:
        IdentityError: model, data or machine are not the run's, all differences named.
        InputError: a store whose looks were taken by another store's procedure, or one that can be drawn again on its
            own kind of device alone.
    """
    there, device = readable.identity.device, _choose_device(readable, config)
    with TemporaryDirectory() as folder:
        out = Path(folder) / "store"
        run = _rebuild(readable, config, out, device)
        _check_same(readable, run)
        make_folder(out)
        Manifest(readable.identity, Provenance()).write(out)  # attacked images may be kept in a store alone
        chosen = _choose(readable, config.resample or 0)
        rows = dict(zip(readable.positions.tolist(), range(len(readable.positions)), strict=True))
        problems, turned = list[str](), 0
        with run.meter(chosen, "sampling again") as meter:
            for position, record, close in _draw(run, chosen, device != there):
                stored = Record.from_row(readable.table.slice(rows[position], 1).to_pylist()[0])
                meter.finish(run.passes(position), run.passes(position, record))
                if 0 < (differing := _count_differing(stored.tallies, record.tallies)) <= close:
                    turned += differing
                    continue
                again = record.row()
                problems += [
                    f"record {position} (image {stored.index}): {key} is {shorten(value)}, and drawn again "
                    f"{shorten(again.get(key))}"
                    for key, value in stored.row().items()
                    if not is_same(key, value, again.get(key), readable.identity.noise.sigma)]
        for path in sorted(out.glob("adversaries/*")):
            kept = readable.folder / "adversaries" / path.name
            if kept.is_file() and kept.read_bytes() != path.read_bytes():
                problems.append(f"{kept} holds other images than were found again")
    versions, here = readable.manifest.provenance.versions, provenance()["versions"]
    if problems:
        made, now = (", ".join(f"{name} {version}" for name, version in one.items()) or "unknown versions"
                      for one in (versions, here))
        others = "another kind of processor than the run's" if versions == here else (
            f"made with {made}; here {now}: other versions, or another kind of processor,")
        problems.append(f"{others} may round near ties and gradients otherwise")
    told = f"{len(chosen)} records drawn again"
    if device != there:
        told += f" on a {_NAMES[device]}, which the run was not on"
    if not problems and turned:
        told += f", equal but for {turned:,} votes of close calls, which each device judges in its own way"
    elif not problems:
        told += ", equal in every vote and value"
    return StoreCheck("resampled", told, tuple(problems))


def shorten(value: Any) -> str:
    """Return a value as a message shows it: of long lists, the beginning."""
    return str(value) if len(str(value)) <= 100 else f"{str(value)[:80]} ..."


def _choose_device(readable: Readable, config: VerifyConfig) -> str:
    """Return the kind of device to draw on. Raises InputError where records of that kind of run cannot be compared."""
    identity, device = readable.identity, config.device
    there = identity.device or "cpu"
    if device == "auto":
        device = there if there == "cpu" or torch.cuda.is_available() else "cpu"
    if device == there:
        return device
    made = f"{readable.folder} was made on a {_NAMES[there]}, and"
    if identity.kind not in ("certify", "predict") or identity.transferred_from is not None:
        raise InputError(f"{made} can be drawn again on another {_NAMES[there]} alone: a {_NAMES[device]} rounds "
                         f"gradients and pairs of networks otherwise, and all that follows from them")
    if identity.precision != "float32" or "input_dtype" in identity.raw:
        raise InputError(f"{made} can be drawn again on another {_NAMES[there]} alone: in {identity.precision} a "
                         f"{_NAMES[device]} gives other votes; in float32 only close calls would differ")
    if config.workers > 1:
        raise InputError(f"workers: {made} is to be drawn again on a {_NAMES[device]}, where one process counts the "
                         f"close calls: leave workers out")
    return device


def _draw(run: Run, chosen: Sequence[int], across: bool) -> Iterator[tuple[int, Record, int]]:
    """Yield the positions, their records drawn again, and how many of their votes another device may judge otherwise.

    Args:
        across: whether the run was on another kind of device.
    """
    if not (across and isinstance(run, SamplingRun)):
        yield from ((position, record, 0) for position, record, _ in executor_of(run.config)(run, chosen))
        return
    for position in chosen:  # one by one, so that each has close calls of its own
        before = run.voter.close_calls
        for _, record, _ in run.records([(position,)]):
            yield position, record, run.voter.close_calls - before


def _count_differing(stored: Sequence[Tally], again: Sequence[Tally]) -> int:
    """Return how many votes differ at the last look of each stage that both have."""
    found: dict[str, int] = {}
    for one, other in zip(stored, again, strict=False):
        if (one.stage, one.n) != (other.stage, other.n):
            break
        there, here = (Counter(dict(zip(tally.classes, tally.counts, strict=True))) for tally in (one, other))
        found[one.stage] = (there - here).total()
    return sum(found.values())


def _rebuild(readable: Readable, config: VerifyConfig, out: Path, device: str) -> Run:
    """Return the run of a store, ready to work, which writes to `out` if anywhere."""
    identity = readable.identity
    origin = None
    if identity.counted_from is not None:
        origin = "made from the counts of a certify store"
    elif identity.recertified_from is not None and (
            identity.procedure.design != "fixed" or identity.of_outputs):
        origin = "certified again from the counts of another store"
    if origin:
        raise InputError(f"{readable.folder} was {origin}: its looks were taken by that one's procedure, so give "
                         f"that store to resample")
    known = {"model": identity.model_or_none, "data": identity.data_or_none.raw or None, "seed": identity.seed_or_none}
    if missing := [name for name, part in known.items() if part is None]:
        raise InputError(f"{readable.folder} does not say its {' and '.join(missing)}: it cannot be drawn again")
    options = {**_options(readable, config), "device": device, "out": out}
    if identity.transferred_from is not None:
        return _rebuild_transfer(readable.store, options, config)
    return _REBUILD[identity.kind](identity, options, config)


def _rebuild_sampling(identity: Identity, options: dict[str, Any], asked: VerifyConfig) -> Run:
    given = {**options, **_sampling_options(identity, asked)}
    if options["device"] != identity.device:
        given["engine"] = "auto"  # the run's may not be there
    if identity.adversaries is not None:
        if asked.adversaries is None:
            raise InputError("adversaries: this store predicts attacked images: give the attack store that kept them")
        setting = {name: value for name, value in identity.adversaries.items() if name != "attack"}
        given = {**given, "adversaries": asked.adversaries, "setting": setting}
    config = (SamplingConfig if identity.adversaries is None else PredictConfig).parse(given)
    return prepare_sampling(config, lambda noise, version: rebuild_plan(identity.procedure, noise))


def _rebuild_transfer(store: Store, options: dict[str, Any], asked: VerifyConfig) -> Run:
    """Return a transfer that is to be drawn again: the looks of the original are the store's own."""
    identity, procedure = store.identity, store.identity.procedure
    config = TransferConfig.parse({
        **options, **_sampling_options(identity, asked), "store": store, "original": asked.original,
        "original_option": asked.original_option,
        **{name: procedure.raw[name] for name in ("n", "share", "method", "alpha")}})
    told: Any = identity.transferred_from
    return prepare_transfer(config, Original(store, told, procedure.source or {}))


def _rebuild_attack(identity: Identity, options: dict[str, Any], asked: VerifyConfig) -> Run:
    attack, procedure = identity.attack, identity.procedure
    bounds = {"times": attack.times, "eps_from": asked.eps_from} if attack.eps is None else {"eps": attack.eps}
    if attack.eps is None and asked.eps_from is None:
        raise InputError("eps-from: this store attacks at multiples of certified radii: give the certify store that "
                         "they are from")
    answer = {"answer": "softmax"} if procedure.method == "softmax" else {"alpha": procedure.alpha}
    return prepare_attack(AttackConfig.parse({
        **options, **_sampling_options(identity, asked), **bounds, **answer, "m": attack.m, "steps": attack.steps,
        "n": procedure.n if isinstance(procedure.n, list) else [procedure.n],
        "attack": find_part("attack", asked.attack, attack.name, ATTACKS),
        "attack_option": attack.options, "target": attack.target, "only_right": attack.only_right,
        "save_adversaries": attack.adversaries}))


def _rebuild_distributional(identity: Identity, options: dict[str, Any], asked: VerifyConfig) -> Run:
    run, procedure = identity.distributional, identity.procedure
    proved = {} if run.ceiling is None else {"clip": run.ceiling, "n": procedure.n, "alpha": procedure.alpha}
    search = {"search_option": {name: run.search[name] for name in SEARCH}} if run.search else {}
    prices = {name: values for name, values in (("gamma", run.gamma), ("gamma_adv", run.gamma_adv)) if values}
    return prepare_distributional(DistributionalConfig.parse(
        {**options, **proved, **search, **prices, "loss": run.loss, "eps_equivalent": run.eps_equivalent}))


def _rebuild_outputs(identity: Identity, options: dict[str, Any], asked: VerifyConfig) -> Run:
    if identity.kind == "regression":
        own: dict[str, Any] = {"percentile": identity.regression.percentile, "radii": identity.regression.radii}
    else:
        own = {"n0": identity.procedure.raw["n0"], "threshold": identity.multi_label.threshold}
    return PREPARE[identity.kind](CertifyConfig.parse({
        **{name: value for name, value in options.items() if name not in OF_CLASSES}, **own, "task": identity.kind,
        "n": identity.procedure.n, "alpha": identity.procedure.alpha,
        "noise_format": identity.noise.format if identity.noise.format in NOISE_FORMATS else "auto"}))


_REBUILD: dict[str, Callable[[Identity, dict[str, Any], VerifyConfig], Run]] = {
    "certify": _rebuild_sampling, "predict": _rebuild_sampling, "attack": _rebuild_attack,
    "distributional": _rebuild_distributional, "multi-label": _rebuild_outputs,
    "regression": _rebuild_outputs,
}


def _options(readable: Readable, asked: VerifyConfig) -> dict[str, Any]:
    """Return the options that all runs have: model and machine as asked, images, noise and seed as the store says."""
    identity = readable.identity
    given = {name: getattr(asked, name) for name in (
        "model", "weights", "network", "model_option", "mean", "std", "trust", "denoiser", "walk_jump", "attractor",
        "front_option", "threads", "workers")}
    images = identity.images.at(np.arange(identity.images.count))
    if images is None:
        images = readable.store.column("index")[:: identity.records_per_image]
    return {**given, "model_id": identity.model.id, "output": identity.model.output,
            **data_options(readable.store, asked),
            "split": identity.data.split,
            "num_classes": identity.num_classes, "classes": asked.classes or readable.store.class_names,
            "indices": images.tolist(), "sigma": identity.noise.sigma,
            "noise": find_part("noise", asked.noise, identity.noise.kind, NOISES),
            "seed": identity.seed}


def _sampling_options(identity: Identity, asked: VerifyConfig) -> dict[str, Any]:
    """Return the options by which the run's votes were computed."""
    in_pixels, stream_format = identity.space == "pixels", identity.noise.format
    return {"engine": "plain" if identity.engine == "exact" else identity.engine,
            "space": "pixels" if in_pixels else "auto", "precision": identity.precision,
            "noise_format": stream_format if in_pixels and stream_format in NOISE_FORMATS else "auto",
            "batch_size": identity.batch_size or asked.batch_size}


def _check_same(readable: Readable, run: Run) -> None:
    """Raise IdentityError unless the run that was rebuilt is the store's, perhaps on another kind of device."""
    stored = {name: value for name, value in readable.identity.raw.items() if name != "recertified_from"}
    differing = without_unrecorded(differences(stored, run.identity.raw), stored)
    if "device" in differing:
        differing = {name: pair for name, pair in differing.items() if name not in ("device", "engine")}
    if differing:
        raise IdentityError(
            f"{readable.folder} cannot be drawn again from what was given, which differs in:\n"
            + "\n".join(f"  - {name}: the store has {there!r}, here it is {now!r}"
                        for name, (there, now) in differing.items())
            + "\nGive the run's own --model (with --network, --mean, --weights and --denoiser, if any) and --data "
              "(with --resize and --crop, if any), on the kind of device that it ran on.")


def _choose(readable: Readable, count: int) -> list[int]:
    content = [readable.identity.raw, [entry.sha256 for entry in readable.manifest.shards]]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
    random = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
    every = len(readable.positions)
    return sorted(readable.positions[random.choice(every, min(count, every), replace=False)].tolist())
