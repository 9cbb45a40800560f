"""Finished stores over the first digits, with votes made up instead of a network's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from smoothcert.data import load_data
from smoothcert.stats import certify_counts, predict_counts
from smoothcert.store import manifest as manifests
from smoothcert.store.records import Record, Tally
from smoothcert.store.store import write_store

DIGITS = load_data("digits")


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the content of a manifest, and give it a right hash again, as someone might who knows how."""
    path = folder / manifests.NAME
    content = json.loads(path.read_text())
    content.pop("sha256", None)
    change(content)
    path.write_text(json.dumps({**content, "sha256": manifests._seal(content)}))


def identity_of(kind: str, count: int, sigma: float, procedure: dict[str, Any], **changes) -> dict[str, Any]:
    """The identity of a store over the first `count` digits."""
    return {
        "kind": kind, "model": {"by": "module", "sha256": "ab" * 32}, "num_classes": 10,
        "data": {"name": "digits", "split": "test", "shape": [1, 8, 8],
                 "sha256": DIGITS.fingerprint(np.arange(count))},
        "images": {"count": count, "start": 0, "every": 1},
        "noise": {"kind": "grid", "format": "sfc64-v1", "sigma": sigma, "levels": 16, "exponent": 12, "reach": 1.0},
        "seed": 3, "procedure": {"alpha": 0.001, **procedure}, "space": "pixels", "engine": "eager",
        "precision": "float32", "device": "cpu", **changes,
    }


def made(folder: Path, sigma: float = 0.25, seed: int = 0, count: int = 60, right: float = 0, method: str = "cohen",
         off_grid: bool = False, told: dict[str, Any] | None = None, **changes) -> Path:
    """A store of 100 and 1000 votes an image, from class probabilities that favour the label the more, the larger
    `right`; `told` goes to its provenance, `changes` to its identity."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(10) / 8, count)
    p[np.arange(count), DIGITS.labels[:count]] += right
    p /= p.sum(axis=1, keepdims=True)
    select, estimate = rng.multinomial(100, p), rng.multinomial(1000, p)
    answers = certify_counts(select, estimate, sigma, 0.001, method)
    records = [Record(i, int(DIGITS.labels[i]), int(answers.prediction[i]), {"radius": float(answers.radius[i])},
                      off_grid, [Tally.of("select", select[i]), Tally.of("estimate", estimate[i])])
               for i in range(count)]
    procedure = {"method": method, "n0": 100, "n": 1000, "margin": None}
    write_store(folder, identity_of("certify", count, sigma, **{"procedure": procedure, **changes}),
                {"model": "m", "classes": list(DIGITS.class_names), **(told or {})}, records)
    return folder


def attacked(folder: Path, eps: tuple[float, ...] = (0.25, 0.5), count: int = 20) -> Path:
    """An attack store in which each eps costs the smoothed classifier some images."""
    records = []
    for i in range(count):
        for size in (0.0, *eps):
            counts = np.zeros(10, np.int64)
            counts[(int(DIGITS.labels[i]) + (i % 3 < size * 4)) % 10] = 100
            given = predict_counts(counts, 0.001)
            values = {"eps": size, "times": float("nan"), "m": 4 if size else 0, "steps": 8 if size else 0,
                      "attacked": int(DIGITS.labels[i]), "l2": size, "linf": size, "p_value": float(given.p_value)}
            records.append(Record(i, int(DIGITS.labels[i]), int(given.prediction), values, False,
                                  [Tally.of("predict", counts)]))
    told = {"name": "pgd", "options": {"norm": "l2"}, "eps": list(eps), "m": [4], "steps": [8], "target": None}
    write_store(folder, identity_of("attack", count, 0.25, {"method": "predict", "n": [100]}, attack=told,
                                    records_per_image=1 + len(eps)), {}, records)
    return folder
