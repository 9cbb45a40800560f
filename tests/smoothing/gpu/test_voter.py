"""The GPU's voter on a CPU: with the plain twins, with the kernels in Triton's interpreter, and as a recorded step."""


import numpy as np
import pytest
import torch
from torch import nn

from centred import centred
from kernels import needs_interpreter
from smoothcert.errors import EngineWarning, ModelError
from smoothcert.noise import build_noise
from smoothcert.smoothing import Sampling, Segment, open_voter, sampling
from smoothcert.smoothing.contract import Conduct
from smoothcert.smoothing.engines.torch_engines import FoldedPass
from smoothcert.smoothing.gpu import graphs, shortcuts
from smoothcert.smoothing.gpu import voter as voter_module
from smoothcert.smoothing.gpu.rows import DeviceRows, SentRows
from smoothcert.smoothing.gpu.voter import DeviceVoter
from smoothcert.smoothing.voters import CLOSE_CALL, NetworkVoter

CPU = torch.device("cpu")
SHAPE, K = (1, 6, 6), 5
IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SHAPE)).astype(np.float32) / np.float32(255)


def mlp():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, K)).eval()


@pytest.fixture(params=["twins", pytest.param("kernels", marks=needs_interpreter)])
def as_on_a_gpu(request, monkeypatch):
    """Rows as on a GPU, on the CPU, so that the voter is the GPU's; returns how they are drawn."""

    def rows(noise, space, shape, seed, device, how):
        kind = DeviceRows if request.param == "kernels" else SentRows
        given = (int(np.prod(shape)), seed) if kind is DeviceRows else (seed, "philox-v1")
        return kind(noise, shape, *given, device)

    monkeypatch.setattr(sampling, "choose_rows", rows)
    with shortcuts(vote_kernel=request.param == "kernels"):
        yield request.param


def opened(model, kind="grid", classes=K, conduct=None, denoiser=None, **how):
    how = {"engine": "plain", "noise_format": "philox-v1", "batch_size": 16, **how}
    return open_voter(model, build_noise(kind, 0.5), classes, SHAPE, 3, denoiser, Sampling(**how), conduct).voter


def segments(voter):
    subjects = [voter.subject(image, key) for key, image in enumerate(IMAGES)]
    return [Segment(subjects[k], stage, start, n) for k, stage, start, n in (
        (0, "select", 0, 30), (1, "estimate", 7, 1), (2, "estimate", 100, 75), (0, "estimate", 0, 20))]


def on_cpu(monkeypatch, make):
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "choose_rows", lambda noise, space, shape, seed, device, how: sampling.HostRows(
            noise, shape, seed, "philox-v1", device))
        return make()


@pytest.mark.parametrize("kind", ["grid", "gaussian"])
def test_counts_and_votes_are_those_of_the_cpus_voter(as_on_a_gpu, monkeypatch, kind):
    found, plain = opened(mlp(), kind), on_cpu(monkeypatch, lambda: opened(mlp(), kind))
    assert (type(found), type(plain)) == (DeviceVoter, NetworkVoter)
    for _ in range(2):  # what a round leaves behind does not matter
        assert np.array_equal(found.count(segments(found)), plain.count(segments(plain)))
        assert np.array_equal(found.votes(segments(found)), plain.votes(segments(plain)))


def test_close_calls_go_to_the_plain_model(as_on_a_gpu, monkeypatch):
    """An engine off by all that it may be, and a network whose own near ties are many."""
    model = mlp()
    with torch.no_grad():
        model[-1].weight.mul_(0.01)
        model[-1].bias.zero_()

    def sloppy(rows):
        logits = model(rows)
        sign = torch.where(torch.arange(logits.numel()).view_as(logits) % 2 == 0, 1.0, -1.0)
        return logits + sign * CLOSE_CALL / 4.001 * logits.abs().amax(dim=1, keepdim=True)

    def voter():
        return opened(model, conduct=Conduct())

    plain = on_cpu(monkeypatch, voter)
    wanted = plain.count([Segment(plain.subject(IMAGES[0], 0), "estimate", 0, 4000)])
    found = voter()
    found._passes._run = sloppy
    assert np.array_equal(found.count([Segment(found.subject(IMAGES[0], 0), "estimate", 0, 4000)]), wanted)


