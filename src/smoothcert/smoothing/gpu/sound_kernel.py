"""`sound-philox-v1` on a GPU: a Triton kernel, the twin of `smoothcert.noise.SoundPhiloxStream` but for the rest.

Whole numbers and two tables make t. What follows is exact in float32, whatever the compiler does with it: a sum of
whole numbers below 2^25, of which those beyond the grid's ends are set to them, and one product with the step.

A value of the rest takes more digits than a kernel has. Such a row is marked, and judged later with the close calls,
drawn again with the right value. Import this module where Triton is installed and its kernel is about to be used.
"""

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from smoothcert.noise.lattice import FINE, REST
from smoothcert.smoothing.philox_kernel import find_rows, philox, places, tiles

# A word is high 2^32 + low: both j lie in `low`, the column in both, what is held against its cut in `high`.
_J, _BOTH, _COLUMN = tl.constexpr(FINE.offset), tl.constexpr(2 * FINE.offset), tl.constexpr(FINE.column)
_SPLIT, _CUT = tl.constexpr(32 - 2 * FINE.offset), tl.constexpr(2 * FINE.offset + FINE.column - 32)
_COLUMNS = tl.constexpr(2**FINE.column - 1)
_REST = tl.constexpr(REST)


def draw_sound_rows(
    out: Tensor, odd: Tensor, table: Tensor, owner: Tensor, first: Tensor, centres: Tensor, shifted: Tensor | None,
    cuts: Tensor, codes: Tensor, width: int, end: float, step: float, filler: float, channels: int = 1,
) -> None:
    """Write the noisy copies first ... first + len(out) - 1 of a round, and mark those with a value of the rest.

    Args:
        out, table, owner, first, centres, channels: as for `draw_rows`; at most 2^31 - 1 columns of tables in all.
        odd: int8, one a sample of the round: 1 is written for a sample with a value of the rest, else nothing.
        shifted: (any, 1) float32, beside `centres`: 1 where a centre has fractions. None where none has.
        cuts, codes: those of `LatticeNormal`: one law after the other, the first for centres without fractions.
        width: W.
        end: of the grid, in steps. step: h.
        filler: written for the values of the rest.
    """
    grid, tile = tiles(out.shape[0], 2 * out.shape[1])
    with torch.cuda.device_of(out):
        launch = cast(Any, _draw)[grid]
        launch(out, odd, table, owner, first, centres, centres if shifted is None else shifted, cuts, codes, len(out),
               out.shape[1], width, end, step, filler, ROWS=tile["ROWS"], PAIRS=tile["QUADS"],
               SHIFTED=shifted is not None, CHANNELS=channels, enable_fp_fusion=False)


@triton.jit(do_not_specialize=["rows", "width"])
def _draw(out, odd, table, owner, first, centres, shifted, cuts, codes, rows, values, width, end, step, filler,
          ROWS: tl.constexpr, PAIRS: tl.constexpr, SHIFTED: tl.constexpr, CHANNELS: tl.constexpr):
    """Do the arithmetic of `LatticeNormal.draw` and of `SoundNoise.place`."""
    row, there, at, position, k0, k1, c3, slot = find_rows(table, owner, first, rows, ROWS)
    pair = (tl.program_id(1) * PAIRS + tl.arange(0, PAIRS)).to(tl.uint32)[None, :]
    w0, w1, w2, w3 = philox(pair, position, k0, k1, c3)
    high, low = tl.reshape(tl.join(w0, w2), (ROWS, 2 * PAIRS)), tl.reshape(tl.join(w1, w3), (ROWS, 2 * PAIRS))
    place = ((low >> _BOTH) | (high << _SPLIT)).to(tl.int32) & _COLUMNS
    if SHIFTED:
        place += tl.load(shifted + slot, mask=there[:, None], other=0.0).to(tl.int32) << _COLUMN
    column = (tl.program_id(1) * (2 * PAIRS) + tl.arange(0, 2 * PAIRS))[None, :]
    mask = there[:, None] & (column < values)
    own = (high >> _CUT).to(tl.int32) < tl.load(cuts + place, mask=mask, other=0)
    code = tl.load(codes + 2 * place + own.to(tl.int32), mask=mask, other=0)
    kind, base = code & 3, code >> 2
    j, second = low.to(tl.int32) & width - 1, (low >> _J).to(tl.int32) & width - 1
    j = tl.where(kind == 0, j, tl.where(base < 0, tl.maximum(j, second), tl.minimum(j, second)))
    y = (base + j).to(tl.float32) + tl.load(centres + slot * values + column, mask=mask, other=0.0)
    rest = mask & (kind == _REST)
    y = tl.where(rest, filler, tl.minimum(tl.maximum(y, -end), end) * step)
    tl.store(out + row.to(tl.int64)[:, None] * values + places(column, values, CHANNELS), y, mask=mask)
    marked = tl.max(rest.to(tl.int32), axis=1) > 0
    tl.store(odd + at, tl.full((ROWS,), 1, tl.int8), mask=marked)
