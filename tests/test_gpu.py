"""The GPU path against its twin on the CPU; skipped where there is no GPU."""

import numpy as np
import pytest
import torch

from centred import centred
from smoothcert.noise import build_noise, open_stream, row_key
from smoothcert.smoothing import Sampling, Segment, open_voter
from smoothcert.smoothing.gpu import graphs, shortcuts
from smoothcert.smoothing.gpu.referee import open_referee
from smoothcert.smoothing.gpu.rows import DeviceRows
from smoothcert.smoothing.gpu.votes import choose_write, write_plainly
from smoothcert.smoothing.rows import HostRows, Subject

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SHAPE = (3, 32, 32)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SHAPE)).astype(np.float32) / np.float32(255)


def network(name: str = "resnet20") -> torch.nn.Module:
    """Undecided, so that counts show every vote that moves; tests/smoothing/gpu/test_voter.py sees that it is."""
    return centred(name, SHAPE, IMAGES)


def counts(model, device: str, n: int = 700, **how) -> np.ndarray:
    voter = open_voter(model.to(device), build_noise("grid", 0.5), 10, SHAPE, seed=7,
                       how=Sampling(noise_format="philox-v1", device=torch.device(device), **how)).voter
    return voter.count([Segment(voter.subject(image, key), "estimate", 5, n) for key, image in enumerate(IMAGES)])


def test_the_kernel_is_its_twin():
    from smoothcert.smoothing.philox_kernel import fill_normals

    for dimension in (1, 9, 3072):
        keys = np.stack([row_key(3, image, "estimate") for image in (0, 5, 2**40)]).astype(np.int64)
        positions = np.array([0, 17, 2**33 + 1])
        out = torch.empty(3, dimension, device="cuda")
        fill_normals(out, torch.from_numpy(keys).cuda(), torch.from_numpy(positions).cuda())
        for row, (image, position) in enumerate(zip((0, 5, 2**40), positions.tolist(), strict=True)):
            twin = np.empty((1, dimension), np.float32)
            open_stream("philox-v1", 3, image, "estimate", dimension, position).fill(twin)
            assert np.array_equal(out[row].cpu().numpy(), twin[0])


@pytest.mark.parametrize("kind", ["grid", "gaussian"])
def test_rows_on_the_device_are_those_of_the_host(kind):
    noise, device = build_noise(kind, 0.5), torch.device("cuda")
    made = [DeviceRows(noise, SHAPE, 3072, 7, device), HostRows(noise, SHAPE, 7, "philox-v1", device)]
    on_device, on_host = (rows.draw([Segment(Subject(key, noise.centre(image * scale)), "estimate", 3, 20)
                                     for key, (image, scale) in enumerate(zip(IMAGES, (1, 1, 0.999), strict=True))])
                          for rows in made)
    assert torch.equal(on_device, on_host)


def test_the_kernels_normals_follow_the_law():
    """1e8 values: moments, tails to 5 sigma, KS on a part; and stages and images apart."""
    from scipy import special, stats

    noise = build_noise("gaussian", 1.0)
    rows, zero = DeviceRows(noise, SHAPE, 3072, 7, torch.device("cuda")), noise.centre(np.zeros(SHAPE, np.float32))
    parts = [rows.draw([Segment(Subject(key, zero), stage, 0, 8000)]).flatten().double()
             for key, stage in ((0, "select"), (0, "estimate"), (1, "estimate"), (1, "select"))]
    z = torch.stack(parts)
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        spread = np.sqrt((special.factorial2(2 * power - 1) - moment**2) / z.numel())
        assert abs(float((z**power).mean()) - moment) < 4.5 * spread
    for cut in (2, 3, 4, 4.5, 5):
        for side in (z, -z):
            assert stats.binomtest(int((side > cut).sum()), z.numel(), special.ndtr(-cut)).pvalue > 1e-4
    assert stats.kstest(z[0, :1_000_000].cpu().numpy(), "norm").pvalue > 1e-3
    products = (z @ z.T / z.shape[1]).cpu().numpy()
    assert np.abs(products[np.triu_indices(4, 1)]).max() < 4.5 / np.sqrt(z.shape[1])


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.filterwarnings("error::smoothcert.errors.EngineWarning")
def test_sound_noise_is_drawn_on_the_device(precision):
    """On the grid and off it; in float32 with the counts of the CPU."""
    def voted(device: str, **how) -> np.ndarray:
        voter = open_voter(network().to(device), build_noise("sound", 0.5), 10, SHAPE, seed=7,
                           how=Sampling(device=torch.device(device), precision=precision, **how)).voter
        assert voter.format == "sound-philox-v1"
        return voter.count([Segment(voter.subject(image, key), "estimate", 5, 3000)
                            for key, image in enumerate((IMAGES[0], IMAGES[1] * np.float32(0.999)))])

    found = voted("cuda")
    other = {"device": "cpu", "noise_format": "sound-philox-v1"} if precision == "float32" else {"device": "cuda"}
    assert np.array_equal(found, voted(**other))


