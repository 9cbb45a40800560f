"""The attack run: images under attack at every setting of a grid, then an answer for what became of them.

A unit of work is a part of `PART` images at one setting: attacked together, on one processor thread, with noise that
belongs to the image and other randomness that belongs to the unit. So records do not depend on resumes, workers,
threads or the batch size; a unit that was interrupted is attacked again.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from smoothcert.attacks import Attack, Stein, attack_images, build_attack, l2_norms
from smoothcert.data import ImageData
from smoothcert.draws import generator
from smoothcert.errors import InputError, ModelError, StoreError
from smoothcert.machine import pick_device
from smoothcert.noise import Noise, build_noise, open_stream
from smoothcert.progress import Progress, silent
from smoothcert.runs.attack_options import AttackConfig
from smoothcert.runs.attack_settings import CLEAN, Certificates, Setting, certificates_of, settings_of
from smoothcert.runs.attacked_images import like_store
from smoothcert.runs.fill import fill
from smoothcert.runs.gradients import fixed, repeatable
from smoothcert.runs.images import in_classes_of
from smoothcert.runs.prepare import Prepared, prepare, tallies
from smoothcert.runs.run import Done, Task
from smoothcert.smoothing.isolation import isolated
from smoothcert.smoothing.packing import Finished
from smoothcert.smoothing.protocols import evaluation
from smoothcert.smoothing.soft import predict_softly
from smoothcert.stats import Plan, predict_plan
from smoothcert.store.adversaries import list_adversaries, save_adversaries
from smoothcert.store.comparing import check_certificates
from smoothcert.store.records import Record
from smoothcert.store.store import Store, read_store

PART = 16
"""Images attacked together: part of the identity, since the last bits of a network's answers depend on the batch."""

NOISE_FORMAT = "sfc64-v1"
"""The format of the noise that an attack sees."""


@isolated()
def attack(config: AttackConfig, progress: Progress = silent) -> Store:
    """Attack the images of a data set, or what is left of them; the finished store.

    Raises:
        ModelError: a model without gradients under an attack that follows them; before any work.
        StoreError: `eps_from` or `certified` is no certify store of this model, sigma and these images.
    """
    run = prepare_attack(config)
    run.try_out()
    store = fill(run, progress)
    if config.save_adversaries:
        list_adversaries(config.out, run.files())
    return store


def prepare_attack(config: AttackConfig) -> "AttackRun":
    """Load and check everything that the options name."""
    found = None if config.eps_from is None else read_store(config.eps_from)
    if found is not None:
        config = like_store(config, found)
    certificates = None if found is None else certificates_of(found, config.only_right)
    if config.answer == "softmax":
        config = config.model_copy(update={"engine": "plain", "space": "pixels"})
    settings = settings_of(config)
    run = prepare(config, partial(_plan, config), partial(_attackable, config, certificates), len(settings))
    if found is not None:
        _check(found, run, "eps-from")
    if config.certified is not None:
        _check(read_store(config.certified), run, "the comparison with certified accuracy")
    return AttackRun(run, cast(AttackConfig, run.config), settings, certificates, pick_device(config.device))


