"""The tests that compute, under the settings that make this processor compute as others do: `make test-portability`.

MKL, ATen, oneDNN, OpenBLAS and NumPy each choose their kernels by the processor, and each has a variable that makes it
choose others. For every row of `SETTINGS` a process of its own says which kernels it got, so that a name which switches
nothing off is found out, and draws and counts; then the tests run whose results hang on those kernels. What is drawn in
the formats that promise equal bits on every processor, and what is counted on it, has to have the digests of
`PROMISED`. A setting that this processor or these releases do not have is skipped, with the reason.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

PROMISED = {
    "sfc64-v1": "bc50528f0a773d66",
    "philox-v1": "947b666640bc38f8",
    "sound-v1": "2f6629d10dc249f3",
    "sound-philox-v1": "5cddd7d1c15f5c02",
    "words of sfc64-bm-v1": "d968f3f92c4c5e61",
    "counts": "2f3e5bbd2d8a93a3",
    "looks": "5640ddcb33f499e2",
}
"""Digests by name, as every processor has them. Stored, because runs of one machine can only show that settings agree
with one another; the tests of each format hold its bits against whole-number arithmetic."""

SUMS = ("smoothing/spaces", "smoothing/voters", "smoothing/smoothing", "objectives/objectives", "objectives/formulas",
        "training/distributed")
LAYERS = ("smoothing/engines", "smoothing/smoothing", "smoothing/contract", "models/models", "objectives/objectives",
          "objectives/formulas")
FUNCTIONS = ("noise/noise", "noise/sound", "stats/binomial", "stats/radius", "stats/procedures", "stats/sequential",
             "stats/rounding", "smoothing/spaces", "smoothing/voters", "verify/verify")


@dataclass(frozen=True)
class Setting:
    """A row of the table.

    Attributes:
        environment: the variables that are set.
        needs: NumPy's name of the processor's feature without which there is nothing to set.
        took_effect: whether the kernels that `probe` tells of are those asked for.
        tests: the test files that depend on them, as room/name.
    """

    environment: dict[str, str]
    needs: str
    took_effect: Callable[[dict[str, Any]], bool]
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        return " ".join(f"{name}={value!r}" if " " in value else f"{name}={value}"
                        for name, value in self.environment.items())


def mkl(branch: str, needs: str) -> Setting:
    """On a processor that is not Intel's, MKL takes a branch of its own choice for one that it has for Intel's only."""
    return Setting({"MKL_CBWR": branch}, needs, lambda got: got["mkl"] in (branch, "AUTO"), SUMS)


def aten(capability: str, needs: str) -> Setting:
    return Setting({"ATEN_CPU_CAPABILITY": capability}, needs, lambda got: got["aten"] == capability.upper(),
                   (*SUMS, "noise/noise"))


def openblas(core: str, needs: str, *kernels: str) -> Setting:
    return Setting({"OPENBLAS_CORETYPE": core}, needs, lambda got: set(got["openblas"]) <= set(kernels),
                   ("smoothing/spaces", "smoothing/voters", "stats/linear_statistics"))


def numpy_without(*features: str) -> Setting:
    return Setting({"NPY_DISABLE_CPU_FEATURES": " ".join(features)}, features[0],
                   lambda got: not set(features) & set(got["numpy"]), FUNCTIONS)


SETTINGS = (
    mkl("COMPATIBLE", "SSE2"),
    mkl("AVX2", "AVX2"),
    mkl("AVX512", "X86_V4"),
    aten("default", "SSE2"),
    aten("avx2", "AVX2"),
    Setting({"ONEDNN_MAX_CPU_ISA": "AVX2"}, "AVX2", lambda got: got["onednn"] == "Intel AVX2", LAYERS),
    openblas("HASWELL", "AVX2", "Haswell"),
    openblas("SKYLAKEX", "X86_V4", "SkylakeX"),
    openblas("ZEN", "AVX2", "Zen", "Haswell"),
    numpy_without("X86_V4", "AVX512_ICL", "AVX512_SPR"),
    numpy_without("X86_V3", "X86_V4", "AVX512_ICL", "AVX512_SPR"),
)


# ---------------------------------------------------------------- in a process of its own


def probe() -> dict[str, Any]:
    """The kernels of this process (MKL and oneDNN print theirs, see `probed`), and the digests of what it draws."""
    import scipy.linalg  # noqa: F401  its OpenBLAS is another than NumPy's
    import threadpoolctl
    import torch
    from numpy._core._multiarray_umath import __cpu_features__ as features

    square = torch.ones(64, 64, dtype=torch.float64)
    square @ square
    torch.nn.Conv2d(3, 8, 3)(torch.ones(2, 3, 16, 16))
    return {
        "aten": torch.backends.cpu.get_cpu_capability(),
        "numpy": sorted(name for name, there in features.items() if there),
        "openblas": sorted({str(found["architecture"]) for found in threadpoolctl.threadpool_info()
                            if found["internal_api"] == "openblas"}),
        "digests": {**drawn(), "counts": digest(*counted()), "looks": digest(*looked())},
    }


def digest(*arrays: Any) -> str:
    import numpy as np

    told = hashlib.sha256()
    for array in arrays:
        told.update(np.ascontiguousarray(array, np.asarray(array).dtype.newbyteorder("<")).tobytes())
    return told.hexdigest()[:16]


def drawn() -> dict[str, str]:
    """Noisy copies of images on the grid and off it, in every format; of `sfc64-bm-v1` its words and its normals."""
    import numpy as np

    from smoothcert.noise import BoxMullerStream, build_noise

    found = {}
    on_grid = np.arange(192).reshape(3, 8, 8).astype(np.float32) / np.float32(255)
    for stream_format, kinds, sigmas in (
            ("sfc64-v1", ("gaussian", "grid"), (0.12, 0.5)), ("philox-v1", ("gaussian", "grid"), (0.12, 0.5)),
            ("sound-v1", ("sound",), (0.12, 0.5)), ("sound-philox-v1", ("sound",), (1e-4, 1e-3))):
        copies = []
        for noise in (build_noise(kind, sigma, 255) for kind in kinds for sigma in sigmas):
            for image in (on_grid, on_grid * np.float32(0.77)):
                centre = noise.centre(image)
                rows = np.empty((230, image.size), np.float32)
                noise.stream(7, 3, "estimate", centre, 50, stream_format).fill(rows)
                noise.place(rows, centre.values, centre.fraction)
                copies.append(rows)
        found[stream_format] = digest(*copies)
    normals = np.empty((20_000, 9), np.float32)
    BoxMullerStream(7, 3, "estimate", 9).fill(normals)
    return {**found, "words of sfc64-bm-v1": digest(BoxMullerStream(7, 3, "estimate", 9).words(20_000)),
            "sfc64-bm-v1": digest(normals)}


def network(bend: bool) -> Any:
    """Weights are multiples of 1/64 from whole numbers: torch's own normals differ between processors."""
    import numpy as np
    import torch
    from torch import nn

    random = np.random.default_rng(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU() if bend else nn.Identity(), nn.Flatten(), nn.Linear(216, 5))
    with torch.no_grad():
        for values in net.parameters():
            values.copy_(torch.from_numpy(random.integers(-32, 33, values.shape) / 64))
    return net.eval()


