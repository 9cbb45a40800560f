"""Records of a store drawn again from the seeds it tells, to be compared with what it holds."""

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from smoothcert.config.sampling import SamplingConfig
from smoothcert.data.load import KNOWN_SPECS
from smoothcert.errors import IdentityError, InputError
from smoothcert.io.files import make_folder
from smoothcert.progress import Progress
from smoothcert.runs.attack import prepare_attack
from smoothcert.runs.attack_options import AttackConfig
from smoothcert.runs.distributional import prepare_distributional
from smoothcert.runs.distributional_options import SEARCH, DistributionalConfig
from smoothcert.runs.fill import records_of
from smoothcert.runs.options import PredictConfig
from smoothcert.runs.prepare import prepare
from smoothcert.runs.run import Run
from smoothcert.stats import is_same
from smoothcert.store.manifest import images_at, new_manifest, write_manifest
from smoothcert.store.provenance import provenance
from smoothcert.store.recertify import stored_plan
from smoothcert.store.records import Record
from smoothcert.store.sameness import differences, without_unrecorded
from smoothcert.verify.files import Check, Readable
from smoothcert.verify.options import VerifyConfig

_FORMATS = ("sfc64-v1", "philox-v1")
_ORIGINS = {"recertified_from": "certified again from the counts of another store",
            "counted_from": "made from the counts of a certify store"}


def resampled(readable: Readable, config: VerifyConfig, progress: Progress) -> Check:
    """Draw `config.resample` records again and compare them with the stored ones, value by value.

    Which ones is a number drawn from the hash of the identity and of all shards: the same each time, and not to be
    foreseen by who changes a record.

    Raises:
        IdentityError: model, data or machine are not the run's, all differences named.
        InputError: a store whose looks were taken by another store's procedure.
    """
    with TemporaryDirectory() as folder:
        run = _rebuilt(readable, config, Path(folder) / "store")
        _check_same(readable, run)
        _claim(Path(folder) / "store", readable.identity)
        chosen = _chosen(readable, config.resample or 0)
        rows = dict(zip(readable.positions.tolist(), range(len(readable.positions)), strict=True))
        problems: list[str] = []
        for done, (position, record, _) in enumerate(records_of(run, chosen), start=1):
            stored = Record.from_row(readable.table.slice(rows[position], 1).to_pylist()[0])
            problems += _differences(f"record {position} (image {stored.index})", stored.row(), record.row(),
                                     readable.identity["noise"]["sigma"])
            progress(done, len(chosen), "sampling again")
        problems += _other_files(readable, Path(folder) / "store")
    versions, here = readable.manifest["provenance"].get("versions", {}), provenance()["versions"]
    if problems:
        others = "another kind of processor than the run's" if versions == here else (
            f"made with {_listed(versions)}; here {_listed(here)}: other versions, or another kind of processor,")
        problems.append(f"{others} may round near ties and gradients otherwise")
    return Check("resampled", f"{len(chosen)} records drawn again, equal in every vote and value" if not problems else
                 f"{len(chosen)} records drawn again", tuple(problems))


def _claim(folder: Path, identity: dict[str, Any]) -> None:
    """Make the folder a store, which is where attacked images may be kept."""
    make_folder(folder)
    write_manifest(folder, new_manifest(identity, {}))


def _rebuilt(readable: Readable, config: VerifyConfig, out: Path) -> Run:
    """The run of a store, ready to work, which writes to `out` if anywhere."""
    identity = readable.identity
    for name, words in _ORIGINS.items():
        if name in identity and (name == "counted_from" or "design" in identity["procedure"]):
            raise InputError(f"{readable.folder} was {words}: its looks were taken by that one's procedure, so give "
                             f"that store to resample")
    if missing := [name for name in ("model", "data", "seed") if identity.get(name) in (None, {})]:
        raise InputError(f"{readable.folder} does not say its {' and '.join(missing)}: it cannot be drawn again")
    return _RUNS[identity["kind"]](identity, {**_options(readable, config), "out": out}, config)


def _sampling(identity: dict[str, Any], options: dict[str, Any], asked: VerifyConfig) -> Run:
    given = {**options, **_computing(identity, asked)}
    if "adversaries" in identity:
        if asked.adversaries is None:
            raise InputError("adversaries: this store predicts attacked images: give the attack store that kept them")
        setting = {name: value for name, value in identity["adversaries"].items() if name != "attack"}
        given = {**given, "adversaries": asked.adversaries, "setting": setting}
    config = (PredictConfig if "adversaries" in identity else SamplingConfig).checked(given)
    return prepare(config, partial(stored_plan, identity))


