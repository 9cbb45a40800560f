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

from smoothcert.attacks import ATTACKS, PASSES, Stein, attack_images, l2_norms
from smoothcert.data import ImageData
from smoothcert.draws import generator
from smoothcert.errors import InputError, ModelError, StoreError
from smoothcert.machine import pick_device
from smoothcert.noise import Noise, open_stream
from smoothcert.progress import Progress, reporting
from smoothcert.runs.certify import SamplingRun, prepare_sampling
from smoothcert.runs.executors import executor_of
from smoothcert.runs.forecast import forecast_attacks
from smoothcert.runs.gradients import fix_normals
from smoothcert.runs.inputs import complete_from, in_classes_of, noise_for
from smoothcert.runs.options import AttackConfig
from smoothcert.runs.run import Done, Run, Task
from smoothcert.runs.settings import CLEAN, AttackSetting, CertifiedImages, list_attacks, read_certified
from smoothcert.smoothing.precision import isolate, repeatable
from smoothcert.smoothing.protocols import evaluation
from smoothcert.smoothing.soft import predict_softly
from smoothcert.smoothing.voters import Finished
from smoothcert.store.adversaries import list_adversaries, save_adversaries
from smoothcert.store.recertify import check_certificates
from smoothcert.store.records import Record
from smoothcert.store.store import Store, read_store

PART = 16
"""Images attacked together: part of the identity, since the last bits of a network's answers depend on the batch."""

NOISE_FORMAT = "sfc64-v1"
"""The format of the noise that an attack sees."""


@isolate()
def attack(config: AttackConfig, progress: Progress | None = None, *, verbose: bool = False) -> Store:
    """Attack the images of a data set, or what is left of them, and return the finished store.

    Args:
        progress, verbose: as for `certify`.
    Raises:
        ModelError: a model without gradients under an attack that follows them; before any work.
        StoreError: `eps_from` or `certified` is not a certify store of this model, sigma and these images.
    """
    with reporting(progress, verbose):
        run = prepare_attack(config)
        run.try_out()
        store = run.fill(executor_of(config))
    if config.save_adversaries:
        list_adversaries(config.out, run.files())
    return store


def prepare_attack(config: AttackConfig) -> "AttackRun":
    """Load and check everything that the options name."""
    found = None if config.eps_from is None else read_store(config.eps_from)
    if found is not None:
        config = complete_from(config, found)
    certificates = None if found is None else read_certified(found, config.only_right)
    if config.answer == "softmax":
        config = config.model_copy(update={"engine": "plain", "space": "pixels"})
    settings = list_attacks(config.sizes, config.m, config.steps)
    base = prepare_sampling(config, config.plan, partial(_attackable, config, certificates), len(settings))
    if found is not None:
        _check_certificates(found, base, "eps-from")
    if config.certified is not None:
        _check_certificates(read_store(config.certified), base, "the comparison with certified accuracy")
    method = ATTACKS.find(config.attack)
    attack: dict[str, Any] = {
        "name": ATTACKS.label(config.attack), **ATTACKS.identify(config.attack),
        "options": {name: value for name, value in asdict(cast(Any, config.build_attack(1.0, 1, method))).items()
                    if name not in ("eps", "steps")},
        "eps" if certificates is None else "times": list(config.sizes), "m": list(config.m),
        "steps": list(config.steps), "target": config.target, "noise_format": NOISE_FORMAT,
        "part": PART, "adversaries": config.save_adversaries,
    }
    if certificates is not None:
        attack["certificates"] = certificates.digest(base.indices)
        attack |= {"only_right": True} if config.only_right else {}
    answer = {"procedure": {"method": "softmax", "n": base.most_samples}} if config.answer == "softmax" else {}
    identity = base.identity.replace(kind="attack", records_per_image=len(settings), attack=attack, **answer)
    return AttackRun(config=cast(AttackConfig, base.config), identity=identity, provenance=base.provenance,
                     source=base.source, most_samples=base.most_samples, exact=False, sample_cost=base.sample_cost,
                     base=base, settings=settings, certificates=certificates, device=pick_device(config.device),
                     method=method, noise=noise_for(base.data, config.noise, identity.noise.sigma))


