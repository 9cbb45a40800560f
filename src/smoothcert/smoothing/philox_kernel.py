"""`philox-v1` on a GPU: a Triton kernel, the twin of `smoothcert.noise.PhiloxStream` with `ieee_box_muller`.

The same integers, and the same IEEE operations on floats in the same order, with no multiply and add fused: normals
equal to the twin's, whatever the batch and however images are mixed in it. Import this module where Triton is
installed and its kernel is about to be used, not before: torch brings Triton on Linux with CUDA.
"""

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from smoothcert.errors import InputError
from smoothcert.noise.boxmuller import LN, LN2, ROOT_HALF, SIN

_TILE = 256  # quads a program: enough work for four warps at two quads a thread
_WIDEST = 32  # of them in one row, so that rows a little longer than a power of two waste little

_LN0, _LN1, _LN2, _LN3 = (tl.constexpr(value) for value in LN)
_SIN0, _SIN1, _SIN2, _SIN3 = (tl.constexpr(value) for value in SIN)
_TWO_LN2 = tl.constexpr(LN2)
_ROOT_HALF = tl.constexpr(ROOT_HALF)
_ORIGIN = tl.constexpr(ROOT_HALF + (40 << 23))


def fill_normals(out: Tensor, keys: Tensor, positions: Tensor) -> None:
    """Write the `philox-v1` normals of one sample a row.

    Args:
        out: (m, d) float32, contiguous, on a GPU.
        keys: (m, 3) integers, the words of each row's `smoothcert.noise.row_key(seed, image, stage)`.
        positions: (m,) int64, each row's position in its stream.
    """
    rows, values = out.shape
    if out.dtype != torch.float32 or not out.is_contiguous():
        raise InputError(f"normals go to a contiguous float32 tensor, got {out.dtype} with strides {out.stride()}")
    if keys.shape != (rows, 3) or positions.shape != (rows,):
        raise InputError(f"{rows} rows need keys ({rows}, 3) and positions ({rows},), got {tuple(keys.shape)} and "
                         f"{tuple(positions.shape)}")
    if out.numel() == 0:
        return
    grid, tile = tiles(rows, values)
    with torch.cuda.device_of(out):
        launch = cast(Any, _fill)[grid]
        launch(out, keys.contiguous(), positions.contiguous(), rows, values, **tile, enable_fp_fusion=False)


def draw_rows(
    out: Tensor, table: Tensor, owner: Tensor, first: Tensor, centres: Tensor, fractions: Tensor | None,
    scale: float, step: float | None, channels: int = 1,
) -> None:
    """Write the noisy copies first ... first + len(out) - 1 of a round: z scale + centre, for standard normals z, or on
    a grid of `step` the whole numbers round(z scale + fraction) + centre times it.

    Args:
        out: (m, d), contiguous, on a GPU, of any float type: values are rounded to it last.
        table: (segments, 5) int64: the three words of `row_key`, the position of sample 0 of all, the row of `centres`.
        owner: int32, the segment of each sample.
        first: (1,) int64.
        centres, fractions: (any, d) float32, those of `NoiseCentre`.
        channels: C, to write a row's values (C, d / C) as (d / C, C), the channels last.
    """
    grid, tile = tiles(*out.shape)
    with torch.cuda.device_of(out):
        launch = cast(Any, _draw)[grid]
        launch(out, table, owner, first, centres, centres if fractions is None else fractions, len(out),
               out.shape[1], scale, 1.0 if step is None else step, **tile, GRID=step is not None,
               FRACTIONS=fractions is not None, CHANNELS=channels, enable_fp_fusion=False)


