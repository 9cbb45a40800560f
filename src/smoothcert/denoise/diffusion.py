"""A diffusion model's one-shot estimate as a denoiser (Carlini et al. 2023): one pass of its network a noisy image."""

import importlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.checks import check_count, check_known
from smoothcert.denoise.estimators import Estimator
from smoothcert.errors import FileError, InputError, MissingExtraError, ModelError
from smoothcert.limits import JSON_BYTES, bounded_bytes, from_json, within

Estimate = Callable[[Tensor, Tensor, float, float], Tensor]
"""(x_t, what the network gave, sqrt(abar), sqrt(1 - abar)) -> x_0."""

PREDICTIONS: dict[str, Estimate] = {
    "epsilon": lambda x, out, signal, noise: (x - noise * out) / signal,
    "sample": lambda x, out, signal, noise: out,
    "v_prediction": lambda x, out, signal, noise: signal * x - noise * out,
}
"""What a network may have been trained to give, by the name in its scheduler's config."""


_STEPS = 100_000  # of a schedule, at most


class DiffusionDenoiser(Estimator):
    """x_hat by a DDPM's network: 2 y - 1 has noise of level 2 sigma = sqrt(1 - abar) / sqrt(abar). The network is asked
    about sqrt(abar) (2 y - 1) at the t of that abar; its x_0 is clipped to [-1, 1] and scaled back to [0, 1].

    Serves every sigma that its schedule reaches. Differs from the paper: the schedule's nearest t is what the network
    is told, while x is scaled by the abar of sigma itself.

    Args:
        network: called (sample (N, C, H, W), timestep (N,)), as diffusers' UNet2DModel; gives the prediction, or an
            object with `.sample`. Further channels, of a learned variance, are left out.
        abar: cumulative products of 1 - beta, (T,), falling.
        prediction: a name in `PREDICTIONS`.
    """

    abar: Tensor

    def __init__(self, network: nn.Module, abar: Tensor, prediction: str = "epsilon"):
        super().__init__(None)
        self.network = network
        self.register_buffer("abar", abar.double())
        self.prediction = check_known("prediction_type of a diffusion model", prediction, PREDICTIONS)

    def forward(self, y: Tensor, sigma: float | None = None) -> Tensor:
        level = self.level(sigma)
        abar = 1 / (1 + 4 * level**2)
        signal, noise = math.sqrt(abar), math.sqrt(1 - abar)
        x = signal * (2 * y - 1)
        out = self.network(x, torch.full((len(y),), self.timestep(level), device=y.device))
        out = getattr(out, "sample", out)
        if not isinstance(out, Tensor) or out.shape[2:] != y.shape[2:] or out.shape[1] not in (y.shape[1],
                                                                                              2 * y.shape[1]):
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ModelError(f"the diffusion network must give images of its input's shape {tuple(y.shape)} (or twice "
                             f"the channels), got {got}")
        estimate = PREDICTIONS[self.prediction](x, out[:, : y.shape[1]], signal, noise)
        return (estimate.clamp(-1, 1) + 1) / 2

    def timestep(self, sigma: float) -> int:
        """The t whose sqrt(1 - abar_t) / sqrt(abar_t) is nearest to 2 sigma, in ratio; InputError beyond the last."""
        ratios = ((1 - self.abar) / self.abar).sqrt().log()
        wanted, last = math.log(2 * sigma), float(ratios[-1])
        if wanted > last:
            raise InputError(f"the diffusion model's schedule ends at sigma {math.exp(last) / 2:.4g}, below {sigma:g}")
        return int((ratios - wanted).abs().argmin())


