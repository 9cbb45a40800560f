"""The multi-label run: whether each of several labels is present, certified over a data set.

A record is that of an input and one of its labels, with the votes of the noisy copies: class 1 where the label is
present, class 0 where it is absent. All labels of an input are judged on the same copies.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from smoothcert.errors import InputError
from smoothcert.runs.options import CertifyConfig
from smoothcert.runs.outputs import OutputRun, identify_outputs, open_outputs
from smoothcert.stats import Look, MultiLabelPlan
from smoothcert.store.identity import Identity
from smoothcert.store.records import Record, Tally


@dataclass(frozen=True, eq=False, kw_only=True)
class MultiLabelRun(OutputRun):
    """A multi-label run that is ready to sample: each input has a record for every label, in their order.

    Attributes:
        present: (N, L) bool, by the data.
    """

    present: np.ndarray
    plan: MultiLabelPlan

    def reopen(self) -> Callable[[], "MultiLabelRun"]:
        return partial(prepare_multi_label, self.config)

    def sample(self, index: int) -> list[Record]:
        subject = self.sampler.subject(self.data.image(index), index)
        votes = [(stage, n, self.sampler.count_above(subject, stage, n, self.config.threshold))
                 for stage, n in (("select", self.plan.n0), ("estimate", self.plan.n))]
        histories = [[Look(stage, np.array([n - present[k], present[k]])) for stage, n, present in votes]
                     for k in range(self.plan.labels)]
        found = self.plan.each.judge(histories)
        return [Record(index, int(self.present[index, k]), int(found.prediction[k]),
                       {"output": k, "radius": float(found.values["radius"][k])}, subject.centre.off_grid,
                       [Tally.of(look.stage, look.counts) for look in looks]) for k, looks in enumerate(histories)]


def prepare_multi_label(config: CertifyConfig) -> MultiLabelRun:
    """Load and check everything that the options name.

    Raises:
        InputError: data that do not say of each label whether it is present, or what `open_outputs` refuses.
    """
    inputs, sampler = open_outputs(config, "a multi-label run")
    data, plan = inputs.data, config.multi_label_plan(inputs.noise, sampler.outputs)
    if data.targets is None or not np.isin(data.targets, (0, 1)).all():
        raise InputError(f"the labels of {data.name} must be 1 where one is present and 0 where it is absent, "
                         f"{sampler.outputs} of them for each input")
    identity = Identity.parse({
        "kind": "multi-label", **identify_outputs(config, inputs, sampler), "num_classes": 2,
        "procedure": plan.identity(), "multi_label": {"labels": plan.labels, "threshold": config.threshold},
    })
    return MultiLabelRun(
        config=inputs.resolve(config), identity=identity, most_samples=-(-plan.each.most() // plan.labels),
        provenance={**inputs.provenance(config), "classes": ["absent", "present"]}, source=inputs.source, data=data,
        indices=inputs.indices, present=data.targets == 1, plan=plan, sampler=sampler, model=inputs.classifier.model)
