"""Engines by name, the model that one is opened for, and the check of what it computes.

The check asks for the plain model's votes on fixed noisy inputs, and in float32 for more: every logit within
CLOSE_CALL / 4 of the scale, which is the row's largest |logit|, or the median row's where that is larger (logits that
nearly cancel, as two classes' do, have no scale of their own). Where an engine keeps to that, the vote of a row whose
two top logits differ by more than CLOSE_CALL of the scale is the plain model's; the others are judged by the plain
model anyway (see `voters.CLOSE_CALL`). So counts are equal in every engine, as long as the bound that held here holds
elsewhere: networks that we trained kept to 1e-6.

In reduced precision there is no such bound: a sum rounded elsewhere moves a logit by 2^-9 (bfloat16) or 2^-11
(TF32, float16) of its terms, layer upon layer. There an engine passes if it keeps the votes whose top logits differ by
more than a margin. The others may differ from engine to engine, and counts with them, by a little: the engine is part
of what is certified.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smoothcert.smoothing.contract import ROUNDING, largest_difference, row_scale
from smoothcert.smoothing.engines.mnn_engine import mnn
from smoothcert.smoothing.engines.onnx_engines import onnxruntime, openvino
from smoothcert.smoothing.engines.protocol import Builder, Run, refuse_on_error
from smoothcert.smoothing.engines.torch_engines import eager, plain, torch_compile
from smoothcert.smoothing.gpu.referee import Referee, referee_rows
from smoothcert.smoothing.protocols import as_logits
from smoothcert.smoothing.voters import CLOSE_CALL

ENGINES: dict[str, Builder] = {
    "plain": plain,
    "eager": eager,
    "compile": torch_compile,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "mnn": mnn,
}
"""Builders by name. A new one takes 1 ... batch rows, and is tried by "auto" in long runs."""

ANY_BATCH = ("plain", "eager")
"""Engines that take any number of rows."""

MARGINS = {"float32": CLOSE_CALL, "tf32": 2.0**-8, "fp16": 2.0**-8, "bf16": 2.0**-5}
"""Votes count where the two top logits differ by more than this share of the scale."""


@dataclass(frozen=True)
class EngineSetting:
    """The model that an engine is opened for, ready for use, and how it is run."""

    model: Any
    shape: tuple[int, ...]
    batch: int
    device: torch.device
    precision: str

    def build(self, name: str) -> Run:
        """Return an engine's pass. Raises as builders do."""
        return ENGINES[name](self.model, self.shape, self.batch, self.device, self.precision)

    def logits(self, run: Run, n: int) -> Tensor:
        """Return a forward pass's logits on the noisy inputs: (n, K), float64, on the host.

        On a GPU, where a batch's size decides how it is computed, they are repeated until they fill the batch.
        """
        inputs: Iterable[Tensor] = self.inputs(n)
        if referee_rows(self.device) > 1 and n < self.batch:
            inputs = [rows[torch.arange(self.batch, device=self.device) % n] for rows in inputs]
        with torch.no_grad():
            return torch.cat([as_logits(run(rows)).double().cpu() for rows in inputs])

    def expected(self, run: Run, n: int) -> Tensor:
        """Return the plain model's logits on the same inputs, judged in the batches in which it judges close calls."""
        rows = referee_rows(self.device)
        if rows == 1:
            return self.logits(run, n)
        found = Referee(run, rows).judge(torch.cat([*self.inputs(n)])).double().cpu()
        return found[torch.arange(max(n, self.batch)) % n]

    def try_out(self, run: Run, n: int) -> Tensor:
        """Return the logits of an engine, or raise Refused where it fails."""
        with refuse_on_error("it fails on noisy inputs"):
            return self.logits(run, n)

    def start(self, name: str) -> Run:
        """Return an engine that has run once, or raise as builders do."""
        run = self.build(name)
        self.try_out(run, 1)
        return run

    def inputs(self, n: int) -> Iterator[Tensor]:
        """Yield n rows 0.5 + 0.5 N(0, 1) of a fixed seed, in batches."""
        generator = torch.Generator().manual_seed(0)
        for first in range(0, n, self.batch):
            rows = torch.randn(min(self.batch, n - first), *self.shape, generator=generator)
            yield rows.mul_(0.5).add_(0.5).to(self.device)


def fault(expected: Tensor, logits: Tensor, precision: str) -> str | None:
    """Return what is wrong with an engine's logits (N, K) where the plain model's are `expected`; None: nothing."""
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
