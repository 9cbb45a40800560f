"""The machine's convolution peak: large 3x3 convolutions alone, through every engine."""

from collections.abc import Callable

import torch
from networks import mflop
from timing import interleaved
from torch import Tensor, nn

from smoothcert.errors import MissingExtraError
from smoothcert.smoothing.engines import ENGINES

_SIZES = ((64, 56), (128, 28), (256, 14))  # channels, pixels
_BATCH, _ROUNDS, _LAYERS = 4, 5, 4
_TRIED = ("eager", "onnxruntime", "openvino")


class _Convolutions(nn.Module):
    """3x3 convolutions one after another; the mean of what comes out serves as logits."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(_LAYERS)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean(dim=(2, 3))


def conv_peak() -> tuple[float, str]:
    """(GFLOP/s of one thread, which engine and size reach it), counted as direct convolutions."""
    runs: dict[str, Callable[[], float]] = {}
    for channels, pixels in _SIZES:
        shape = (channels, pixels, pixels)
        torch.manual_seed(0)
        model = _Convolutions(channels).eval()
        for engine in _TRIED:
            if run := _convolving(model, shape, engine):
                runs[f"{engine}, {channels} channels, {pixels}x{pixels}"] = run
    rates = interleaved(runs, _ROUNDS)
    best = max(runs, key=lambda name: max(rates.rounds[name]))
    return max(rates.rounds[best]), best


def _convolving(model: nn.Module, shape: tuple[int, int, int], engine: str) -> Callable[[], float] | None:
    """A call that returns the GFLOP it has done; None where the engine is not installed."""
    try:
        forward = ENGINES[engine](model, shape, _BATCH, torch.device("cpu"), "float32")
    except MissingExtraError:
        return None
    rows, gflop = torch.randn(_BATCH, *shape), _BATCH * mflop(model, shape) / 1e3

    def run() -> float:
        forward(rows)
        return gflop

    run()
    return run
