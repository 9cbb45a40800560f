"""The distributional run: of each image its loss under noise, and where ascents at every gamma ended.

A record is an image's at one setting, computed by itself on one processor thread, with noise that belongs to the image
and other randomness that belongs to image and setting. So records do not depend on resumes, workers, threads, or on
which other images and gammas a run has. What they prove is computed from the store.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcert.config.sampling import RunConfig
from smoothcert.distributional.curves import move_equivalently
from smoothcert.distributional.losses import PointLoss, clipped_cross_entropy, cross_entropy, sample_losses
from smoothcert.distributional.search import Search, find_ends, judge
from smoothcert.draws import generator
from smoothcert.errors import ModelError
from smoothcert.progress import Progress, silent
from smoothcert.runs.counts import counted
from smoothcert.runs.distributional_options import DistributionalConfig
from smoothcert.runs.distributional_settings import Setting, settings_of, standing_of
from smoothcert.runs.fill import fill
from smoothcert.runs.gradients import fixed, repeatable
from smoothcert.runs.prepare import Opened, opened, shown
from smoothcert.runs.run import Done, Task
from smoothcert.smoothing.engines.precision import tf32
from smoothcert.smoothing.isolation import isolated
from smoothcert.smoothing.protocols import evaluation
from smoothcert.store.records import VALUES, Record
from smoothcert.store.store import Store


@isolated()
def distributional(config: DistributionalConfig, progress: Progress = silent) -> Store:
    """Do what is left of the run over a model's images; the finished store. Of a store, see `counted`.

    Raises:
        ModelError: a model without gradients where there are gammas; before any work.
        StoreError: a store that is neither of certify nor of distributional.
    """
    if config.of_store:
        return counted(config)
    run = prepare_distributional(config)
    run.try_out()
    return fill(run, progress)


def prepare_distributional(config: DistributionalConfig) -> "DistributionalRun":
    """Load and check everything that the options name."""
    found = opened(config)
    loss = cross_entropy if config.loss == "cross-entropy" else clipped_cross_entropy(
        config.clip or math.log(found.data.num_classes))
    settings = settings_of(config.gammas, config.gamma or () if config.eps_equivalent else ())
    return DistributionalRun(config.model_copy(update=found.settled), config, found, settings, loss,
                             Search(**config.search_option))


@dataclass(frozen=True, eq=False)
class DistributionalRun:
    """A run that is ready (see `work.Run`): each image has a record for every setting, in their order."""

    config: RunConfig
    asked: DistributionalConfig
    base: Opened
    settings: tuple[Setting, ...]
    loss: PointLoss
    search: Search

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "kind": "distributional", **self.base.identity,
            "procedure": {"method": "distributional", "alpha": self.asked.alpha,
                          "n": None if self.loss.ceiling is None else self.asked.n},
            "noise": {**self.base.noise.identity(), "format": self.base.noise.formats[0]},
            "precision": "float32", "device": self.base.device.type, "records_per_image": len(self.settings),
            "distributional": self._told,
        }

    @property
    def told(self) -> dict[str, Any]:
        return {**shown(self.asked, self.base.data), "rho": list(self.asked.rho)}

    @property
    def most(self) -> int:
        return 0

    @property
    def reopen(self) -> Callable[[], "DistributionalRun"]:
        return partial(prepare_distributional, self.asked.model_copy(update=self.base.settled))

    def tasks(self, pending: Sequence[int]) -> list[Task]:
        return [(position,) for position in pending]

    def records(self, tasks: Iterable[Task]) -> Iterator[Done]:
        for position, in tasks:
            started = time.perf_counter()
            record = self._record(*divmod(position, len(self.settings)))
            yield position, record, time.perf_counter() - started

    def try_out(self) -> None:
        """Raise ModelError, before any work, where gammas need gradients and the model has none."""
        if not self.asked.gammas:
            return
        image = self._batch(self.base.data.image(int(self.base.indices[0]))).requires_grad_()
        try:
            with torch.enable_grad(), evaluation(self.base.classifier.model):
                logits = torch.as_tensor(fixed(self.base.classifier.model, torch.Generator(self.base.device))(image))
            why = "" if logits.requires_grad else "its logits do not depend on its input for torch"
        except RuntimeError as error:
            why = str(error)
        if why:
            raise ModelError(f"the bounds at gamma and gamma-adv follow gradients, and none can be taken through this "
                             f"model ({why}): leave both out; the certificate needs only answers")

    @property
    def _told(self) -> dict[str, Any]:
        """What of it the store's records were made by."""
        search = {name: value for name, value in asdict(self.search).items() if name != "rows"}
        return {"loss": self.asked.loss, "ceiling": self.loss.ceiling, "gamma": list(self.asked.gamma or ()),
                "gamma_adv": list(self.asked.gamma_adv or ()), "search": search if self.asked.gammas else None,
                **({"eps_equivalent": True} if self.asked.eps_equivalent else {})}

    def _record(self, member: int, k: int) -> Record:
        index, setting = int(self.base.indices[member]), self.settings[k]
        image, label = self.base.data.image(index), int(self.base.data.labels[index])
        random = generator(self.base.device, self.base.seed, "distributional", index, setting.form, setting.gamma)
        values = dict.fromkeys(VALUES["distributional"]) | {"form": setting.form, "gamma": setting.gamma}
        measure = self._unmoved if setting.gamma is None else self._equivalent if setting.form == "equivalent" \
            else self._ascended
        with repeatable(), _exact(), evaluation(self.base.classifier.model):
            values |= measure(setting, self._batch(image), torch.tensor([label], device=self.base.device), index,
                              random)
        return Record(index, label, -1, values, self.base.noise.centre(image).off_grid)

    def _unmoved(
        self, setting: Setting, image: Tensor, label: Tensor, index: int, random: torch.Generator
    ) -> dict[str, float]:
        """The loss of an image (1, C, H, W) itself; outside with the moments for the certificate, if the loss has a
        ceiling."""
        model, noise, outside = fixed(self.base.classifier.model, random), self.base.noise, setting.form == "outside"
        if self.loss.ceiling is None or not outside:
            found = judge(model, self.loss, image, image, label, 1.0, noise.sigma if outside else None, self.search,
                          random)
            return {"loss": float(found.loss[0]), "cost": 0.0}
        found = sample_losses(model, self.loss, image, label, noise, self.asked.n, seed=self.base.seed, keys=[index])
        mean = float(found.mean[0])
        return {"loss": self.loss.ceiling * mean, "cost": 0.0, "mean": mean, "variance": float(found.variance[0])}

    def _ascended(
        self, setting: Setting, image: Tensor, label: Tensor, index: int, random: torch.Generator
    ) -> dict[str, float]:
        """Where the ascent from an image (1, C, H, W) ended."""
        model, noise = fixed(self.base.classifier.model, random), self.base.noise
        standing = standing_of(setting, self._told, noise.sigma)
        found = find_ends(model, self.loss, image, label, setting.gamma or 0.0, noise if setting.form == "outside"
                          else None, standing, self.search, self.base.seed, random)
        values = {name: float(getattr(found, name)[0]) for name in ("loss", "cost", "slope")}
        if found.moments is None or found.steep is None:
            return values
        return {**values, "mean": float(found.moments.mean[0]), "variance": float(found.moments.variance[0]),
                "steep": float(found.steep[0])}

    def _equivalent(
        self, setting: Setting, image: Tensor, label: Tensor, index: int, random: torch.Generator
    ) -> dict[str, float]:
        """How far NAL's ascent takes an image (1, C, H, W) in 15 steps, and the loss there."""
        model, sigma, gamma = fixed(self.base.classifier.model, random), self.base.noise.sigma, setting.gamma or 0.0
        moved = move_equivalently(model, image, label, gamma, sigma, random)
        found = judge(model, self.loss, image, moved, label, gamma, sigma, self.search, random)
        return {"loss": float(found.loss[0]), "cost": float(found.cost[0])}

    def _batch(self, image: np.ndarray) -> Tensor:
        """One image (C, H, W) as (1, C, H, W) on the device."""
        return torch.from_numpy(image[None]).to(self.base.device)


def _exact() -> AbstractContextManager[None]:
    """No TF32 where there is CUDA: the base classifier is the one in float32."""
    return tf32(False) if torch.cuda.is_available() else nullcontext()
