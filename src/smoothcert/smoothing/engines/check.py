"""Whether an engine gives the plain model's votes, tried on fixed noisy inputs.

In float32 more than the votes is asked for. Where every logit is within CLOSE_CALL / 4 of the largest |logit| of the
plain model's, two engines that disagree on a vote have top logits closer than CLOSE_CALL of the largest, and those
votes are the plain model's in either engine (see `voters.CLOSE_CALL`): so counts are equal in every engine, as long as
the bound seen on these inputs holds on the others. In reduced precision no such bound is to be had: a sum rounded
elsewhere moves a logit by 2^-9 (bfloat16) or 2^-11 (TF32) of a term, layer upon layer. There an engine passes if it
keeps the votes whose top logits differ by more than a margin; those below it may differ from engine to engine, so
counts do too, by a little, and the engine belongs to what was certified.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from smoothcert.smoothing.engines.protocol import Run
from smoothcert.smoothing.voters import CLOSE_CALL

CHECKED = 500
"""Noisy inputs on which an engine must agree."""

MARGINS = {"float32": CLOSE_CALL, "tf32": 2.0**-8, "bf16": 2.0**-5}
"""Votes count where the two top logits differ by more than this share of the largest |logit|."""


def noisy_inputs(shape: tuple[int, ...], n: int, batch: int, device: torch.device) -> Iterator[Tensor]:
    """n rows 0.5 + 0.5 N(0, 1) of a fixed seed, in batches of `batch`."""
    generator = torch.Generator().manual_seed(0)
    for first in range(0, n, batch):
        yield torch.randn(min(batch, n - first), *shape, generator=generator).mul_(0.5).add_(0.5).to(device)


def logits_of(run: Run, shape: tuple[int, ...], n: int, batch: int, device: torch.device) -> Tensor:
    """A forward pass's logits on the noisy inputs: (n, K), float64, on the host."""
    with torch.inference_mode():
        return torch.cat([torch.as_tensor(run(rows)).double().cpu() for rows in noisy_inputs(shape, n, batch, device)])


def fault(expected: Tensor, logits: Tensor, precision: str) -> str | None:
    """What is wrong with an engine's logits (N, K) where the plain model's are `expected`; None where nothing is."""
    if logits.shape != expected.shape:
        return f"its logits have shape {tuple(logits.shape)} where the plain model's have {tuple(expected.shape)}"
    scale = expected.abs().nan_to_num(nan=0.0, posinf=0.0).amax(dim=1)
    first, second = expected.topk(2, dim=1).values.unbind(dim=1)
    flipped = (logits.argmax(dim=1) != expected.argmax(dim=1)) & (first - second > MARGINS[precision] * scale)
    if flipped.any():
        return f"{int(flipped.sum())} of {len(logits)} votes on noisy inputs differ from the plain model's"
    equal = (logits == expected) | (logits.isnan() & expected.isnan())
    errors = (logits - expected).abs().masked_fill(equal, 0.0).amax(dim=1)
    worst = float((errors / scale).masked_fill(errors == 0, 0.0).nan_to_num(nan=float("inf")).max())
    if precision == "float32" and worst > CLOSE_CALL / 4:
        return (f"no vote on {len(logits)} noisy inputs differs, but a logit does, by {worst:.2g} of the largest one "
                f"({CLOSE_CALL / 4:.2g} is allowed, so that counts are equal in every engine)")
    return None
