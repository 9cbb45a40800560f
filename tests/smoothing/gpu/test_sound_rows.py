"""Sound noise on a GPU: the host's bits, and samples that a kernel cannot draw are judged again."""

import re

import numpy as np
import pytest
import torch

from kernels import DEVICE, needs_triton
from ptx import compile_kernel
from smoothcert.errors import EngineWarning
from smoothcert.noise import SoundNoise, build_noise
from smoothcert.smoothing import Sampling, open_voter, sampling
from smoothcert.smoothing.contract import Conduct
from smoothcert.smoothing.gpu.opening import open_rows
from smoothcert.smoothing.gpu.rows import Round, SentRows
from smoothcert.smoothing.gpu.sound_rows import SoundRows
from smoothcert.smoothing.rows import HostRows, Segment, Subject

pytestmark = needs_triton

SHAPE, FORMAT = (3, 5, 7), "sound-philox-v1"
IMAGES = np.random.default_rng(0).integers(0, 256, (4, *SHAPE)).astype(np.float32) / np.float32(255)
COARSE = 1e-4  # a sigma of 104 steps: off the grid 3 in 1,000 values are of the rest


def segments(noise, scale):
    subjects = [Subject(key, noise.centre(image * (scale if key == 2 else 1))) for key, image in enumerate(IMAGES)]
    return [Segment(subjects[k], stage, start, n) for k, stage, start, n in (
        (0, "estimate", 5, 20), (2, "select", 2**33, 60), (0, "select", 0, 1), (3, "estimate", 1, 9))]


@pytest.mark.parametrize(("sigma", "scale"), [(0.01, 1.0), (COARSE, 0.999)], ids=["on the grid", "one off it"])
def test_the_gpu_draws_the_rows_of_the_host(sigma, scale):
    noise = build_noise("sound", sigma)
    parts, on_device = segments(noise, scale), SoundRows(noise, SHAPE, 105, 7, DEVICE)
    wanted = HostRows(noise, SHAPE, 7, FORMAT, DEVICE).draw(parts).clone()
    assert torch.equal(on_device.draw(parts), wanted)
    found, first = Round(parts, DEVICE), torch.zeros(1, dtype=torch.int64, device=DEVICE)
    on_device.begin(found, 90)
    for start in range(0, found.total, 30):
        rows, marked = on_device.take(30, first), on_device.odd[start : start + 30] > 0
        right = (rows == wanted[start : start + 30]).flatten(1).all(dim=1)
        assert torch.equal(right, ~marked)
        first.add_(30)
    assert bool((on_device.odd > 0).any()) == (sigma == COARSE and scale != 1.0)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    kinds = {"device": lambda noise, shape, seed, device: SoundRows(noise, shape, 105, seed, device),
             "host": lambda noise, shape, seed, device: HostRows(noise, shape, seed, FORMAT, device)}

    def opened(model, kind, **how):
        monkeypatch.setattr(sampling, "choose_rows", lambda noise, space, shape, seed, device, how: kinds[kind](
            noise, shape, seed, device))
        how = {"engine": "plain", "noise_format": FORMAT, "batch_size": 16, **how}
        return open_voter(model, build_noise("sound", COARSE), 2, SHAPE, 7, None, Sampling(**how), Conduct()).voter

    return opened


class Parity(torch.nn.Module):
    """Answers by a bit that every value of a row decides, so that a single wrong one turns the vote."""

    def forward(self, rows):
        steps = (rows.double() * (255 * 4096)).round().flatten(1).sum(dim=1)
        odd = torch.remainder(steps, 2).float()
        return torch.stack([odd, 1 - odd], dim=1)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_samples_that_were_drawn_wrongly_are_judged_again(as_on_a_gpu, precision, monkeypatch):
    """By the plain model, and in reduced precision, where there is no referee, by the engine in its own batches."""
    monkeypatch.setattr("smoothcert.smoothing.precision.Narrow", lambda model, dtype: model)
    found, plain = (as_on_a_gpu(Parity(), kind, precision=precision) for kind in ("device", "host"))
    image = IMAGES[2] * np.float32(0.999)
    counts = [voter.count([Segment(voter.subject(image, 2), "estimate", 3, 200),
                           Segment(voter.subject(IMAGES[0], 0), "select", 0, 50)]) for voter in (found, plain)]
    assert np.array_equal(*counts)
    assert counts[0].min() > 0
    assert bool(found._rows.odd.any())


def test_a_gpu_draws_it_by_default():
    class Own(SoundNoise):
        def place(self, out, values, fraction=None):
            return super().place(out, values, fraction) * 2

    rows = open_rows(build_noise("sound", COARSE), SHAPE, 105, 7, FORMAT, DEVICE)
    assert type(rows) is SoundRows
    assert rows.format == FORMAT
    with pytest.warns(EngineWarning, match="on the host and not on the GPU: its kernel knows no other arithmetic"):
        assert type(open_rows(Own(COARSE), SHAPE, 105, 7, FORMAT, DEVICE)) is SentRows


@pytest.mark.slow
def test_compiled_it_computes_in_whole_numbers(tmp_path):
    """For a Hopper GPU: beside whole numbers one sum, one product, and the cut at the grid's ends."""
    types = {"out": "*fp32", "odd": "*i8", "table": "*i64", "owner": "*i32", "first": "*i64", "centres": "*fp32",
             "shifted": "*fp32", "cuts": "*i32", "codes": "*i32", "rows": "i32", "values": "i32", "width": "i32",
             "end": "fp32", "step": "fp32", "filler": "fp32"}
    ptx = compile_kernel(tmp_path, "smoothcert.smoothing.gpu.sound_kernel", "_draw", types,
                         {"ROWS": 8, "PAIRS": 32, "SHIFTED": True, "CHANNELS": 3})
    operations = set(re.findall(r"^\s+([a-z][a-z0-9_.]*\.f32)(?:\.\w+)?\s", ptx, re.MULTILINE))
    arithmetic = {name for name in operations if name.split(".")[0] not in ("mov", "ld", "st", "selp", "setp")}
    assert arithmetic <= {"cvt.rn.f32", "cvt.rzi.s32.f32", "add.f32", "add.rn.f32", "sub.rn.f32", "mul.f32",
                          "mul.rn.f32", "min.f32", "max.f32", "neg.f32"}
