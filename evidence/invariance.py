"""Same seed, same counts: batch sizes, threads, order and company of images."""

import numpy as np
import torch

from smoothcert import SmoothedClassifier, build_model, load_data
from smoothcert.smoothing import Sampling, Segment, open_voter

SAMPLES = 3000
COLUMNS = ("batch 1", "batch 7", "batch 1000", "1 thread", "shuffled order", "alone", "close calls judged alone")


def counts(g: SmoothedClassifier, x: np.ndarray, index: list[int], batch: int | None) -> np.ndarray:
    return np.stack([c.estimation for c in g.certify(x, n0=100, n=SAMPLES, index=index, batch_size=batch)])


def main() -> str:
    lines = ["# Counts do not depend on how they are computed\n",
             "Random networks (untrained, so that many votes are close), grid noise sigma 0.5, "
             f"n = {SAMPLES:,}, 8 "
             "test digits: images whose counts differ from those at batch size 64.\n",
             f"| network | {' | '.join(COLUMNS)} |", f"|{'---|' * (len(COLUMNS) + 1)}"]
    data = load_data("digits")
    index = list(range(0, 80, 10))
    x = data.batch(index)
    for name in ("linear", "mlp", "cnn", "resnet20"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = build_model(name, data.shape, data.num_classes).eval()
        g = SmoothedClassifier(model, 0.5, data.num_classes, seed=1, levels=data.levels)
        reference = counts(g, x, index, 64)

        def differing(found: np.ndarray, reference: np.ndarray = reference) -> int:
            return int((found != reference).any(axis=1).sum())

        row = [differing(counts(g, x, index, batch)) for batch in (1, 7, 1000)]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        row.append(differing(counts(g, x, index, 64)))
        torch.set_num_threads(threads)
        order = np.random.default_rng(0).permutation(len(index))
        shuffled = counts(g, x[order], [index[i] for i in order], 64)
        row.append(differing(shuffled[np.argsort(order)]))
        row.append(differing(np.concatenate([counts(g, x[i : i + 1], [index[i]], 64) for i in range(len(index))])))
        lines.append(f"| {name} | {' | '.join(map(str, row))} | {close_share(model, data, index):.4%} |")
    return "\n".join(lines) + "\n"


def close_share(model: torch.nn.Module, data, index: list[int]) -> float:
    """Share of samples that the voter judges again, alone."""
    calls = {"whole": 0, "alone": 0}

    def counted(images: torch.Tensor) -> torch.Tensor:
        calls["alone" if len(images) == 1 else "whole"] += len(images)
        return model(images)

    g = SmoothedClassifier(model, 0.5, data.num_classes, seed=1, levels=data.levels)
    how = Sampling(engine="plain", batch_size=100)
    voter = open_voter(counted, g.noise, data.num_classes, data.shape, 1, how=how).voter
    for i in index:
        voter.count([Segment(voter.subject(data.image(i), i), "estimate", 0, SAMPLES)])
    return calls["alone"] / calls["whole"]