def images() -> Any:
    import torch

    return (torch.arange(4 * 192).reshape(4, 3, 8, 8) * 37 % 256).float() / 255


def counted() -> list[Any]:
    """Votes of a network in every format that promises its bits, in two engines."""
    from smoothcert import SmoothedClassifier

    found = []
    for noise, engine in (("grid", "plain"), ("grid", "eager"), ("gaussian", "plain"), ("sound", "plain")):
        g = SmoothedClassifier(network(True), sigma=0.5, num_classes=5, seed=1, noise=noise, engine=engine)
        found += [p.counts for p in g.predict(images(), n=2000, index=[0, 1, 2, 3])]
    return found


def looked() -> list[Any]:
    """Votes at every look of the sequential procedures, which limits and radii decide on."""
    from smoothcert import SmoothedClassifier

    g = SmoothedClassifier(network(True), sigma=0.5, num_classes=5, seed=1)
    designs = [{"radii": [0.05, 0.1, 0.3], "n_max": 5000}, {"curve_loss": 0.1, "n_max": 5000},
               {"radii": [0.05, 0.1, 0.3], "n_max": 5000, "method": "cohen"}, {"n": 129, "method": "cohen"}]
    found = [c for design in designs for c in g.certify(images(), index=[0, 1, 2, 3], **design)]
    return [look for c in found for look in (c.selection, *c.looks)]


# ---------------------------------------------------------------- from outside