def tiles(rows: int, values: int) -> tuple[tuple[int, int], dict[str, int]]:
    """Return the programs in both directions, and the rows and quads of each."""
    quads = -(-values // 4)
    wide = min(1 << (quads - 1).bit_length(), _WIDEST)
    return (-(-rows * wide // _TILE), -(-quads // wide)), {"ROWS": _TILE // wide, "QUADS": wide}


@triton.jit(do_not_specialize=["rows"])
def _fill(out, keys, positions, rows, values, ROWS: tl.constexpr, QUADS: tl.constexpr):
    """Write the values of ROWS samples in QUADS quads each; see `smoothcert.noise.streams` for counter and key."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    there = row < rows
    position = tl.load(positions + row, mask=there, other=0)[:, None]
    k0 = tl.load(keys + row * 3, mask=there, other=0).to(tl.uint32)[:, None]
    k1 = tl.load(keys + row * 3 + 1, mask=there, other=0).to(tl.uint32)[:, None]
    c3 = tl.load(keys + row * 3 + 2, mask=there, other=0).to(tl.uint32)[:, None]
    normals = _quads(position, k0, k1, c3, ROWS, QUADS)
    column = tl.program_id(1) * (4 * QUADS) + tl.arange(0, 4 * QUADS)
    target = out + row.to(tl.int64)[:, None] * values + column[None, :]
    tl.store(target, normals, mask=there[:, None] & (column < values)[None, :])


@triton.jit(do_not_specialize=["rows"])
def _draw(out, table, owner, first, centres, fractions, rows, values, scale, step, ROWS: tl.constexpr,
          QUADS: tl.constexpr, GRID: tl.constexpr, FRACTIONS: tl.constexpr, CHANNELS: tl.constexpr):
    """Write noisy copies: the arithmetic of `GaussianNoise.place`, and with GRID that of `GridNoise.place`."""
    row, there, _at, position, k0, k1, c3, slot = find_rows(table, owner, first, rows, ROWS)
    y = _quads(position, k0, k1, c3, ROWS, QUADS) * scale
    column = (tl.program_id(1) * (4 * QUADS) + tl.arange(0, 4 * QUADS))[None, :]
    mask = there[:, None] & (column < values)
    place = slot * values + column
    if GRID:
        if FRACTIONS:
            y += tl.load(fractions + place, mask=mask, other=0.0)
        # To the nearest whole number, ties to even: what is below 2^23 loses its fraction in the sum with 2^23.
        size = tl.abs(y)
        whole = (size + 8388608.0) - 8388608.0
        y = tl.where(size < 8388608.0, tl.where(y < 0, -whole, whole), y)
    y += tl.load(centres + place, mask=mask, other=0.0)
    if GRID:
        y *= step
    tl.store(out + row.to(tl.int64)[:, None] * values + places(column, values, CHANNELS), y, mask=mask)


@triton.jit
def places(column, values, CHANNELS: tl.constexpr):
    """Return where the values of a row are written: in order, or with the channels last."""
    if CHANNELS == 1:
        return column
    pixels = values // CHANNELS
    return column % pixels * CHANNELS + column // pixels


@triton.jit
def find_rows(table, owner, first, rows, ROWS: tl.constexpr):
    """Return this program's rows, (ROWS,), which of them are there and their places in the round; and, (ROWS, 1), the
    position in its stream, the stream's three words, and the row of `centres` of each; see `draw_rows`."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at = tl.load(first) + row.to(tl.int64)
    there = row < rows
    line = table + tl.load(owner + at, mask=there, other=0).to(tl.int64) * 5
    k0 = tl.load(line, mask=there, other=0).to(tl.uint32)[:, None]
    k1 = tl.load(line + 1, mask=there, other=0).to(tl.uint32)[:, None]
    c3 = tl.load(line + 2, mask=there, other=0).to(tl.uint32)[:, None]
    position = (tl.load(line + 3, mask=there, other=0) + at)[:, None]
    slot = tl.load(line + 4, mask=there, other=0)[:, None]
    return row, there, at, position, k0, k1, c3, slot


@triton.jit
def philox(c0, position, k0, k1, c3):
    """Return the four words of Philox4x32-10 at number c0 of each position of streams of those words."""
    c1 = position.to(tl.uint32)
    c2 = (position >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, 0xD2511F53), c0 * 0xD2511F53
        high1, low1 = tl.umulhi(c2, 0xCD9E8D57), c2 * 0xCD9E8D57
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def _quads(position, k0, k1, c3, ROWS: tl.constexpr, QUADS: tl.constexpr):
    """Return the normals (ROWS, 4 QUADS) of this program's quads at positions (ROWS, 1) of streams of those words."""
    c0 = (tl.program_id(1) * QUADS + tl.arange(0, QUADS)).to(tl.uint32)[None, :]
    c0, c1, c2, c3 = philox(c0, position, k0, k1, c3)
    z0, z1 = _normals(c0, c1)
    z2, z3 = _normals(c2, c3)
    return tl.reshape(tl.join(tl.join(z0, z2), tl.join(z1, z3)), (ROWS, 4 * QUADS))


@triton.jit
def _normals(high, low):
    """Return r cos(theta) and r sin(theta) of the words high 2^32 + low: `ieee_box_muller`, step by step."""
    x = ((high.to(tl.int64) << 8) | (low >> 24).to(tl.int64)).to(tl.float32) + 0.5
    bits = x.to(tl.int32, bitcast=True) - _ORIGIN
    m = ((bits & 0x7FFFFF) + _ROOT_HALF).to(tl.float32, bitcast=True)
    s = tl.div_rn(m - 1.0, m + 1.0)
    q = s * s
    logarithm = s * (((q * _LN3 + _LN2) * q + _LN1) * q + _LN0)
    radius = tl.sqrt_rn((bits >> 23).to(tl.float32) * _TWO_LN2 + logarithm)
    y = ((low & 0x7FFFFE) | 0x3F800001).to(tl.float32, bitcast=True) - 1.5
    q = y * y
    short = y * (((q * _SIN3 + _SIN2) * q + _SIN1) * q + _SIN0)
    long = tl.sqrt_rn(1.0 - short * short)
    long = (long.to(tl.uint32, bitcast=True) ^ (low << 31)).to(tl.float32, bitcast=True)
    swapped = (low & 0x800000) != 0
    return radius * tl.where(swapped, short, long), radius * tl.where(swapped, long, short)