def test_the_referee_judges_32_rows_at_once(as_on_a_gpu):
    sizes = []

    def ties(rows):
        sizes.append(len(rows))
        mean = rows.mean(dim=(1, 2, 3))
        return torch.stack([1 + (mean - 0.5) * 1e-4, torch.ones_like(mean)], dim=1)

    found = opened(ties, classes=2, conduct=Conduct(), batch_size=50)
    sizes.clear()
    counts = found.count([Segment(found.subject(IMAGES[0], 0), "estimate", 0, 100)])
    assert sizes == [50, 50, 32, 32, 32, 32]
    assert counts.sum() == 100
    assert counts.min() > 0


def test_the_network_of_the_tests_on_a_gpu_is_undecided():
    """Else nothing of tests/test_gpu.py could fail."""
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32)).astype(np.float32) / np.float32(255)
    rows = torch.from_numpy(images).repeat(200, 1, 1, 1)
    model = centred("resnet20", (3, 32, 32), images)
    with torch.no_grad():
        logits = model(rows + 0.5 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(1)))
    shares = torch.bincount(logits.argmax(dim=1), minlength=10) / len(rows)
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    assert int((shares > 0.01).sum()) >= 5
    assert 0.002 < ((first - second) < 100 * CLOSE_CALL * logits.abs().amax(dim=1)).float().mean() < 0.1


def test_nan_logits_are_refused(as_on_a_gpu):
    found = opened(lambda rows: torch.full((len(rows), K), torch.nan), conduct=Conduct())
    with pytest.raises(ModelError, match="NaN logits"):
        found.count(segments(found))


def test_a_random_denoiser_has_each_rows_own_normals(as_on_a_gpu, monkeypatch):
    class Walk:
        random = True

        def __call__(self, rows, sigma, normals):
            return rows + 0.3 * normals(1, rows)

    found, plain = opened(mlp(), denoiser=Walk()), on_cpu(monkeypatch, lambda: opened(mlp(), denoiser=Walk()))
    assert np.array_equal(found.count(segments(found)), plain.count(segments(plain)))


@needs_interpreter
def test_a_recorded_step_gives_the_same_counts(monkeypatch):
    """The twin of a CUDA graph does the step again: on static buffers, without a look at the host's own numbers."""
    monkeypatch.setattr(sampling, "choose_rows", lambda noise, space, shape, seed, device, how: DeviceRows(
        noise, shape, 36, seed, device))
    recorded = []

    def record(step, device):
        recorded.append(step)
        step()  # the warm-up
        return step

    monkeypatch.setattr(graphs, "record", record)
    monkeypatch.setattr(graphs, "find_fault", lambda replay, step, first, votes: None)
    with shortcuts(cuda_graph=False):
        plain = opened(mlp(), engine="eager")
    found = opened(mlp(), engine="eager")
    for size in (0, 3, 40):  # the last has more segments than the buffers have room for
        extra = [Segment(found.subject(IMAGES[0], 9 + k), "estimate", 0, 2) for k in range(2 * size)]
        assert np.array_equal(found.count(segments(found) + extra), plain.count(segments(plain) + extra))
    assert len(recorded) == 2, "again only where the buffers have changed"
    for broken in (lambda step, device: 1 / 0, lambda step, device: lambda: None):  # or it writes no votes
        monkeypatch.undo()
        monkeypatch.setattr(sampling, "choose_rows", lambda noise, space, shape, seed, device, how: DeviceRows(
            noise, shape, 36, seed, device))
        monkeypatch.setattr(graphs, "record", broken)
        unrecorded = opened(mlp(), engine="eager")
        assert np.array_equal(unrecorded.count(segments(unrecorded)), plain.count(segments(plain)))
    recorded.clear()
    monkeypatch.setattr(graphs, "record", record)
    found = opened(mlp(), engine="plain")
    found.count(segments(found))
    assert not recorded, "the model's own tensors may be replaced"