@dataclass(frozen=True, eq=False, kw_only=True)
class AttackRun(Run):
    """An attack that is ready to run: each image has a record for every setting, in their order."""

    config: AttackConfig
    base: SamplingRun
    settings: tuple[AttackSetting, ...]
    certificates: CertifiedImages | None
    device: torch.device
    method: type
    noise: Noise

    def reopen(self) -> Callable[[], "AttackRun"]:
        return partial(prepare_attack, self.config)

    def release(self) -> None:
        self.base.release()

    def tasks(self, pending: Sequence[int]) -> list[Task]:
        units: dict[tuple[int, int], list[int]] = {}
        for position in pending:
            units.setdefault(self._unit(position), []).append(position)
        return [tuple(positions) for positions in units.values()]

    def records(self, tasks: Iterable[Task]) -> Iterator[Done]:
        for task in tasks:
            yield from self._attack_unit(task)

    @property
    def unit(self) -> str:
        return "attacks"

    def passes(self, position: int, record: Record | None = None) -> int:
        setting = self.settings[self._unit(position)[1]]
        moves = 0 if setting == CLEAN else PASSES * max(setting.m, 1) * setting.steps
        return moves + super().passes(position, record)

    def forecast(self, pending: Sequence[int]) -> Iterator[str]:
        return forecast_attacks(self, self.base, pending)

    def try_out(self) -> None:
        """Raise ModelError, before any work, where the attack cannot follow the model's gradients."""
        if issubclass(self.method, Stein):
            return
        images, classes = self._images([0])
        try:
            self._attack_images(AttackSetting(1.0, 1, 1), images, classes, torch.ones(1, dtype=torch.float64), [0])
        except RuntimeError as error:
            raise ModelError(
                f"the attack {self.config.attack} follows gradients, and none can be taken through this model "
                f"({error}): take the attack stein, which needs only answers") from error

    def files(self) -> dict[str, dict[str, Any]]:
        """Return the files of attacked images that the run leaves, with their settings."""
        size = "eps" if self.certificates is None else "times"
        return {_file_name(part, k): {size: setting.size, "m": setting.m, "steps": setting.steps}
                for k, setting in enumerate(self.settings) if setting != CLEAN
                for part in range(-(-len(self.base.indices) // PART))}

    def _attack_unit(self, task: Task) -> Iterator[Done]:
        """Attack a unit, and answer all of it: in reduced precision too, answers do not depend on what is pending."""
        started = time.perf_counter()
        part, k = self._unit(task[0])
        setting = self.settings[k]
        members = list(range(part * PART, min((part + 1) * PART, len(self.base.indices))))
        index = self.base.indices[members]
        images, classes = self._images(members)
        eps = np.full(len(members), setting.size)
        if self.certificates is not None:
            eps = setting.size * self.certificates.radii(index)
        moved = images if setting == CLEAN else self._attack_images(setting, images, classes, torch.from_numpy(eps),
                                                                    members)
        delta = moved.double() - images.double()
        l2, linf = l2_norms(delta).tolist(), delta.abs().flatten(1).amax(dim=1).tolist()
        pixels = moved.cpu().numpy()
        if self.config.save_adversaries and setting != CLEAN:
            save_adversaries(self.config.out, _file_name(part, k), index, pixels)
        seconds = (time.perf_counter() - started) / len(members)
        for done in self._answer(pixels, index.tolist()):
            position = members[done.tag] * len(self.settings) + k
            if position in task:
                values = {"eps": float(eps[done.tag]), "times": None if self.certificates is None else setting.size,
                          "m": setting.m, "steps": setting.steps, "attacked": int(classes[done.tag]),
                          "l2": l2[done.tag], "linf": linf[done.tag], **done.values}
                yield position, self.base.record(int(index[done.tag]), done, values), done.seconds + seconds

    def _answer(self, images: np.ndarray, keys: list[int]) -> Iterator[Finished]:
        """Yield an answer for each of the inputs (B, *shape), tagged by its place."""
        if self.config.answer == "votes":
            yield from self.base.answer(zip(range(len(images)), images, keys, strict=True))
            return
        identity = self.base.identity
        model = fix_normals(self.base.model, generator(self.device, identity.seed, "answer", keys[0]))
        with repeatable(), evaluation(self.base.model):
            yield from predict_softly(model, images, keys, self.noise, identity.noise.format, self.most_samples,
                                      self.base.data.num_classes, seed=identity.seed, device=self.device)

    def _unit(self, position: int) -> tuple[int, int]:
        """Return (part of the list of images, number of the setting) that a record belongs to."""
        image, setting = divmod(position, len(self.settings))
        return image // PART, setting

    def _images(self, members: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return inputs (B, *shape) and the classes (B,) that the attack is given, on the device."""
        index = self.base.indices[list(members)]
        if self.config.target is not None:
            classes = np.full(len(index), self.config.target)
        else:
            classes = self.base.data.labels[index] if self.certificates is None else self.certificates.classes(index)
        return (torch.from_numpy(self.base.data.batch(index)).to(self.device),
                torch.from_numpy(np.asarray(classes, dtype=np.int64)).to(self.device))

    def _attack_images(
        self, setting: AttackSetting, images: Tensor, classes: Tensor, eps: Tensor, members: Sequence[int]
    ) -> Tensor:
        """Return the attacked inputs (B, *shape)."""
        random = generator(self.device, self.base.identity.seed, "attack", members[0], *asdict(setting).values())
        noise = self._noise(setting.m, members).to(self.device) if setting.m else None
        with repeatable():
            return attack_images(self.config.build_attack(float(eps.max()), setting.steps, self.method),
                                 fix_normals(self.base.model, random), images, classes, noise, generator=random,
                                 eps=eps, targeted=self.config.target is not None, bounds=self.base.data.bounds)

    def _noise(self, m: int, members: Sequence[int]) -> Tensor:
        """Return (B, m, *shape): positions 0 to m - 1 of each image's stream `attack`, times sigma."""
        shape = self.base.data.shape
        noise = np.empty((len(members), m, int(np.prod(shape))), dtype=np.float32)
        for copies, index in zip(noise, self.base.indices[list(members)].tolist(), strict=True):
            open_stream(NOISE_FORMAT, self.base.identity.seed, index, "attack", copies.shape[1]).fill(copies)
        noise *= np.float32(self.base.identity.noise.sigma)
        return torch.from_numpy(noise).unflatten(2, shape)


def _attackable(
    config: AttackConfig, certificates: CertifiedImages | None, data: ImageData, indices: np.ndarray
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


def _check_certificates(store: Store, run: SamplingRun, wanted: str) -> None:
    """Raise an error unless the store's certificates are of this run's classifier and images, byte for byte."""
    check_certificates(store, run.identity, run.indices, wanted)
    theirs = in_classes_of(store, run.data, f"{wanted} needs certificates of the images to be attacked")
    if not np.array_equal(theirs.labels, run.data.labels):
        raise StoreError(f"{store.folder} has its classes in the order {', '.join(theirs.class_names)}, and this run "
                         f"in the order {', '.join(run.data.class_names)}, of one model: {wanted} needs the same "
                         f"order; give --classes or --numeric-classes as there")


def _file_name(part: int, setting: int) -> str:
    return f"{setting:03d}-{part:05d}"