def environment(setting: Setting | None, **more: str) -> dict[str, str]:
    """This process's variables without any of the table's, but for those of the setting."""
    others = {name for row in SETTINGS for name in row.environment}
    paths = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    return {**{name: value for name, value in os.environ.items() if name not in others}, "OMP_NUM_THREADS": "1",
            "PYTHONPATH": paths, **more, **(setting.environment if setting else {})}


def probed(setting: Setting | None) -> dict[str, Any]:
    """What `probe` tells under a setting; MKL's branch and oneDNN's instruction set, None where they are not used."""
    told = subprocess.run([sys.executable, __file__, "--probe"], capture_output=True, text=True, timeout=300,
                          check=False, env=environment(setting, MKL_VERBOSE="1", ONEDNN_VERBOSE="1"))
    lines = [line for line in told.stdout.splitlines() if line.startswith("{")]
    if told.returncode or not lines:
        raise RuntimeError((told.stderr or told.stdout)[-2000:])
    printed = {"mkl": r"MKL_VERBOSE .*GEMM.* CNR:(\w+)", "onednn": r"onednn_verbose.*,isa:(.+)"}
    matches = {name: re.search(pattern, told.stdout) for name, pattern in printed.items()}
    return {**json.loads(lines[-1]), **{name: match and match[1] for name, match in matches.items()}}


def lacking(setting: Setting, plain: dict[str, Any]) -> str | None:
    """Why a setting cannot be tried here, if so; `plain` are the kernels without any."""
    library = {"MKL_CBWR": "mkl", "ONEDNN_MAX_CPU_ISA": "onednn", "OPENBLAS_CORETYPE": "openblas"}
    for name in setting.environment:
        if name in library and not plain[library[name]]:
            return f"{library[name]} is not in use here"
    if setting.needs not in plain["numpy"]:
        return f"NumPy here knows of no {setting.needs} on this processor ({platform.machine()})"
    return None


def run(setting: Setting, plain: dict[str, Any]) -> tuple[str, str]:
    """("passed", "skipped" or "FAILED", in words) for a setting."""
    if reason := lacking(setting, plain):
        return "skipped", reason
    found = probed(setting)
    kernels = ", ".join(f"{name} {found[name]}" for name in ("mkl", "aten", "onednn"))
    kernels += f", openblas {'/'.join(found['openblas'])}, numpy {max(set(found['numpy']) & set(LEVELS), default='-')}"
    if not setting.took_effect(found):
        return "FAILED", f"it switches nothing: {kernels}"
    wrong = [name for name, value in PROMISED.items() if found["digests"][name] != value]
    if wrong:
        return "FAILED", f"{', '.join(wrong)}: other than on every processor ({found['digests']})"
    files = [str(ROOT / "tests" / room / f"test_{name}.py") for room, name in map(os.path.split, setting.tests)]
    tests = subprocess.run([sys.executable, "-m", "pytest", "-n", "0", "-m", "not slow", "-p", "no:cacheprovider",
                            *files], env=environment(setting), capture_output=True, text=True, cwd=ROOT, check=False)
    if tests.returncode:
        return "FAILED", f"{kernels}\n{tests.stdout[-6000:]}{tests.stderr[-2000:]}"
    same = "as" if found["digests"]["sfc64-bm-v1"] == plain["digests"]["sfc64-bm-v1"] else "other than"
    return "passed", f"{kernels}; sfc64-bm-v1 {same} without it; {tests.stdout.strip().splitlines()[-1]}"


LEVELS = ("X86_V2", "X86_V3", "X86_V4")


def main() -> int:
    started, tally = time.perf_counter(), {"passed": 0, "FAILED": 0, "skipped": 0}
    plain = probed(None)
    if wrong := [name for name, value in PROMISED.items() if plain["digests"][name] != value]:
        print(f"FAILED  {', '.join(wrong)}: other than on every processor, without any setting ({plain['digests']})")
        tally["FAILED"] += 1
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for setting, (outcome, words) in zip(SETTINGS, pool.map(lambda one: run(one, plain), SETTINGS), strict=True):
            tally[outcome] += 1
            print(f"{outcome:8}{setting.name}\n        {words}", flush=True)
    spent = os.times()
    print(f"{time.perf_counter() - started:.0f} s, {spent.children_user + spent.children_system:.0f} s of processors")
    print(f"portability: {tally['passed']} passed, {tally['FAILED']} failed, {tally['skipped']} skipped")
    return 1 if tally["FAILED"] else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--probe"]:
        print("\n" + json.dumps(probe()))
    else:
        sys.exit(main())
