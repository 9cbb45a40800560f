"""Stores on this machine: what is written is read back, and what was damaged is refused."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from smoothcert.errors import SmoothcertError
from smoothcert.noise import build_noise
from smoothcert.selftest.finding import Finding, Planned
from smoothcert.stats import FixedCertify
from smoothcert.store.identity import Identity
from smoothcert.store.records import Record, Tally
from smoothcert.store.store import read_store, write_store

_RECORDS = 300  # two shards
_CLASSES = 10


def plan_checks() -> list[Planned]:
    """The checks of this group."""
    return [Planned.fixed("storage", "records come back as they were written", check_round_trip),
            Planned.fixed("storage", "damaged shards are refused", check_damage)]


def records() -> list[Record]:
    """Records of every kind of value: abstentions, radii of full precision, votes of one class and of all."""
    rng, made = np.random.default_rng(0), []
    for index in range(_RECORDS):
        select, estimate = rng.multinomial(100, np.ones(10) / 10), rng.multinomial(10**9, np.eye(10)[index % 10])
        values = {"radius": float(rng.random()) * 10.0 ** -int(rng.integers(0, 300))}
        tallies = [Tally.of("select", select), Tally.of("estimate", estimate)]
        made.append(Record(index, index % 10, index % 11 - 1, values, index % 3 == 0, tallies))
    return made


def check_round_trip() -> Finding:
    """All values, to the last bit."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder))
        store = read_store(Path(folder))
        found = [Record.from_row(row) for row in store.records.to_pylist()]
    wrong = sum(one != other for one, other in zip(found, records(), strict=True))
    return Finding(wrong == 0 and store.complete, f"{wrong} of {_RECORDS} differ", "0")


def check_damage() -> Finding:
    """A bit flipped, a byte lost, a shard gone: an error of ours, never an answer. The whole store is taken."""
    if _is_refused(lambda shard: None):
        return Finding(False, "a store without damage is refused")
    taken = [name for name, damage in _DAMAGES.items() if not _is_refused(damage)]
    return Finding(not taken, f"of {len(_DAMAGES)} kinds of damage {', '.join(taken) or 'none'} went unseen", "none")


def _is_refused(damage: Callable[[Path], object]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder))
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


def _write(folder: Path) -> None:
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
