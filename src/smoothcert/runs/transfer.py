"""The run that carries certificates over from one base classifier to another: the looks of a finished store, and noisy
copies that the store's network and the other one both judge (see `smoothcert.stats.transfer`)."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Self

import numpy as np

from smoothcert.classifiers.classifier import Classifier, open_classifier
from smoothcert.data import ImageData
from smoothcert.errors import InputError, StoreError
from smoothcert.models import label_model
from smoothcert.noise import NOISES, identify_noise
from smoothcert.progress import Progress, count_passes, phase, reporting
from smoothcert.runs.certify import SamplingRun
from smoothcert.runs.executors import executor_of
from smoothcert.runs.inputs import Inputs, in_classes_of, model_title, open_inputs
from smoothcert.runs.reopen import data_options, find_part
from smoothcert.runs.run import Done, Task
from smoothcert.runs.transfer_options import TransferConfig
from smoothcert.smoothing import Sampling, evaluation, open_voter
from smoothcert.smoothing.pairs import PairVoter
from smoothcert.smoothing.precision import isolate
from smoothcert.smoothing.sampling import OpenVoter
from smoothcert.stats import History, plan_from
from smoothcert.stats.sequential import SEQUENTIAL_METHODS
from smoothcert.stats.transfer import PAIRED, Transfer, paired_looks, split, tally_pairs
from smoothcert.store.comparison import differences, without_unrecorded
from smoothcert.store.identity import Identity
from smoothcert.store.identity_parts import TransferSource
from smoothcert.store.recertify import check_certified
from smoothcert.store.records import Record, Tally
from smoothcert.store.store import Store, read_store

STAGE = "transfer"
"""The stage of the noise of the copies: none of it has chosen a class or bounded a probability of the original."""


@isolate()
def transfer(config: TransferConfig, progress: Progress | None = None, *, verbose: bool = False) -> Store:
    """Certify a base classifier by the store of another one, or what is left of it, and return the finished store.

    Args:
        progress, verbose: as for `certify`.
    Raises:
        StoreError: a store whose certificates cannot be transferred. InputError: other data, noise, sigma or classes
            than the store's, an `original` that is not its network, or a model that is.
    """
    with reporting(progress, verbose):
        run = prepare_transfer(config)
        return run.fill(executor_of(run.config))


@dataclass(frozen=True, eq=False)
class Original:
    """The certified run of the original network.

    Attributes:
        store: a store that holds its looks: its own, or one that was transferred from it.
        told: what the identity of a transfer says of it.
        procedure: by which its looks were taken.
    """

    store: Store
    told: TransferSource
    procedure: dict[str, Any]

    @classmethod
    def of(cls, store: Store) -> Self:
        """Return the run of a certify store. Raises StoreError where it cannot be transferred, which says why."""
        check_certified(store, "a transfer")
        identity = store.identity
        store.check_complete()
        if identity.model_or_none is None or identity.seed_or_none is None:
            raise StoreError(f"{store.folder} does not say of which model it is: a transfer needs the store of a "
                             f"`smoothcert certify` run")
        if identity.transferred_from is not None:
            raise StoreError(f"{store.folder} was itself transferred: give the store that it was made from")
        if identity.recertified_from is not None and identity.procedure.design != "fixed":
            raise StoreError(f"{store.folder} was certified again from the counts of another store: its looks were "
                             f"taken by that one's procedure, so give that store (and alpha or method here)")
        names = ("model", "seed", "space", "engine", "precision", "device", "batch_size", "input_dtype", "walk_format",
                 "runtime", "folded")
        told = {"digest": identity.digest, **{name: identity.raw[name] for name in names if name in identity.raw}}
        return cls(store, TransferSource.model_validate(told), identity.procedure.raw)

    @cached_property
    def rows(self) -> dict[int, int]:
        """The row of each image in the store."""
        return {index: row for row, index in enumerate(self.store.column("index").tolist())}

    def looks(self, index: int) -> History:
        """Return the looks of its run at an image."""
        return split(self.store.histories(self.rows[index], 1)[0])[0]

    def keep(self, asked: tuple[int, ...] | None, data: ImageData, indices: np.ndarray) -> np.ndarray:
        """Return the images, of those at `indices`, that the store certified. Raises InputError where one that was
        asked for by its index, or all, are missing."""
        in_classes_of(self.store, data, "give the data of the store")
        known = np.isin(indices, list(self.rows))
        if not known.any() or (asked is not None and not known.all()):
            raise InputError(f"image {indices[~known][0]} is not in {self.store.folder}: choose among the "
                             f"{len(self.rows)} images that it certified")
        return indices[known]

    def complete(self, config: TransferConfig) -> TransferConfig:
        """Return the options with what they leave out as the store has it. Raises InputError where they contradict it.
        """
        identity = self.store.identity
        for name, value in (("sigma", identity.noise.sigma), ("num_classes", identity.num_classes)):
            if getattr(config, name) not in (None, value):
                raise InputError(f"{name} is {getattr(config, name):g}, but {self.store.folder} has {value:g}, and "
                                 f"certificates hold for its own: leave {name.replace('_', '-')} out")
        if config.device not in ("auto", identity.device):
            raise InputError(f"{self.store.folder} was made on {identity.device}, where its network has to run again: "
                             f"leave device out")
        changes = {
            "sigma": identity.noise.sigma, "num_classes": identity.num_classes, "space": "pixels",
            "device": identity.device, "seed": self.told.seed if config.seed is None else config.seed,
            "noise": find_part("noise", config.noise, identity.noise.kind, NOISES),
            "classes": config.classes or self.store.class_names, **data_options(self.store, config),
            "split": config.split or identity.data.split}
        return config.model_copy(update=changes)


def prepare_transfer(config: TransferConfig, original: Original | None = None) -> "TransferRun":
    """Load and check everything that the options name.

    Args:
        original: the run to transfer from; None reads the store that the options name.
    """
    if original is None:
        original = Original.of(config.store if isinstance(config.store, Store) else read_store(config.store))
    config = original.complete(config)
    inputs = open_inputs(config, partial(original.keep, config.indices))
    stored, noise = original.store.identity, inputs.noise
    found = {name: value for name, value in stored.noise.raw.items() if name != "format"}
    if fields := differences(found, identify_noise(noise, config.noise)):
        raise InputError(f"the noise is another one than that of {original.store.folder} (they differ in "
                         f"{', '.join(fields)}): leave noise out, or give the store's own")
    classifier = _open_original(config, original, inputs)
    engine = inputs.stored.engine if config.engine == "auto" and inputs.stored else config.engine
    noise_format = inputs.noise_format(config.noise_format)
    how = Sampling("plain" if engine == "exact" else engine, "pixels", config.precision, noise_format,
                   config.batch_size, inputs.device, config.n * len(inputs.indices))
    told = original.told
    first = Sampling("plain" if told.engine == "exact" else told.engine or "plain", "pixels",
                     told.precision or "float32", noise_format, told.batch_size, inputs.device, how.samples)
    with phase("preparing to sample"):
        pair = [open_voter(one.model, noise, inputs.data.num_classes, inputs.data.shape, inputs.seed, None, sampling,
                           one.conduct, inputs.data.bounds)
                for one, sampling in ((classifier, first), (inputs.classifier, how))]
    _check_networks(config, original, inputs, pair)
    procedure = original.procedure
    margin = procedure.get("margin")
    plan = Transfer(
        source=plan_from("certify", procedure, partial(noise.radius, margin=margin)),  # type: ignore[arg-type]
        n=config.n, share=config.share, method=config.method or _method_of(procedure), margin=margin,
        alpha=procedure["alpha"] if config.alpha is None else config.alpha,
        radius_of=partial(noise.radius, margin=margin))
    ready = pair[1]
    identity = Identity.parse({
        "kind": plan.kind, **inputs.identity, "procedure": plan.identity(),
        "noise": {**identify_noise(noise, config.noise), "format": ready.voter.format},
        **ready.identity(config.precision, inputs.device), **({} if noise.norm == "l2" else {"norm": noise.norm}),
        "transferred_from": told.raw})
    name = model_title(config.model if config.original is None else config.original)
    return TransferRun(
        config=inputs.resolve(config, engine=ready.engine, noise_format=noise_format), identity=identity,
        most_samples=2 * plan.n, exact=False, provenance={**inputs.provenance(config), "original": name},
        source=inputs.source, data=inputs.data, indices=inputs.indices, plan=plan,
        voter=PairVoter(pair[0].voter, pair[1].voter),  # type: ignore[arg-type]
        model=inputs.classifier.model, plan_for=lambda *_: plan, original=original, original_model=classifier.model)


def _method_of(procedure: dict[str, Any]) -> str:
    return procedure["method"] if procedure["method"] in SEQUENTIAL_METHODS else "two-sided"


def _open_original(config: TransferConfig, original: Original, inputs: Inputs) -> Classifier:
    """Return the network of the store. Raises InputError where what the options name is another one."""
    asked, told = config.original_model(), original.told
    if config.original is None and not config.original_option:
        classifier = inputs.classifier
    else:
        with phase("loading the original model"):
            classifier = open_classifier(
                asked, inputs.data.shape, inputs.data.num_classes, classes=config.classes, model_id=told.model.id,
                device=inputs.device, sigma=inputs.noise.sigma, bounds=inputs.data.bounds, front=asked,
                output=told.model.output, runtime=told.model.runtime and told.model.runtime.name)
    found = differences({"model": told.model.raw}, {"model": classifier.identity})
    if told.model.by == "id":
        found = without_unrecorded(found, {"model": told.model.raw})
    if found:
        here = classifier.identity
        advice = "name the store's network by original" if config.original is None else "give the store's own network"
        raise InputError(
            f"{label_model(asked.model)} is not the network of {original.store.folder}, which has to judge the same "
            f"noisy copies: that one is known by {told.model.by} {(told.model.sha256 or told.model.id or '')[:12]}, "
            f"this one by {here['by']} {(here.get('sha256') or here.get('id') or '')[:12]}: {advice}")
    return classifier


def _check_networks(config: TransferConfig, original: Original, inputs: Inputs, pair: list[OpenVoter]) -> None:
    """Raise InputError unless the first voter computes as the store's did, and the second is another classifier."""
    told = original.told
    precision = told.precision or "float32"
    first, second = pair[0].identity(precision, inputs.device), pair[1].identity(config.precision, inputs.device)
    decided = ("engine", "batch_size", "runtime", "folded") if precision != "float32" else ("batch_size",)
    if other := [name for name in decided if told.raw.get(name) != first.get(name)]:
        raise InputError(f"the network of {original.store.folder} was computed in {precision} with "
                         + ", ".join(f"{name} {told.raw.get(name)}" for name in other) + ", which cannot be had here")
    same = [name for name in ("precision", "batch_size", "input_dtype", "runtime", "engine")
            if name != "engine" or precision != "float32"]
    if not differences({"model": told.model.raw}, {"model": inputs.classifier.identity}) and all(
            first.get(name) == second.get(name) for name in same):
        raise InputError(f"{label_model(config.model)} is the network of {original.store.folder} itself, in the same "
                         f"precision: its certificates are there already; give another model, or another precision")


