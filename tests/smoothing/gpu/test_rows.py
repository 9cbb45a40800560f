"""Rows of a GPU: the host's bits, sent once, and a warning that names the cost where the GPU does not draw them."""


import numpy as np
import pytest
import torch

from kernels import DEVICE, needs_triton
from smoothcert.errors import EngineWarning
from smoothcert.noise import build_noise
from smoothcert.smoothing.gpu import opening, shortcuts
from smoothcert.smoothing.gpu import rows as gpu_rows
from smoothcert.smoothing.gpu.memory import send
from smoothcert.smoothing.gpu.opening import open_rows
from smoothcert.smoothing.gpu.rows import DeviceRows, Round, SentRows
from smoothcert.smoothing.gpu.sound_rows import SoundRows
from smoothcert.smoothing.rows import HostRows, Intake, Segment, Subject

SHAPE = (3, 5, 7)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, *SHAPE)).astype(np.float32) / np.float32(255)


def segments(noise, scale=1.0):
    subjects = [Subject(key, noise.centre(image * (scale if key == 2 else 1))) for key, image in enumerate(IMAGES)]
    return [Segment(subjects[k], stage, start, n) for k, stage, start, n in (
        (0, "estimate", 5, 20), (2, "select", 2**33, 3), (0, "select", 0, 1), (3, "estimate", 1, 9))]


@needs_triton
@pytest.mark.parametrize("scale", [1.0, 0.999], ids=["on the grid", "one off it"])
@pytest.mark.parametrize("kind", ["grid", "gaussian"])
def test_the_gpu_draws_the_rows_of_the_host(kind, scale):
    noise = build_noise(kind, 0.5)
    on_device, on_host = DeviceRows(noise, SHAPE, 105, 7, DEVICE), HostRows(noise, SHAPE, 7, "philox-v1", DEVICE)
    wanted = on_host.draw(segments(noise, scale)).clone()
    assert torch.equal(on_device.draw(segments(noise, scale)), wanted)
    found, first = Round(segments(noise, scale), DEVICE), torch.zeros(1, dtype=torch.int64, device=DEVICE)
    on_device.begin(found, 40)
    for start in range(0, found.total, 10):
        n = min(10, found.total - start)
        assert torch.equal(on_device.take(n, first), wanted[start : start + n])
        first.add_(n)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("kind", "rows"), [("grid", DeviceRows), ("gaussian", DeviceRows), ("sound", SoundRows)])
def test_rows_are_written_as_a_network_reads_them(kind, rows, dtype):
    """The same values, rounded once, with the channels last; what the referee judges stays as it was."""
    noise = build_noise(kind, 0.5)
    on_device = rows(noise, SHAPE, 105, 7, DEVICE)
    wanted = HostRows(noise, SHAPE, 7, on_device.format, DEVICE).draw(segments(noise, 0.999)).clone()
    on_device.intake = Intake(channels_last=True, dtype=dtype)
    found = Round(segments(noise, 0.999), DEVICE)
    on_device.begin(found, found.total)
    written = on_device.take(found.total, torch.zeros(1, dtype=torch.int64, device=DEVICE))
    assert written.is_contiguous(memory_format=torch.channels_last)
    assert written.dtype == dtype
    right = slice(None) if on_device.odd is None else on_device.odd[: found.total] == 0
    rounded = wanted.to(dtype)
    if (DEVICE.type, dtype) == ("cpu", torch.bfloat16):  # Triton's interpreter cuts the bits off
        rounded = (wanted.view(torch.int32) & -(2**16)).view(torch.float32).to(dtype)
    assert torch.equal(written[right], rounded[right])
    drawn = on_device.draw(segments(noise, 0.999))
    assert drawn.is_contiguous()
    assert torch.equal(drawn, wanted)


@needs_triton
def test_a_noise_with_a_place_of_its_own_is_placed_by_it():
    class Doubled(type(build_noise("gaussian", 0.5))):
        def place(self, out, values, fraction=None):
            out = super().place(out, values, fraction)
            out *= 2
            return out

    noise = Doubled(0.5)
    found = DeviceRows(noise, SHAPE, 105, 7, DEVICE).draw(segments(noise))
    assert torch.equal(found, HostRows(noise, SHAPE, 7, "philox-v1", DEVICE).draw(segments(noise)))


