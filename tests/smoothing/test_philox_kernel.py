"""The GPU's kernel writes the twin's normals: on a GPU where there is one, else in Triton's interpreter, which runs the
same operations in NumPy; and, compiled for GPUs that are not there, it holds no operation that could round otherwise.
"""

import re

import numpy as np
import pytest
import torch

from kernels import DEVICE, needs_triton
from ptx import compile_kernel
from smoothcert.errors import InputError
from smoothcert.noise import open_stream, row_key

pytestmark = needs_triton

ROWS = [
    (1, 0, "estimate", 5), (1, 0, "estimate", 6), (1, 0, "select", 5), (1, 1, "estimate", 2**32 - 1),
    (7, 2**200 + 3, "estimate", 2**32), (2**127, 4, "walk", 2**40 + 17), (0, 2**32 - 1, "predict", 0),
]


@pytest.fixture(scope="module")
def fill_normals():
    from smoothcert.smoothing.philox_kernel import fill_normals

    return fill_normals


def kernel(fill_normals, rows, dimension, dtype=torch.int64):
    keys = np.stack([row_key(seed, image, stage) for seed, image, stage, _ in rows]).astype(np.int64)
    out = torch.full((len(rows), dimension), torch.nan, device=DEVICE)
    positions = torch.tensor([position for *_, position in rows], device=DEVICE)
    fill_normals(out, torch.from_numpy(keys).to(dtype).to(DEVICE), positions)
    return out.cpu().numpy()


def twin(rows, dimension):
    out = np.empty((len(rows), dimension), np.float32)
    for at, (seed, image, stage, position) in enumerate(rows):
        open_stream("philox-v1", seed, image, stage, dimension, position).fill(out[at : at + 1])
    return out


def check(got, wanted):
    """Within 4 ulp on a GPU; the same bits where the interpreter stands in for it."""
    assert np.all(np.abs(got - wanted) <= 4 * np.spacing(np.abs(wanted)))
    if DEVICE.type == "cpu":
        assert np.array_equal(got, wanted)


@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 5, 9, 126, 128, 131, 784])
def test_the_kernel_writes_the_twins_normals(fill_normals, dimension):
    """Rows of many seeds, images, stages and positions (above 2^32 too) in one call; dimensions with every tail."""
    check(kernel(fill_normals, ROWS, dimension), twin(ROWS, dimension))


def test_rows_fill_programs_and_run_over(fill_normals):
    rows = [(3, image, "estimate", position) for image in range(6) for position in range(image, image + 11)]
    check(kernel(fill_normals, rows, 9), twin(rows, 9))
    check(kernel(fill_normals, rows, 9, torch.uint32), twin(rows, 9))


def test_rows_do_not_depend_on_each_other(fill_normals):
    together = kernel(fill_normals, ROWS, 30)
    assert np.array_equal(kernel(fill_normals, ROWS[::-1], 30), together[::-1])
    assert np.array_equal(kernel(fill_normals, ROWS[3:4], 30), together[3:4])
    assert np.array_equal(kernel(fill_normals, ROWS, 11), together[:, :11])


def test_nothing_is_written_outside_the_rows(fill_normals):
    room = torch.full((len(ROWS) + 2, 7), -77.0, device=DEVICE)
    keys = torch.from_numpy(np.stack([row_key(*row[:3]) for row in ROWS]).astype(np.int64)).to(DEVICE)
    fill_normals(room[1:-1], keys, torch.tensor([row[3] for row in ROWS], device=DEVICE))
    check(room[1:-1].cpu().numpy(), twin(ROWS, 7))
    assert bool((room[0] == -77).all())
    assert bool((room[-1] == -77).all())
    fill_normals(room[:0], keys[:0], torch.zeros(0, dtype=torch.int64, device=DEVICE))


def test_tensors_of_other_shapes_are_refused(fill_normals):
    keys, positions = torch.zeros((4, 3), dtype=torch.int64), torch.zeros(4, dtype=torch.int64)
    for out in (torch.zeros(4, 8, dtype=torch.float64), torch.zeros(8, 4).T):
        with pytest.raises(InputError, match="contiguous float32"):
            fill_normals(out, keys, positions)
    for some in (torch.zeros(5, 8), torch.zeros(3, 8)):
        with pytest.raises(InputError, match=r"keys \(\d, 3\)"):
            fill_normals(some, keys, positions)


_DRAW = {"table": "*i64", "owner": "*i32", "first": "*i64", "centres": "*fp32", "fractions": "*fp32", "rows": "i32",
         "values": "i32", "scale": "fp32", "step": "fp32"}
_ALL = {"ROWS": 8, "QUADS": 32, "GRID": True, "FRACTIONS": True}
KERNELS = {
    "fill": ("_fill", {"out": "*fp32", "keys": "*i64", "positions": "*i64", "rows": "i32", "values": "i32"},
             {"ROWS": 8, "QUADS": 32}),
    "draw": ("_draw", {"out": "*fp32", **_DRAW}, {**_ALL, "CHANNELS": 1}),
    "draw, channels last, in bf16": ("_draw", {"out": "*bf16", **_DRAW}, {**_ALL, "CHANNELS": 3}),
}


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_compiled_it_holds_correctly_rounded_operations_alone(tmp_path, kernel):
    """For a Hopper GPU: all float arithmetic is `.rn`, which PTX never fuses, approximates or flushes.

    Before Triton 3.3 quotients and square roots flush: none of theirs is near 2^-126, nor what they are made of.
    """
    ptx = compile_kernel(tmp_path, "smoothcert.smoothing.philox_kernel", *KERNELS[kernel])
    operations = set(re.findall(r"^\s+([a-z][a-z0-9_.]*\.f32)(?:\.\w+)?\s", ptx, re.MULTILINE))
    operations = {re.sub(r"^(div|sqrt)\.rn\.ftz", r"\1.rn", name) for name in operations}
    arithmetic = {name for name in operations if name.split(".")[0] not in ("mov", "ld", "st", "selp", "setp", "abs",
                                                                                            "neg")}
    narrowed = {"cvt.rn.bf16.f32", "cvt.rn.bf16x2.f32"}
    assert bool(arithmetic & narrowed) == ("bf16" in kernel)
    assert arithmetic >= {"mul.rn.f32", "add.rn.f32", "div.rn.f32", "sqrt.rn.f32"}
    assert arithmetic <= {"mul.rn.f32", "add.rn.f32", "sub.rn.f32", "div.rn.f32", "sqrt.rn.f32", "cvt.rn.f32",
                          *narrowed}