@needs_interpreter
class TestKernels:
    """With the kernels in Triton's interpreter, and the step itself in place of its recording."""

    @pytest.fixture(autouse=True)
    def kernels(self, monkeypatch):
        monkeypatch.setattr(sampling, "choose_rows", lambda noise, space, shape, seed, device, how: DeviceRows(
            noise, shape, int(np.prod(shape)), seed, device))
        monkeypatch.setattr(graphs, "record", lambda step, device: step)
        monkeypatch.setattr(graphs, "find_fault", lambda replay, step, first, votes: None)

    @pytest.mark.parametrize("precision", ["float32", "fp16"])
    def test_rows_come_as_the_network_reads_them(self, monkeypatch, precision):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, K)).eval()
        with shortcuts(row_layout=False):
            plain = opened(model, engine="eager", precision=precision)
        wanted, read = plain.count(segments(plain)), []
        compute = FoldedPass.__call__
        found = opened(model, engine="eager", precision=precision)
        monkeypatch.setattr(FoldedPass, "__call__", lambda run, rows: (read.append(rows.dtype), compute(run, rows))[1])
        assert np.array_equal(found.count(segments(found)), wanted)
        assert read[0] == {"float32": torch.float32, "fp16": torch.float16}[precision]
        read.clear()
        behind = opened(model, engine="eager", precision=precision, denoiser=lambda rows, sigma: rows)
        behind.count(segments(behind))
        assert set(read) == {torch.float32}, "a denoiser takes float32"

    @pytest.fixture
    def small_batches(self, monkeypatch):
        monkeypatch.setattr(sampling, "default_batch", lambda shape, device, dense: 64)
        monkeypatch.setattr(voter_module, "_LEAST_BATCH", 4)

    @pytest.mark.parametrize(("seconds", "wrong", "taken"), [
        ({64: 4.0, 16: 0.5, 4: 0.2}, 0, 16), ({64: 4.0, 16: 0.5, 4: 0.1}, 0, 4), ({64: 4.0, 16: 2.0, 4: 1.0}, 0, 64),
        ({64: 4.0, 16: 0.5, 4: 0.2}, 16, 4),
    ], ids=["fastest", "smallest", "none is faster", "others vote otherwise"])
    def test_a_long_run_takes_the_fastest_batch(self, monkeypatch, small_batches, seconds, wrong, taken):
        clock = [0.0]
        monkeypatch.setattr(graphs, "_now", lambda device: clock[0])

        def record(step, device):
            def run():
                before = int(found._first)
                step()
                size = int(found._first) - before
                clock[0] += seconds[size]
                if size == wrong:
                    found._votes[before] = (found._votes[before] + 1) % K
            return run

        monkeypatch.setattr(graphs, "record", record)
        monkeypatch.setattr(voter_module, "_TRIAL_SHARE", 10.0)
        with shortcuts(cuda_graph=False):
            plain = opened(mlp(), engine="eager")
        found = opened(mlp(), engine="eager", batch_size=None)
        parts = [[Segment(voter.subject(IMAGES[0], 0), "estimate", 0, 150)] for voter in (plain, found)]
        counts = [found.count(parts[1]) for _ in range(2)]
        assert found.batch == taken
        assert all(np.array_equal(one, plain.count(parts[0])) for one in counts)

    def test_only_a_long_run_of_a_free_batch_tries_others(self, monkeypatch, small_batches):
        found = opened(mlp(), engine="eager", batch_size=None)
        tried = found._smaller
        found.count([Segment(found.subject(IMAGES[0], 0), "estimate", 0, 150)])
        assert tried == found._smaller == [16, 4]
        assert not opened(mlp(), engine="eager", batch_size=64)._smaller
        assert not opened(mlp(), engine="eager", batch_size=None, precision="fp16")._smaller
        with shortcuts(batch_trial=False):
            assert not opened(mlp(), engine="eager", batch_size=None)._smaller


def test_out_of_memory_in_a_round_halves_the_batch(as_on_a_gpu, monkeypatch):
    def small(rows):
        if len(rows) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return model(rows)

    model = mlp()
    plain, found = on_cpu(monkeypatch, lambda: opened(mlp())), opened(model)
    found._passes._run = small
    with pytest.warns(EngineWarning, match="batches of 8.*no result; --batch-size 8 ") as caught:
        assert np.array_equal(found.count(segments(found)), plain.count(segments(plain)))
    assert len([w for w in caught if w.category is EngineWarning]) == 1