@needs_triton
def test_a_round_sends_what_is_new_and_a_batch_nothing(monkeypatch):
    noise, sent = build_noise("grid", 0.5), []
    rows = DeviceRows(noise, SHAPE, 105, 7, DEVICE)
    monkeypatch.setattr(gpu_rows, "send", lambda array, device: sent.append(array.shape) or send(array, device))
    parts, first = segments(noise), torch.zeros(1, dtype=torch.int64, device=DEVICE)
    rows.begin(Round(parts, DEVICE), 40)
    assert (3, 105) in sent, "the centres of three images"
    sent.clear()
    rows.take(10, first)
    rows.take(10, first)
    assert not sent
    generation = rows.generation
    rows.draw([rows.single(parts[1], 2)])  # a close call
    rows.begin(Round([Segment(s.subject, s.stage, s.start + s.n, 2) for s in parts], DEVICE), 40)
    assert not [shape for shape in sent if shape[-1] == 105], "no centre twice"
    assert rows.generation == generation


def test_segments_are_cut_where_a_batch_begins_and_ends():
    found = Round(segments(build_noise("grid", 0.5)), DEVICE)
    assert [(s.stage, s.start, s.n) for s in found.cut(18, 25)] == [
        ("estimate", 23, 2), ("select", 2**33, 3), ("select", 0, 1), ("estimate", 1, 1)]
    assert found.owner.tolist() == [0] * 20 + [1] * 3 + [2] + [3] * 9
    assert [(s.start, k) for s, k in found.places(np.array([0, 22, 32]))] == [(5, 0), (2**33, 2), (1, 8)]


def test_memory_that_is_sent_to_a_gpu_is_pinned(monkeypatch):
    """A stand-in for the GPU: what torch is asked for."""
    seen = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: seen.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, non_blocking=False: seen.append(non_blocking) or self)
    send(np.zeros(3), torch.device("cuda"))
    assert seen == ["pinned", True]
    send(np.zeros(3), torch.device("cpu"))
    assert len(seen) == 2


def test_rows_of_the_host_go_through_pinned_memory(monkeypatch):
    """Drawn again only when the copy of what was there is done."""
    steps, empty = [], torch.empty

    class Event:
        def record(self, stream):
            steps.append("copied")

        def synchronize(self):
            steps.append("waited")

    monkeypatch.setattr(torch, "empty", lambda size, pin_memory: steps.append(pin_memory) or empty(size))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, non_blocking: steps.append(non_blocking) or self)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    noise = build_noise("grid", 0.5)
    rows = SentRows(noise, SHAPE, 7, "sfc64-v1", torch.device("cuda"))
    rows.draw(segments(noise))
    rows.draw(segments(noise))
    assert steps == [True, True, True, "copied", "waited", True, "copied"]


# What is done without a kernel

def rows_for(kind, wanted, device=DEVICE):
    return open_rows(build_noise(kind, 0.5), SHAPE, 105, 7, wanted, device)


def test_without_triton_a_warning_names_the_cost(monkeypatch):
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    with pytest.warns(EngineWarning, match=r"drawn on the host.*Triton is not installed.*at most about [\d,]+ samples"):
        assert type(rows_for("grid", "philox-v1")) is SentRows


def test_without_a_compiler_rows_are_drawn_on_the_host(monkeypatch):
    class Broken(DeviceRows):
        def __init__(self, *given):
            raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    monkeypatch.setattr(opening, "find_spec", lambda name: object())
    monkeypatch.setitem(opening.ON_DEVICE, "philox-v1", Broken)
    with pytest.warns(EngineWarning, match=r"needs a C compiler \(RuntimeError: Failed to find.*samples a second"):
        assert type(rows_for("grid", "philox-v1")) is SentRows


def test_a_kernel_with_other_bits_is_not_used(monkeypatch):
    class Wrong(HostRows):
        def __init__(self, noise, shape, dimension, seed, device):
            super().__init__(noise, shape, seed + 1, "philox-v1", device)

    monkeypatch.setattr(opening, "find_spec", lambda name: object())
    monkeypatch.setitem(opening.ON_DEVICE, "philox-v1", Wrong)
    with pytest.warns(EngineWarning, match="its kernel does not give the host's bits here"):
        assert type(rows_for("grid", "philox-v1")) is SentRows


def test_sound_noise_on_the_host_is_said():
    with pytest.warns(EngineWarning, match=r"in the format sound-v1 is drawn on the host.*about 328,407 samples"):
        assert type(rows_for("sound", "sound-v1")) is SentRows


@needs_triton
@pytest.mark.filterwarnings("error::smoothcert.errors.EngineWarning")
def test_with_a_kernel_nothing_is_said():
    assert type(rows_for("grid", "philox-v1")) is DeviceRows
    with shortcuts(noise_kernel=False):
        assert type(rows_for("grid", "philox-v1")) is SentRows
    assert type(rows_for("grid", "sfc64-v1")) is SentRows