@pytest.mark.parametrize("engine", ["plain", "eager", "compile"])
def test_counts_are_those_of_the_cpu(engine):
    assert np.array_equal(counts(network(), "cuda", engine=engine), counts(network(), "cpu", engine="plain"))


def test_counts_do_not_depend_on_the_batch():
    whole = counts(network(), "cuda", engine="eager")
    for batch in (7, 64, 1000):
        assert np.array_equal(counts(network(), "cuda", engine="eager", batch_size=batch), whole)


@pytest.mark.filterwarnings("error::smoothcert.errors.EngineWarning")
@pytest.mark.parametrize("shortcut", ["noise_kernel", "vote_kernel", "fused_convolutions", "cuda_graph"])
def test_no_shortcut_changes_a_count(shortcut, monkeypatch):
    """All taken, and each left out; a step that is recorded is used whether it is faster or not."""
    recorded, faults = [], []
    monkeypatch.setattr(graphs, "record", lambda step, device, record=graphs.record: recorded.append(1) or record(
        step, device))
    with shortcuts(cuda_graph=False):
        wanted = counts(network(), "cuda", n=20_000, engine="eager", batch_size=1000)
    monkeypatch.setattr(graphs, "find_fault", lambda *given, find=graphs.find_fault: faults.append(find(*given)))
    with shortcuts(**{shortcut: False}):
        assert np.array_equal(counts(network(), "cuda", n=20_000, engine="eager", batch_size=1000), wanted)
    assert bool(recorded) == (shortcut not in ("cuda_graph", "noise_kernel", "vote_kernel"))
    assert "its votes are others" not in faults


@pytest.mark.filterwarnings("error::smoothcert.errors.EngineWarning")
def test_the_referee_gives_the_same_bits_in_any_company():
    model = network().cuda()
    found = open_referee(model, SHAPE, torch.device("cuda"), random=False)
    assert found.company
    rows = torch.randn(64, *SHAPE, device="cuda")
    assert torch.equal(found.judge(rows), found.judge(rows.flip(0)).flip(0))


def test_the_vote_kernel_is_its_twin():
    for classes in (2, 10, 1000):
        assert choose_write(classes, torch.device("cuda")) is not write_plainly


@pytest.mark.filterwarnings("ignore::smoothcert.errors.EngineWarning")
def test_out_of_memory_halves_the_batch():
    """With room for 256 MiB, where a batch of 4,096 takes more."""
    wanted = counts(network(), "cuda", engine="eager")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    try:
        assert np.array_equal(counts(network(), "cuda", engine="eager"), wanted)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_reduced_precision_is_another_classifier_and_a_near_one(precision):
    found, full = (counts(network(), "cuda", engine="eager", precision=p) for p in (precision, "float32"))
    assert np.array_equal(found, counts(network(), "cuda", engine="eager", precision=precision))
    assert np.abs(found - full).sum() < 0.2 * full.sum()