def load_diffusion(source: str | Path) -> DiffusionDenoiser:
    """The denoiser of a folder, or of a repository of the Hugging Face hub by name, that diffusers wrote.

    The folder holds UNet2DModel (in `unet/` or itself) with its weights as safetensors, and `scheduler_config.json` (in
    `scheduler/` or itself). Only JSON and safetensors are read: nothing is unpickled. In eval mode.

    Raises:
        MissingExtraError: diffusers is not installed. FileError: a missing or corrupt file. InputError: a schedule that
            is not known. ModelError: what diffusers cannot load.
    """
    diffusers = _diffusers(f"loading the diffusion model {source}")
    folder = Path(source) if Path(source).is_dir() else _downloaded(str(source))
    config = _scheduler_config(folder)
    try:
        network = diffusers.UNet2DModel.from_pretrained(
            folder / "unet" if (folder / "unet").is_dir() else folder, use_safetensors=True)
    except Exception as error:  # the library passes on whatever its files and the disk raise
        raise ModelError(f"{folder} has no UNet2DModel that can be loaded from safetensors: {type(error).__name__}: "
                         f"{error}") from error
    return DiffusionDenoiser(network, noise_schedule(config), config.get("prediction_type", "epsilon")).eval()


def noise_schedule(config: Mapping[str, Any]) -> Tensor:
    """abar_t = prod_{s <= t} (1 - beta_s), (T,) float64, of a scheduler's config: `num_train_timesteps`,
    `beta_schedule` (linear, scaled_linear or squaredcos_cap_v2), `beta_start` and `beta_end`, or `trained_betas`.

    Raises InputError for another schedule.
    """
    try:
        betas = _betas(config)
    except (TypeError, RuntimeError, OverflowError) as error:
        raise InputError(f"the scheduler's config gives no betas: {error}") from None
    if not bool(((betas > 0) & (betas < 1)).all()):
        raise InputError("the scheduler's betas must lie strictly between 0 and 1")
    return (1 - betas).cumprod(dim=0)


def _betas(config: Mapping[str, Any]) -> Tensor:
    if config.get("trained_betas") is not None:
        return torch.as_tensor(config["trained_betas"], dtype=torch.float64)
    name = check_known("beta_schedule", config.get("beta_schedule", "linear"), _SCHEDULES)
    steps = check_count("num_train_timesteps", config.get("num_train_timesteps", 1000), least=2)
    within("num_train_timesteps", steps, _STEPS, "a diffusion model has a few thousand", InputError)
    return _SCHEDULES[name](steps, config.get("beta_start", 0.0001), config.get("beta_end", 0.02))


def _linear(steps: int, start: float, end: float) -> Tensor:
    return torch.linspace(start, end, steps, dtype=torch.float64)


def _scaled_linear(steps: int, start: float, end: float) -> Tensor:
    return torch.linspace(math.sqrt(start), math.sqrt(end), steps, dtype=torch.float64) ** 2


def _cosine(steps: int, start: float, end: float) -> Tensor:
    """Nichol & Dhariwal 2021, eq. 17, betas at most .999."""
    share = torch.arange(steps + 1, dtype=torch.float64) / steps
    bar = torch.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - bar[1:] / bar[:-1]).clamp(max=0.999)


_SCHEDULES: dict[str, Callable[[int, float, float], Tensor]] = {
    "linear": _linear, "scaled_linear": _scaled_linear, "squaredcos_cap_v2": _cosine,
}


def _scheduler_config(folder: Path) -> dict[str, Any]:
    for path in (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"):
        if path.is_file():
            config = from_json(bounded_bytes(path, JSON_BYTES), str(path))
            if not isinstance(config, dict):
                raise FileError(f"{path} is no scheduler's config: it holds a {type(config).__name__}")
            return config
    raise FileError(f"{folder} has no scheduler_config.json (nor scheduler/scheduler_config.json), which says how much "
                    f"noise each of the diffusion model's steps has")


def _diffusers(purpose: str) -> Any:
    try:
        return importlib.import_module("diffusers")
    except ImportError as error:
        raise MissingExtraError("diffusers", "diffusion", purpose) from error


def _downloaded(name: str) -> Path:
    """The JSON and safetensors files of a repository of the hub, in its cache."""
    hub = importlib.import_module("huggingface_hub")  # diffusers needs it
    try:
        return Path(hub.snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # the library passes on whatever the network, the disk or the hub raise
        raise ModelError(f"{name} is no folder, and the hub does not give it: {type(error).__name__}: {error}"
                         ) from error
