"""The regression run: median smoothing of real-valued functions over a data set, to order statistics in a store.

A record is that of an input and one of the function's outputs. The outputs of an input are sampled together. A record
keeps a sketch of exact order statistics, and the intervals at the run's radii, which are computed from it again
whenever the store is verified (`smoothcert.stats.percentiles`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from smoothcert.runs.options import CertifyConfig
from smoothcert.runs.outputs import OutputRun, identify_outputs, open_outputs
from smoothcert.stats import PercentilePlan
from smoothcert.stats.percentiles import order_statistics
from smoothcert.store.identity import Identity
from smoothcert.store.records import Record


@dataclass(frozen=True, eq=False, kw_only=True)
class RegressionRun(OutputRun):
    """A regression that is ready to sample: each input has a record for every output, in their order."""

    plan: PercentilePlan

    def reopen(self) -> Callable[[], "RegressionRun"]:
        return partial(prepare_regression, self.config)

    def sample(self, index: int) -> list[Record]:
        subject = self.sampler.subject(self.data.image(index), index)
        values = self.sampler.draw(subject, "estimate", self.plan.n)
        kept = np.array(self.identity.regression.ranks)
        sketch = order_statistics(values, kept).T
        estimate, lower, upper = self.plan.read(kept, sketch)
        targets = None if self.data.targets is None else self.data.targets[index]
        return [Record(index, 0, -1, {
                    "output": k, "target": None if targets is None else float(targets[k]),
                    "estimate": float(estimate[k]), "lower": lower[k].tolist(), "upper": upper[k].tolist(),
                    "sketch": sketch[k].tolist()}, subject.centre.off_grid)
                for k in range(self.plan.outputs)]


def prepare_regression(config: CertifyConfig) -> RegressionRun:
    """Load and check everything that the options name.

    Raises:
        InputError: radii that n cannot give, or what `open_outputs` refuses.
    """
    inputs, sampler = open_outputs(config, "a regression")
    plan = config.percentile_plan(inputs.noise.sigma, sampler.outputs)
    identity = Identity.parse({
        "kind": "regression", **identify_outputs(config, inputs, sampler), "num_classes": sampler.outputs,
        "procedure": plan.identity(),
        "regression": {"percentile": plan.percentile, "radii": list(plan.radii), "outputs": plan.outputs,
                       "ranks": plan.sketch().tolist()},
    })
    return RegressionRun(
        config=inputs.resolve(config), identity=identity, most_samples=-(-plan.n // plan.outputs),
        provenance={**inputs.provenance(config), "classes": []}, source=inputs.source, data=inputs.data,
        indices=inputs.indices, plan=plan, sampler=sampler, model=inputs.classifier.model)
