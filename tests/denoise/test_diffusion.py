"""Diffusion models as denoisers."""

import importlib.util
import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from small_denoisers import generator, images
from smoothcert.denoise import (
    DiffusionDenoiser,
    load_diffusion,
    noise_schedule,
)
from smoothcert.errors import FileError, InputError, MissingExtraError, ModelError


class StandIn(nn.Module):
    """Called as UNet2DModel is; knows the clean image and gives whatever prediction is asked for, exactly."""

    def __init__(self, clean: Tensor, prediction: str, wrapped: bool = True, channels: int = 1):
        super().__init__()
        self.clean, self.prediction, self.wrapped, self.channels = clean, prediction, wrapped, channels
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.ratio = math.nan

    def forward(self, sample: Tensor, timestep: Tensor, class_labels=None, return_dict: bool = True):
        self.seen.append((sample, timestep))
        signal = 1 / math.sqrt(1 + self.ratio**2)
        noise = self.ratio * signal
        epsilon = (sample - signal * self.clean) / noise
        out = {"epsilon": epsilon, "sample": self.clean, "v_prediction": signal * epsilon - noise * self.clean}
        found = out[self.prediction].repeat(1, self.channels, 1, 1)
        return SimpleNamespace(sample=found) if self.wrapped else found


class Cropped(nn.Module):
    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample[..., :3]


LINEAR = noise_schedule({"beta_schedule": "linear"})


class TestDiffusion:
    @pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
    def test_a_network_that_knows_the_noise_removes_it(self, prediction):
        x, e = images(3), torch.randn(3, 1, 4, 5, generator=generator(), dtype=torch.float64)
        for sigma in (0.12, 0.5, 1.0):
            network = StandIn(2 * x - 1, prediction, wrapped=sigma != 0.5, channels=2 if sigma == 1.0 else 1)
            network.ratio = 2 * sigma
            denoiser = DiffusionDenoiser(network, LINEAR, prediction)
            assert torch.allclose(denoiser(x + sigma * e, sigma), x, atol=1e-6)
            ((sample, timestep),) = network.seen
            assert torch.allclose(sample, (2 * (x + sigma * e) - 1) / math.sqrt(1 + 4 * sigma**2))
            ratios = torch.sqrt((1 - LINEAR) / LINEAR)
            below, above = int((ratios < 2 * sigma).sum()) - 1, int((ratios < 2 * sigma).sum())
            assert timestep.shape == (3,)
            assert int(timestep[0]) in (below, above)
            assert ratios[int(timestep[0])] == pytest.approx(2 * sigma, rel=0.02)

    def test_estimates_stay_in_range(self):
        network = StandIn(torch.full((1, 1, 4, 5), 3.0), "sample")
        network.ratio = 1.0
        assert torch.equal(DiffusionDenoiser(network, LINEAR, "sample")(images(1), 0.5), torch.ones(1, 1, 4, 5))

    def test_schedules(self):
        """The constants that DDPM (Ho et al. 2020) and Nichol & Dhariwal (2021) state."""
        assert float(LINEAR[0]) == pytest.approx(1 - 1e-4)
        assert float(LINEAR[-1]) == pytest.approx(4.0358e-5, rel=1e-4)
        steps = 50
        cosine = noise_schedule({"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": steps})
        f = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
        assert np.allclose(cosine[:-1], f[1:-1] / f[0], rtol=1e-9)
        scaled = noise_schedule({"beta_schedule": "scaled_linear", "beta_start": 0.01, "beta_end": 0.04,
                                 "num_train_timesteps": 3})
        assert np.allclose(scaled, np.cumprod([0.99, 1 - 0.15**2, 0.96]))
        assert np.allclose(noise_schedule({"trained_betas": [0.1, 0.2]}), [0.9, 0.72])
        for config in ({"beta_schedule": "sigmoid"}, {"num_train_timesteps": 1}, {"trained_betas": [0.5, 1.0]}):
            with pytest.raises(InputError, match=r"beta|num_train_timesteps"):
                noise_schedule(config)

    def test_mistakes(self):
        with pytest.raises(InputError, match="prediction_type"):
            DiffusionDenoiser(nn.Identity(), LINEAR, "score")
        short = DiffusionDenoiser(nn.Identity(), LINEAR[:300])
        with pytest.raises(InputError, match="schedule ends at sigma 0"):
            short(images(), 2.0)
        with pytest.raises(ModelError, match="got"):
            DiffusionDenoiser(Cropped(), LINEAR)(images(), 0.5)

    @pytest.mark.parametrize("parts", [("unet", "scheduler"), ("", "")])
    def test_a_folder_is_read_as_json_and_safetensors(self, tmp_path, monkeypatch, parts):
        asked = []

        class UNet2DModel:
            @staticmethod
            def from_pretrained(folder, **options):
                asked.append((folder, options))
                return nn.Identity()

        monkeypatch.setitem(sys.modules, "diffusers", SimpleNamespace(UNet2DModel=UNet2DModel))
        with pytest.raises(FileError, match=r"scheduler_config\.json"):
            load_diffusion(tmp_path)
        network, scheduler = (tmp_path / part for part in parts)
        network.mkdir(exist_ok=True)
        scheduler.mkdir(exist_ok=True)
        config = {"beta_schedule": "linear", "num_train_timesteps": 10, "prediction_type": "v_prediction"}
        (scheduler / "scheduler_config.json").write_text(json.dumps(config))
        found = load_diffusion(tmp_path)
        assert asked == [(network, {"use_safetensors": True})]
        assert (found.prediction, len(found.abar), found.training, found.sigma) == ("v_prediction", 10, False, None)
        for content, words in (("{", "corrupt"), ("[]", "no scheduler's config"), ("[" * 9999, "nested")):
            (scheduler / "scheduler_config.json").write_text(content)
            with pytest.raises(FileError, match=words):
                load_diffusion(tmp_path)
        for change in ({"num_train_timesteps": 10**12}, {"beta_start": "x"}):
            (scheduler / "scheduler_config.json").write_text(json.dumps({**config, **change}))
            with pytest.raises(InputError, match=r"num_train_timesteps|gives no betas"):
                load_diffusion(tmp_path)

    def test_without_the_library(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "diffusers", None)
        with pytest.raises(MissingExtraError, match=r"smoothcert\[diffusion\]"):
            load_diffusion("anywhere")

    @pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
    def test_with_the_library(self, tmp_path):
        diffusers = pytest.importorskip("diffusers")
        network = diffusers.UNet2DModel(sample_size=8, in_channels=1, out_channels=1, layers_per_block=1,
                                        block_out_channels=(8, 8), norm_num_groups=4,
                                        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)
        network.save_pretrained(tmp_path / "unet")
        diffusers.DDPMScheduler().save_pretrained(tmp_path / "scheduler")
        denoiser = load_diffusion(tmp_path)
        y = torch.rand(2, 1, 8, 8, requires_grad=True)
        out = denoiser(y, 0.5)
        assert out.shape == y.shape
        assert torch.autograd.grad(out.sum(), y)[0].isfinite().all()
        assert torch.allclose(denoiser.abar.float(), diffusers.DDPMScheduler().alphas_cumprod, rtol=1e-4)
