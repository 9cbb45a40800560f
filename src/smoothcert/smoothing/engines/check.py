"""Whether an engine gives the plain model's votes, tried on fixed noisy inputs.

In float32 more than the votes is asked for: every logit within CLOSE_CALL / 4 of the scale, which is the row's largest
|logit|, or the median row's where that is larger (logits that nearly cancel, as two classes' do, have no scale of
their own). Where an engine keeps to that, the vote of a row whose two top logits differ by more than CLOSE_CALL of
the scale is the plain model's; the others are judged by the plain model anyway (see `voters.CLOSE_CALL`). So counts
are equal in every engine, as long as the bound that held here holds elsewhere: networks that we trained kept to 1e-6.

In reduced precision no such bound is to be had: a sum rounded elsewhere moves a logit by 2^-9 (bfloat16) or 2^-11
(TF32) of its terms, layer upon layer. There an engine passes if it keeps the votes whose top logits differ by more
than a margin. The others may differ from engine to engine, and counts with them, by a little: the engine is part of
what is certified.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from smoothcert.smoothing.contract import ROUNDING, largest_difference, row_scale
from smoothcert.smoothing.engines.protocol import Run
from smoothcert.smoothing.protocols import as_logits
from smoothcert.smoothing.voters import CLOSE_CALL

CHECKED = 500
"""Noisy inputs on which an engine must agree."""

MARGINS = {"float32": CLOSE_CALL, "tf32": 2.0**-8, "bf16": 2.0**-5}
"""Votes count where the two top logits differ by more than this share of the scale."""


def noisy_inputs(shape: tuple[int, ...], n: int, batch: int, device: torch.device) -> Iterator[Tensor]:
    """n rows 0.5 + 0.5 N(0, 1) of a fixed seed, in batches of `batch`."""
    generator = torch.Generator().manual_seed(0)
    for first in range(0, n, batch):
        yield torch.randn(min(batch, n - first), *shape, generator=generator).mul_(0.5).add_(0.5).to(device)


def logits_of(run: Run, shape: tuple[int, ...], n: int, batch: int, device: torch.device) -> Tensor:
    """A forward pass's logits on the noisy inputs: (n, K), float64, on the host."""
    with torch.no_grad():
        return torch.cat([as_logits(run(rows)).double().cpu() for rows in noisy_inputs(shape, n, batch, device)])


def fault(expected: Tensor, logits: Tensor, precision: str) -> str | None:
    """What is wrong with an engine's logits (N, K) where the plain model's are `expected`; None where nothing is."""
    if logits.shape != expected.shape:
        return f"its logits have shape {tuple(logits.shape)} where the plain model's have {tuple(expected.shape)}"
    scale = row_scale(expected)
    first, second = expected.topk(2, dim=1).values.unbind(dim=1)
    flipped = (logits.argmax(dim=1) != expected.argmax(dim=1)) & (first - second > MARGINS[precision] * scale)
    if flipped.any():
        return f"{int(flipped.sum())} of {len(logits)} votes on noisy inputs differ from the plain model's"
    worst = largest_difference(expected, logits, scale)
    if precision == "float32" and worst > ROUNDING:
        return (f"no vote on {len(logits)} noisy inputs differs, but a logit does, by {worst:.2g} of its scale "
                f"({ROUNDING:.2g} is allowed, so that counts are equal in every engine)")
    return None