def _attack(identity: dict[str, Any], options: dict[str, Any], asked: VerifyConfig) -> Run:
    told, procedure = identity["attack"], identity["procedure"]
    bounds = {"eps": told["eps"]} if "eps" in told else {"times": told["times"], "eps_from": asked.eps_from}
    if "times" in told and asked.eps_from is None:
        raise InputError("eps-from: this store attacks at multiples of certified radii: give the certify store that "
                         "they are from")
    n = procedure["n"]
    settled = {"answer": "softmax"} if procedure["method"] == "softmax" else {"alpha": procedure["alpha"]}
    return prepare_attack(AttackConfig.checked({
        **options, **_computing(identity, asked), **bounds, **settled, "m": told["m"], "steps": told["steps"],
        "n": n if isinstance(n, list) else [n], "attack": told["name"], "attack_option": told["options"],
        "target": told["target"], "only_right": told.get("only_right", False),
        "save_adversaries": told["adversaries"]}))


def _distributional(identity: dict[str, Any], options: dict[str, Any], asked: VerifyConfig) -> Run:
    told, procedure = identity["distributional"], identity["procedure"]
    proved = {} if told["ceiling"] is None else {"clip": told["ceiling"], "n": procedure["n"],
                                                 "alpha": procedure["alpha"]}
    search = {"search_option": {name: told["search"][name] for name in SEARCH}} if told["search"] else {}
    prices = {name: told[name] for name in ("gamma", "gamma_adv") if told[name]}
    return prepare_distributional(DistributionalConfig.checked(
        {**options, **proved, **search, **prices, "loss": told["loss"],
         "eps_equivalent": told.get("eps_equivalent", False)}))


_RUNS: dict[str, Callable[[dict[str, Any], dict[str, Any], VerifyConfig], Run]] = {
    "certify": _sampling, "predict": _sampling, "attack": _attack, "distributional": _distributional,
}


def _options(readable: Readable, asked: VerifyConfig) -> dict[str, Any]:
    """What all runs are told: of model and machine what was asked, of images, noise and seed what the store says."""
    identity = readable.identity
    given = {name: getattr(asked, name) for name in (
        "model", "weights", "trust", "denoiser", "walk_jump", "attractor", "front_option", "data_dir", "resize", "crop",
        "numeric_classes", "threads", "workers")}
    name = identity["data"]["name"]
    images = images_at(identity, np.arange(identity["images"]["count"]))
    if images is None:
        images = readable.store.column("index")[:: identity.get("records_per_image", 1)]
    model = identity["model"]
    return {**given, "model_id": model.get("id"), "output": model.get("output"),
            "data": asked.data or (name if name in KNOWN_SPECS else None), "split": identity["data"]["split"],
            "num_classes": identity["num_classes"], "classes": asked.classes or readable.store.class_names,
            "indices": images.tolist(), "sigma": identity["noise"]["sigma"], "noise": identity["noise"]["kind"],
            "seed": identity["seed"], "device": identity["device"]}


def _computing(identity: dict[str, Any], asked: VerifyConfig) -> dict[str, Any]:
    """How votes were computed."""
    in_pixels, told = identity["space"] == "pixels", identity["noise"]["format"]
    return {"engine": "plain" if identity["engine"] == "exact" else identity["engine"],
            "space": "pixels" if in_pixels else "auto", "precision": identity["precision"],
            "noise_format": told if in_pixels and told in _FORMATS else "auto",
            "batch_size": identity.get("batch_size", asked.batch_size)}


def _check_same(readable: Readable, run: Run) -> None:
    """Raise IdentityError unless the run that was rebuilt is the store's."""
    here = json.loads(json.dumps(run.identity))
    stored = {name: value for name, value in readable.identity.items() if name != "recertified_from"}
    if differing := without_unrecorded(differences(stored, here), stored):
        raise IdentityError(
            f"{readable.folder} cannot be drawn again from what was given, which differs in:\n"
            + "\n".join(f"  - {name}: the store has {there!r}, here it is {now!r}"
                        for name, (there, now) in differing.items())
            + "\nGive the run's own --model (with --weights and --denoiser, if any) and --data (with --resize and "
              "--crop, if any), on the kind of device that it ran on.")


def _chosen(readable: Readable, count: int) -> list[int]:
    told = [readable.identity, [shard["sha256"] for shard in readable.manifest["shards"]]]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).digest()
    random = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
    every = len(readable.positions)
    return sorted(readable.positions[random.choice(every, min(count, every), replace=False)].tolist())


def _differences(name: str, stored: dict[str, Any], again: dict[str, Any], sigma: float) -> Iterator[str]:
    for key, value in stored.items():
        if not is_same(key, value, again.get(key), sigma):
            yield f"{name}: {key} is {value}, and drawn again {again.get(key)}"


def _other_files(readable: Readable, again: Path) -> Iterator[str]:
    """Files of attacked images that came out otherwise than those kept."""
    for path in sorted(again.glob("adversaries/*")):
        kept = readable.folder / "adversaries" / path.name
        if kept.is_file() and kept.read_bytes() != path.read_bytes():
            yield f"{kept} holds other images than were found again"


def _listed(versions: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or "unknown versions"
