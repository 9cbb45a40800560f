"""The parts of the GPU's benchmark that are right or wrong; see gpu.py."""

import warnings
from importlib.util import find_spec

import numpy as np
import torch
from gpu_setting import Finding, Setting
from networks import CLASSES

from smoothcert.errors import EngineWarning
from smoothcert.noise import open_stream, row_key
from smoothcert.smoothing.gpu import shortcuts
from smoothcert.smoothing.gpu.referee import ROWS, Referee, open_referee
from smoothcert.smoothing.gpu.shortcuts import NAMES, is_taken
from smoothcert.smoothing.gpu.votes import choose_write, write_plainly
from smoothcert.smoothing.precision import tf32
from smoothcert.smoothing.voters import is_close

NO_KERNEL = "no GPU with Triton"


def check_switches(setting: Setting) -> list[Finding]:
    """Versions, memory, and whether torch's switches of TF32 read back as they are set."""
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32
    with tf32(False):
        off = cudnn.allow_tf32
    with tf32(True):
        on = cudnn.allow_tf32
    right = (off, on, cudnn.allow_tf32) == (False, True, before)
    words = f"off {off}, on {on}, as before {cudnn.allow_tf32 == before}"
    found = [Finding("", "TF32 reads back as set", right, words)]
    if setting.on_gpu:
        told = torch.cuda.get_device_properties(setting.device)
        words = (f"{told.name}, {told.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, cuDNN "
                 f"{cudnn.version()}, torch {torch.__version__}")
        found.append(Finding("", "card", None, words))
    return found


def check_noise(setting: Setting) -> list[Finding]:
    """The kernel's normals beside its twin's, to the bit; positions past 2^32, and more than 2^31 values."""
    if not setting.on_gpu or find_spec("triton") is None:
        return [Finding("", "kernel equals its twin", None, NO_KERNEL)]
    from smoothcert.smoothing.philox_kernel import fill_normals

    found = []
    for dimension in (1, 9, 784, 3072, 150_528):
        places = [(0, 0), (5, 17), (2**40, 2**33 + 1)]
        keys = torch.from_numpy(np.stack([row_key(3, image, "estimate") for image, _ in places]).astype(np.int64))
        out = torch.empty(3, dimension, device=setting.device)
        fill_normals(out, keys.to(setting.device), torch.tensor([at for _, at in places], device=setting.device))
        right = all(np.array_equal(out[row].cpu().numpy(), _twin(image, dimension, at))
                    for row, (image, at) in enumerate(places))
        found.append(Finding("", f"kernel equals its twin, {dimension:,} values", right, "3 rows, to the bit"))
    rows = 2**31 // 3072 + 2
    if torch.cuda.mem_get_info(setting.device)[0] > 2 * rows * 3072 * 4:
        out = torch.empty(rows, 3072, device=setting.device)
        key = torch.from_numpy(row_key(3, 1, "estimate").astype(np.int64)).to(setting.device)
        fill_normals(out, key.expand(rows, 3), torch.arange(rows, device=setting.device))
        right = np.array_equal(out[-1].cpu().numpy(), _twin(1, 3072, rows - 1))
        found.append(Finding("", "the last of more than 2^31 values", right, f"{out.numel():,} values"))
    return found


def _twin(image: int, dimension: int, position: int) -> np.ndarray:
    out = np.empty((1, dimension), np.float32)
    open_stream("philox-v1", 3, image, "estimate", dimension, position).fill(out)
    return out[0]


def check_votes(setting: Setting) -> list[Finding]:
    """Whether the vote kernel is used, which it is where it writes its twin's votes."""
    if not setting.on_gpu or find_spec("triton") is None:
        return [Finding("", "kernel equals its twin", None, NO_KERNEL)]
    return [Finding("", f"kernel equals its twin, {classes:,} classes",
                    choose_write(classes, setting.device) is not write_plainly, "70 rows, to the bit")
            for classes in (2, 10, 1000)]


def check_referee(setting: Setting) -> list[Finding]:
    """The plain model's bits in any company, how far a whole batch is from them, and the share of close calls."""
    found = []
    for name in setting.names[:1] if setting.quick else ("lenet", "resnet110"):
        model = setting.network(name).model
        shape = setting.network(name).image.shape
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", EngineWarning)
            referee = open_referee(model, shape, setting.device, random=False)
        found.append(Finding("", f"{name}: same bits in any company of {ROWS}", not told and referee.company,
                             "; ".join(str(w.message) for w in told) or "permuted rows, twice"))
        rows = 0.5 + 0.5 * torch.randn(256 if setting.quick else 4096, *shape, device=setting.device)
        with torch.no_grad(), tf32(False):
            whole, apart = model(rows), Referee(model).judge(rows)
        scale = apart.abs().amax(dim=1)
        worst = float(((whole - apart).abs().amax(dim=1) / scale).max())
        close = float(is_close(apart).float().mean())
        found.append(Finding("", f"{name}: a batch of {len(rows):,} against batches of {ROWS}", worst < 2.5e-5,
                             f"logits differ by {worst:.1e} of their scale, {close:.2%} are close calls",
                             {f"{name} batch error": worst, f"{name} close calls": close}))
    return found


def check_batches(setting: Setting) -> list[Finding]:
    """The same counts whatever the batch."""
    found = []
    n = 300 if setting.quick else 5000
    for name in setting.names[:1] if setting.quick else ("lenet", "resnet20"):
        whole = setting.counts(name, n)
        for batch in (7, 64) if setting.quick else (7, 64, 1000, 4096):
            equal = np.array_equal(setting.counts(name, n, batch_size=batch), whole)
            found.append(Finding("", f"{name}: counts at batch {batch:,}", equal, f"2 images, n = {n:,}"))
        spread = int((whole > 0).sum())
        found.append(Finding("", f"{name}: votes are undecided", spread > 2,
                             f"{spread} of {2 * CLASSES} classes voted"))
    return found


def check_shortcuts(setting: Setting) -> list[Finding]:
    """The same counts with each shortcut taken the other way."""
    name, n = (setting.names[0], 300) if setting.quick else ("resnet20", 20_000)
    batch = 100 if setting.quick else 1000
    whole = setting.counts(name, n, batch_size=batch)
    found = []
    for shortcut in NAMES:
        taken = not is_taken(shortcut)
        with warnings.catch_warnings(record=True) as told, shortcuts(**{shortcut: taken}):
            warnings.simplefilter("always", EngineWarning)
            equal = np.array_equal(setting.counts(name, n, batch_size=batch), whole)
        words = "; ".join(str(w.message) for w in told) or f"n = {n:,}"
        found.append(Finding("", f"{name}: counts {'with' if taken else 'without'} {shortcut}", equal, words))
    return found


def check_memory(setting: Setting) -> list[Finding]:
    """The batch is halved where memory is short, and counts stay."""
    if not setting.on_gpu:
        return [Finding("", "out of memory", None, "no GPU")]
    whole = setting.counts("resnet20", 5000)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(setting.device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", EngineWarning)
            equal = np.array_equal(setting.counts("resnet20", 5000), whole)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    words = "; ".join(str(w.message) for w in told if "memory" in str(w.message))
    return [Finding("", "with room for 256 MiB", equal and bool(words), words or "no batch was halved")]