@dataclass(frozen=True, eq=False, kw_only=True)
class TransferRun(SamplingRun):
    """A transfer that is ready to run: each image is a task, and has one record."""

    networks = ("voter", "model", "original_model")

    config: TransferConfig
    plan: Transfer
    voter: PairVoter
    original: Original
    original_model: Any

    def reopen(self) -> Callable[[], "TransferRun"]:
        own = None if self.original.store.identity.transferred_from is None else self.original
        return partial(prepare_transfer, self.config, own)

    def records(self, tasks: Iterable[Task]) -> Iterator[Done]:
        with evaluation(self.original_model), evaluation(self.model):
            for position, in tasks:
                started = time.perf_counter()
                record = self._record(int(self.indices[position]))
                yield position, record, time.perf_counter() - started

    def passes(self, position: int, record: Record | None = None) -> int:
        """Return the forward passes of both networks together."""
        drawn = record is None or any(tally.stage in PAIRED for tally in record.tallies)
        return self.most_samples if drawn else 0

    def measure(self, most: int) -> float | None:
        with evaluation(self.original_model):
            rate = super().measure(most // 2)
        return None if rate is None else 2 * rate

    def _record(self, index: int) -> Record:
        history = self.original.looks(index)
        subject = self.voter.subject(self.data.image(index), index)
        if self.plan.could_certify([history])[0]:
            chosen, counts = int(self.plan.choose([history])[0]), np.int64(0)
            size = self.voter.capacity or self.plan.n
            for start in range(0, self.plan.n, size):
                n = min(size, self.plan.n - start)
                first, second = self.voter.judge(subject, STAGE, start, n)
                counts = counts + tally_pairs(first, second, chosen, self.data.num_classes)
                count_passes(2 * n)
            history = [*history, *paired_looks(chosen, np.asarray(counts))]
        answers = self.plan.judge([history])
        return Record(index, int(self.data.labels[index]), int(answers.prediction[0]),
                      {name: float(values[0]) for name, values in answers.values.items()},
                      subject.centre.off_grid, [Tally.of(look.stage, look.counts) for look in history])