@dataclass(frozen=True, eq=False)
class AttackRun:
    """An attack that is ready to run (see `work.Run`): each image has a record for every setting, in their order."""

    base: Prepared
    config: AttackConfig
    settings: tuple[Setting, ...]
    certificates: Certificates | None
    device: torch.device

    @property
    def identity(self) -> dict[str, Any]:
        told = {
            "name": self.config.attack, "options": _options(self._attack(1.0, 1)),
            "eps" if self.certificates is None else "times": list(self.config.sizes), "m": list(self.config.m),
            "steps": list(self.config.steps), "target": self.config.target, "noise_format": NOISE_FORMAT,
            "part": PART, "adversaries": self.config.save_adversaries,
        }
        if self.certificates is not None:
            told["certificates"] = self.certificates.digest(self.base.indices)
            told |= {"only_right": True} if self.config.only_right else {}
        answered = {"procedure": {"method": "softmax", "n": self.most}} if self.config.answer == "softmax" else {}
        return {**self.base.identity, "kind": "attack", "records_per_image": len(self.settings), "attack": told,
                **answered}

    @property
    def told(self) -> dict[str, Any]:
        return self.base.told

    @property
    def most(self) -> int:
        return self.base.most

    @property
    def reopen(self) -> Callable[[], "AttackRun"]:
        return partial(prepare_attack, self.config)

    def tasks(self, pending: Sequence[int]) -> list[Task]:
        units: dict[tuple[int, int], list[int]] = {}
        for position in pending:
            units.setdefault(self._unit(position), []).append(position)
        return [tuple(positions) for positions in units.values()]

    def records(self, tasks: Iterable[Task]) -> Iterator[Done]:
        for task in tasks:
            yield from self._judged(task)

    def try_out(self) -> None:
        """Raise ModelError, before any work, where the attack cannot follow the model's gradients."""
        if isinstance(self._attack(1.0, 1), Stein):
            return
        images, classes = self._images([0])
        try:
            self._moved(Setting(1.0, 1, 1), images, classes, torch.ones(1, dtype=torch.float64), [0])
        except RuntimeError as error:
            raise ModelError(
                f"the attack {self.config.attack} follows gradients, and none can be taken through this model "
                f"({error}): take the attack stein, which needs only answers") from error

    def files(self) -> dict[str, dict[str, Any]]:
        """The files of attacked images that the run leaves, with their settings."""
        size = "eps" if self.certificates is None else "times"
        return {_name(part, k): {size: setting.size, "m": setting.m, "steps": setting.steps}
                for k, setting in enumerate(self.settings) if setting != CLEAN
                for part in range(-(-len(self.base.indices) // PART))}

    def _judged(self, task: Task) -> Iterator[Done]:
        """Attack a unit, and answer all of it: in reduced precision too, answers do not depend on what is pending."""
        started = time.perf_counter()
        part, k = self._unit(task[0])
        setting = self.settings[k]
        members = list(range(part * PART, min((part + 1) * PART, len(self.base.indices))))
        index = self.base.indices[members]
        images, classes = self._images(members)
        eps = self._eps(setting, members)
        moved = images if setting == CLEAN else self._moved(setting, images, classes, torch.from_numpy(eps), members)
        norms = _norms(images, moved)
        answered = moved.cpu().numpy()
        if self.config.save_adversaries and setting != CLEAN:
            save_adversaries(self.config.out, _name(part, k), index, answered)
        seconds = (time.perf_counter() - started) / len(members)
        for done in self._answered(answered, index.tolist()):
            position = members[done.tag] * len(self.settings) + k
            if position in task:
                values = {**self._values(setting, float(eps[done.tag])), "attacked": int(classes[done.tag]),
                          "l2": norms[done.tag][0], "linf": norms[done.tag][1]}
                yield position, self._record(int(index[done.tag]), done, values), done.seconds + seconds

    def _answered(self, images: np.ndarray, keys: list[int]) -> Iterator[Finished]:
        """Answers for images (B, C, H, W), each tagged by its place."""
        if self.config.answer == "votes":
            yield from self.base.answered(zip(range(len(images)), images, keys, strict=True))
            return
        seed, told = int(self.base.identity["seed"]), self.base.identity["noise"]
        noise = build_noise(self.config.noise, told["sigma"], self.base.data.levels)
        model = fixed(self.base.model, generator(self.device, seed, "answer", keys[0]))
        with repeatable(), evaluation(self.base.model):
            yield from predict_softly(model, images, keys, noise, told["format"], self.most,
                                      self.base.data.num_classes, seed=seed, device=self.device)

    def _record(self, index: int, done: Finished, values: dict[str, Any]) -> Record:
        return Record(index, int(self.base.data.labels[index]), done.prediction, {**values, **done.values},
                      done.off_grid, tallies(done))

    def _values(self, setting: Setting, eps: float) -> dict[str, Any]:
        times = None if self.certificates is None else setting.size
        return {"eps": eps, "times": times, "m": setting.m, "steps": setting.steps}

    def _unit(self, position: int) -> tuple[int, int]:
        """(part of the list of images, number of the setting) that a record belongs to."""
        image, setting = divmod(position, len(self.settings))
        return image // PART, setting

    def _images(self, members: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and the classes (B,) that the attack is told, on the device."""
        index = self.base.indices[list(members)]
        if self.config.target is not None:
            classes = np.full(len(index), self.config.target)
        else:
            classes = self.base.data.labels[index] if self.certificates is None else self.certificates.classes(index)
        return (torch.from_numpy(self.base.data.batch(index)).to(self.device),
                torch.from_numpy(np.asarray(classes, dtype=np.int64)).to(self.device))

    def _eps(self, setting: Setting, members: Sequence[int]) -> np.ndarray:
        """(B,) float64: the bound on each perturbation."""
        if self.certificates is None:
            return np.full(len(members), setting.size)
        return setting.size * self.certificates.radii(self.base.indices[list(members)])

    def _attack(self, eps: float, steps: int) -> Attack:
        return build_attack(self.config.attack, eps=eps, steps=steps, **self.config.attack_option)

    def _moved(
        self, setting: Setting, images: Tensor, classes: Tensor, eps: Tensor, members: Sequence[int]
    ) -> Tensor:
        """The attacked images (B, C, H, W)."""
        seed = int(self.base.identity["seed"])
        random = generator(self.device, seed, "attack", members[0], *asdict(setting).values())
        noise = self._noise(setting.m, members, seed).to(self.device) if setting.m else None
        with repeatable():
            return attack_images(self._attack(float(eps.max()), setting.steps), fixed(self.base.model, random), images,
                                 classes, noise, generator=random, eps=eps, targeted=self.config.target is not None)

    def _noise(self, m: int, members: Sequence[int], seed: int) -> Tensor:
        """(B, m, C, H, W): positions 0 to m - 1 of each image's stream `attack`, times sigma."""
        shape = self.base.data.shape
        noise = np.empty((len(members), m, int(np.prod(shape))), dtype=np.float32)
        for copies, index in zip(noise, self.base.indices[list(members)].tolist(), strict=True):
            open_stream(NOISE_FORMAT, seed, index, "attack", copies.shape[1]).fill(copies)
        noise *= np.float32(self.base.identity["noise"]["sigma"])
        return torch.from_numpy(noise).unflatten(2, shape)


def _plan(config: AttackConfig, noise: Noise) -> Plan:
    return predict_plan(config.alpha, config.n)


def _attackable(
    config: AttackConfig, certificates: Certificates | None, data: ImageData, indices: np.ndarray
) -> np.ndarray:
    """Return the indices without the images that have no certificate to attack, or that are of the class wanted; and,
    where max_images is to choose, without those that the store beside it lacks."""
    if config.target is not None and config.target >= data.num_classes:
        raise InputError(f"target must be a class of the data set, 0 to {data.num_classes - 1}, got {config.target}")
    if certificates is not None:
        indices = indices[np.isin(indices, certificates.index)]
    if config.certified is not None and config.max_images is not None:
        indices = indices[np.isin(indices, read_store(config.certified).column("index"))]
    if config.target is not None:
        indices = indices[data.labels[indices] != config.target]
    if not len(indices):
        store = config.eps_from or config.certified
        raise InputError("no image is left to attack: " + (
            f"none of those selected is certified{' and right' * config.only_right} in {store}" if store else
            f"all those selected are of class {config.target}, the target"))
    return indices


def _check(store: Store, run: Prepared, wanted: str) -> None:
    """Raise an error unless the store's certificates are of this run's classifier and images, byte for byte."""
    check_certificates(store, run.identity, run.indices, wanted)
    theirs = in_classes_of(store, run.data, f"{wanted} needs certificates of the images to be attacked")
    if not np.array_equal(theirs.labels, run.data.labels):
        raise StoreError(f"{store.folder} has its classes in the order {', '.join(theirs.class_names)}, and this run "
                         f"in the order {', '.join(run.data.class_names)}, of one model: {wanted} needs the same "
                         f"order; give --classes or --numeric-classes as there")


def _norms(images: Tensor, moved: Tensor) -> list[tuple[float, float]]:
    """(l2, l_inf) norm of each perturbation."""
    delta = moved.double() - images.double()
    return list(zip(l2_norms(delta).tolist(), delta.abs().flatten(1).amax(dim=1).tolist(), strict=True))


def _options(attack: Any) -> dict[str, Any]:
    """All options of an attack but its size, those left at their defaults included."""
    return {name: value for name, value in asdict(attack).items() if name not in ("eps", "steps")}


def _name(part: int, setting: int) -> str:
    return f"{setting:03d}-{part:05d}"
