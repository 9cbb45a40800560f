"""The distributional run: the loss of each image under noise, and where ascents at every gamma ended.

A record is an image's at one setting, computed by itself on one processor thread, with noise that belongs to the image
and other randomness that belongs to image and setting. So records do not depend on resumes, workers, threads, or on
which other images and gammas a run has. What they prove is computed from the store.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from smoothcert.distributional.losses import PointLoss, clipped_cross_entropy, cross_entropy, sample_losses
from smoothcert.distributional.search import Search, find_ends, judge, move_equivalently
from smoothcert.draws import generator
from smoothcert.errors import InputError, ModelError, StoreError
from smoothcert.io.paths import place
from smoothcert.noise import identify_noise
from smoothcert.progress import Progress, reporting
from smoothcert.runs.executors import executor_of
from smoothcert.runs.gradients import fix_normals
from smoothcert.runs.inputs import Inputs, open_inputs
from smoothcert.runs.options import DistributionalConfig
from smoothcert.runs.run import Done, Run, Task
from smoothcert.runs.settings import AscentSetting, find_standing, list_ascents
from smoothcert.smoothing.precision import isolate, repeatable
from smoothcert.smoothing.protocols import evaluation
from smoothcert.store.identity import Identity
from smoothcert.store.recertify import errors_in
from smoothcert.store.records import VALUES, Record
from smoothcert.store.store import Store, read_store, write_store


@isolate()
def distributional(
    config: DistributionalConfig, progress: Progress | None = None, *, verbose: bool = False
) -> Store:
    """Do what is left of the run over a model's images, and return the finished store; of a store, see `read_counted`.

    Args:
        progress, verbose: as for `certify`.
    Raises:
        ModelError: a model without gradients where there are gammas; before any work.
        StoreError: a store that is neither a certify nor a distributional store.
    """
    if config.of_store:
        return read_counted(config)
    with reporting(progress, verbose):
        run = prepare_distributional(config)
        run.try_out()
        return run.fill(executor_of(config))


def read_counted(config: DistributionalConfig) -> Store:
    """Read the store that the options name in place of a model; with `out`, keep its counts as a store of their own.

    Raises:
        StoreError: a store of another kind, or one whose counts do not serve. InputError: `out` with a distributional
            store.
    """
    store = read_store(place(config.model))
    if store.kind == "distributional":
        if config.out is not None:
            raise InputError(f"{store.folder} is a distributional store already: leave out, and it is read")
        return store
    errors_in(store)
    if config.out is None:
        return store
    if not store.complete:
        raise StoreError(f"{store.folder} is not complete: finish its run first, or leave out -o to look at what is "
                         f"there")
    procedure = store.identity.procedure
    alpha = config.alpha if "alpha" in config.model_fields_set else procedure.alpha
    identity = store.identity.replace(
        kind="distributional", counted_from=store.identity.digest, procedure={**procedure.raw, "alpha": alpha},
        distributional={"loss": "0-1", "ceiling": 1.0, "gamma": [], "gamma_adv": [], "search": None})
    write_store(config.out, identity, {**store.provenance.raw, "rho": list(config.rho)},
                [replace(Record.from_row(row), values=dict.fromkeys(VALUES["distributional"]))
                 for row in store.records.to_pylist()])
    return read_store(config.out)


def prepare_distributional(config: DistributionalConfig) -> "DistributionalRun":
    """Load and check everything that the options name."""
    inputs = open_inputs(config)
    loss = cross_entropy if config.loss == "cross-entropy" else clipped_cross_entropy(
        config.clip or math.log(inputs.data.num_classes))
    settings = list_ascents(config.gammas, config.gamma or () if config.eps_equivalent else ())
    search = config.build_search()
    told = {name: value for name, value in asdict(search).items() if name != "rows"} if config.gammas else None
    identity = Identity.parse({
        "kind": "distributional", **inputs.identity,
        "procedure": {"method": "distributional", "alpha": config.alpha,
                      "n": None if loss.ceiling is None else config.n},
        "noise": {**identify_noise(inputs.noise, config.noise), "format": inputs.noise.formats[0]},
        "precision": "float32", "device": inputs.device.type, "records_per_image": len(settings),
        "distributional": {"loss": config.loss, "ceiling": loss.ceiling, "gamma": list(config.gamma or ()),
                           "gamma_adv": list(config.gamma_adv or ()), "search": told,
                           **({"eps_equivalent": True} if config.eps_equivalent else {})},
    })
    return DistributionalRun(config=inputs.resolve(config), identity=identity,
                             provenance={**inputs.provenance(config), "rho": list(config.rho)}, inputs=inputs,
                             source=inputs.source, settings=settings, loss=loss, search=search)


@dataclass(frozen=True, eq=False, kw_only=True)
class DistributionalRun(Run):
    """A distributional run that is ready: each image has a record for every setting, in their order."""

    networks = ("inputs",)

    config: DistributionalConfig
    inputs: Inputs
    settings: tuple[AscentSetting, ...]
    loss: PointLoss
    search: Search

    def reopen(self) -> Callable[[], "DistributionalRun"]:
        return partial(prepare_distributional, self.config)

    def records(self, tasks: Iterable[Task]) -> Iterator[Done]:
        for position, in tasks:
            started = time.perf_counter()
            record = self._record(*divmod(position, len(self.settings)))
            yield position, record, time.perf_counter() - started

    def try_out(self) -> None:
        """Raise ModelError, before any work, where gammas need gradients and the model has none."""
        if not self.config.gammas:
            return
        image = self._batch(self.inputs.data.image(int(self.inputs.indices[0]))).requires_grad_()
        try:
            with torch.enable_grad(), evaluation(self.inputs.classifier.model):
                model = fix_normals(self.inputs.classifier.model, torch.Generator(self.inputs.device))
                logits = torch.as_tensor(model(image))
            why = "" if logits.requires_grad else "its logits do not depend on its input for torch"
        except RuntimeError as error:
            why = str(error)
        if why:
            raise ModelError(f"the bounds at gamma and gamma-adv follow gradients, and none can be taken through this "
                             f"model ({why}): leave both out; the certificate needs only answers")

    def _record(self, member: int, k: int) -> Record:
        index, setting = int(self.inputs.indices[member]), self.settings[k]
        image, label = self.inputs.data.image(index), int(self.inputs.data.labels[index])
        random = generator(self.inputs.device, self.inputs.seed, "distributional", index, setting.form, setting.gamma)
        values = dict.fromkeys(VALUES["distributional"]) | {"form": setting.form, "gamma": setting.gamma}
        measure = self._measure_ascent
        if setting.gamma is None or setting.form == "equivalent":
            measure = self._measure_unmoved if setting.gamma is None else self._measure_equivalent
        with repeatable(), evaluation(self.inputs.classifier.model):
            values |= measure(setting, self._batch(image), torch.tensor([label], device=self.inputs.device), index,
                              random)
        return Record(index, label, -1, values, self.inputs.noise.centre(image).off_grid)

    def _measure_unmoved(
        self, setting: AscentSetting, image: Tensor, label: Tensor, index: int, random: torch.Generator
    ) -> dict[str, float]:
        """Return the loss of an input (1, *shape) itself, with the moments for the certificate where it needs them."""
        model, noise = fix_normals(self.inputs.classifier.model, random), self.inputs.noise
        outside = setting.form == "outside"
        if self.loss.ceiling is None or not outside:
            found = judge(model, self.loss, image, image, label, 1.0, noise.sigma if outside else None, self.search,
                          random)
            return {"loss": float(found.loss[0]), "cost": 0.0}
        found = sample_losses(model, self.loss, image, label, noise, self.config.n, seed=self.inputs.seed, keys=[index])
        mean = float(found.mean[0])
        return {"loss": self.loss.ceiling * mean, "cost": 0.0, "mean": mean, "variance": float(found.variance[0])}

    def _measure_ascent(
        self, setting: AscentSetting, image: Tensor, label: Tensor, index: int, random: torch.Generator
    ) -> dict[str, float]:
        """Return where the ascent from an input (1, *shape) ended."""
        model, noise = fix_normals(self.inputs.classifier.model, random), self.inputs.noise
        standing = find_standing(setting, self.identity.distributional, noise.sigma)
        found = find_ends(model, self.loss, image, label, setting.gamma or 0.0, noise if setting.form == "outside"
                          else None, standing, self.search, self.inputs.seed, random)
        values = {name: float(getattr(found, name)[0]) for name in ("loss", "cost", "slope")}
        if found.moments is None or found.steep is None:
            return values
        return {**values, "mean": float(found.moments.mean[0]), "variance": float(found.moments.variance[0]),
                "steep": float(found.steep[0])}

    def _measure_equivalent(
        self, setting: AscentSetting, image: Tensor, label: Tensor, index: int, random: torch.Generator
    ) -> dict[str, float]:
        """Return how far NAL's ascent takes an input (1, *shape) in 15 steps, and the loss there."""
        model = fix_normals(self.inputs.classifier.model, random)
        sigma, gamma = self.inputs.noise.sigma, setting.gamma or 0.0
        moved = move_equivalently(model, image, label, gamma, sigma, random)
        found = judge(model, self.loss, image, moved, label, gamma, sigma, self.search, random)
        return {"loss": float(found.loss[0]), "cost": float(found.cost[0])}

    def _batch(self, image: np.ndarray) -> Tensor:
        """Return one input as (1, *shape) on the device."""
        return torch.from_numpy(image[None]).to(self.inputs.device)
