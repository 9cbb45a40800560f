"""The answers of PREDICT at every look that a run took at one sample."""

import numpy as np

from smoothcert.stats import FixedPredict
from smoothcert.store.store import SHARD, Store


def look_answers(store: Store, alpha: float) -> tuple[tuple[int, ...], np.ndarray]:
    """The looks' sizes n, and the answer of every record at every look, (M, L) int64; -1 where it abstains."""
    plan, parts = FixedPredict(store.identity["procedure"]["n"], alpha), []
    for start in range(0, store.num_records, SHARD):
        histories = store.histories(start, SHARD)
        parts.append(np.stack([plan.judge([history[: k + 1] for history in histories]).prediction
                               for k in range(len(plan.looks))], axis=1))
    return plan.looks, np.concatenate(parts)
