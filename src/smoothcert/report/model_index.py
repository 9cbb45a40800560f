"""Figures as the `model-index` of a card on the Hugging Face hub has them."""

from collections.abc import Mapping, Sequence
from typing import Any

from smoothcert.results.metrics import Metric
from smoothcert.store.identity_parts import DataIdentity
from smoothcert.store.store import Store

_TASKS = {1: "tabular", 3: "image"}
_UNKNOWN = "unknown"


def describe_results(store: Store, metrics: Sequence[Metric], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return one entry of the results of a model index: task, data set, and a metric for each figure.

    Args:
        more: beside what each figure rests on, such as the level of its limit, which is then given too.
    """
    data = store.identity.data_or_none
    known = data if isinstance(data, DataIdentity) else None
    inputs = _TASKS.get(len(known.shape) if known else 3, "")
    task = f"{inputs} {'regression' if store.kind == 'regression' else 'classification'}".strip()
    is_known = inputs and task != "image regression"
    name = known.name if known else _UNKNOWN
    return {
        "task": {"type": task.replace(" ", "-") if is_known else "other", "name": task.capitalize()},
        "dataset": {"type": name, "name": name, **({"split": known.split} if known else {})},
        "metrics": [{"type": one.kind, "name": one.name, "value": one.value, "args": {
            **one.setting, **({"at_least": one.at_least} if more and one.at_least is not None else {}), **(more or {})}}
            for one in metrics],
    }
