"""Box-Muller in float32, twice: fast for `sfc64-bm-v1`, and equal on every machine for `philox-v1`.

A 64-bit word makes two normals r cos(theta) and r sin(theta). With k its high 40 bits and B its low 24, in float32,

    u = (k + 1/2) 2^-40,    r = sqrt(-2 ln u),    theta = 2 pi B 2^-24

k + 1/2 is rounded twice, to nearest even, so that u lies in [2^-41, 1] and |z| reaches sqrt(82 ln 2) = 7.54. The normal
law has mass 9.6e-14 beyond 7.447, where u < 2^-40: that is the total variation a value, up to the spacing of the values
(theta in steps of 2^-24 of a turn; u is a float32, so r^2 in steps of at most 2^-23 where r is small).

`box_muller` takes NumPy's own ln, cos and sin for float32: another processor or release may differ in the last places,
as it does in the matrix products that follow. On one machine the bits depend on the word alone.

`ieee_box_muller` uses only operations that IEEE 754 fixes to the last bit: additions, products, quotients, square
roots, conversions and integer operations, none of them fused, in a fixed order. So it gives the same bits on every
machine, and the Triton kernel of `philox-v1` repeats them one by one:

    u = m 2^E with m in [sqrt(1/2), sqrt(2));    ln m = 2 artanh((m - 1) / (m + 1))
    phi = (pi/2) y with y = (t + 1/2) 2^-22 - 1/2, t = bits 1 to 22 of B: |phi| < pi/4
    cos(theta), sin(theta) = (-1)^(bit 0) cos(phi), sin(phi), the other way round where bit 23 is set

Its theta takes 2^24 values, evenly spaced. The relative error of the polynomials is below 2^-28 (ln) and 2^-24.7 (sin,
the rounding of pi/2); the normals lie within 5 ulp of the exact values of these formulas.
"""

from typing import Final

import numpy as np

CHUNK: Final = 16_384  # words at a time: 0.6 MB with all buffers, so that they stay in a processor's second cache

LN: Final = (-4.0, -1.3333337306976318, -0.7997756004333496, -0.5915989875793457)
"""-2 ln m = s (LN[0] + LN[1] s^2 + LN[2] s^4 + LN[3] s^6) for s = (m - 1) / (m + 1); float32 values."""

LN2: Final = -1.3862943649291992
"""-2 ln 2; a float32 value."""

SIN: Final = (1.5707963705062866, -0.6459634900093079, 0.07968021929264069, -0.004602149128913879)
"""sin(pi y / 2) = y (SIN[0] + SIN[1] y^2 + SIN[2] y^4 + SIN[3] y^6) for |y| < 1/2; float32 values."""

ROOT_HALF: Final = 0x3F3504F3
"""The bits of float32 sqrt(1/2)."""

_COEFFICIENTS: Final = np.array([LN, SIN], np.float32).T[:, :, np.newaxis]


def box_muller(words: np.ndarray) -> np.ndarray:
    """Return the normals r cos(theta) and r sin(theta) of each uint64 word, elementwise: float32 (2, *words.shape)."""
    flat = np.ascontiguousarray(words).reshape(-1)
    normals = np.empty((2, len(flat)), np.float32)
    cosines, sines = normals
    shifted = np.empty(min(len(flat), CHUNK), np.uint64)
    scratch = np.empty((2, len(shifted)), np.float32)
    for start in range(0, len(flat), CHUNK):
        part = slice(start, start + CHUNK)
        size = len(flat[part])
        _transform(flat[part], cosines[part], sines[part], shifted[:size], *scratch[:, :size])
    return normals.reshape(2, *words.shape)


def _transform(
    words: np.ndarray, cosines: np.ndarray, sines: np.ndarray, shifted: np.ndarray, radius: np.ndarray,
    angle: np.ndarray,
) -> None:
    """Write the normals of `words` into `cosines` and `sines`; the other arrays, of that length, are overwritten."""
    np.right_shift(words, 24, out=shifted)
    np.copyto(radius, shifted.view(np.int64), casting="unsafe")
    radius += 0.5
    radius *= 2.0**-40
    np.log(radius, out=radius)
    radius *= -2.0
    np.sqrt(radius, out=radius)
    low = cosines.view(np.int32)
    np.copyto(low, words.view(np.int64), casting="unsafe")
    low &= 0xFFFFFF
    np.copyto(angle, low, casting="unsafe")
    angle *= 2 * np.pi * 2.0**-24
    np.cos(angle, out=cosines)
    np.sin(angle, out=sines)
    cosines *= radius
    sines *= radius


def ieee_box_muller(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the normals of `box_muller`, with bits that are equal on every machine."""
    flat = np.ascontiguousarray(words).reshape(-1)
    normals = np.empty((2, len(flat)), np.float32)
    scratch = np.empty((5, min(len(flat), CHUNK)), np.float32)
    for start in range(0, len(flat), CHUNK):
        part = slice(start, start + CHUNK)
        _ieee_transform(flat[part], normals[:, part], scratch[:, : len(flat[part])])
    cosines, sines = normals.reshape(2, *words.shape)
    return cosines, sines


def _ieee_transform(words: np.ndarray, legs: np.ndarray, scratch: np.ndarray) -> None:
    """Write the normals of `words` (n,) into `legs` (2, n); `scratch`, (5, n), is overwritten.

    Both polynomials, that of ln in the row 0 and that of sin in the row 1, are evaluated together.
    """
    radius, arguments, squares = scratch[0], scratch[1:3], scratch[3:5]
    _split(words, radius, arguments[0], squares[0])
    bits = arguments[1].view(np.uint32)  # y
    np.copyto(bits, words, casting="unsafe")
    bits &= 0x7FFFFE
    bits |= 0x3F800001
    arguments[1] -= 1.5
    np.square(arguments, out=squares)
    c0, c1, c2, c3 = _COEFFICIENTS
    np.multiply(squares, c3, out=legs)
    for coefficient in (c2, c1):
        legs += coefficient
        legs *= squares
    legs += c0
    legs *= arguments
    radius *= LN2
    radius += legs[0]
    np.sqrt(radius, out=radius)
    np.square(legs[1], out=legs[0])
    np.subtract(1.0, legs[0], out=legs[0])
    np.sqrt(legs[0], out=legs[0])
    _orient(words, legs.view(np.uint32), *arguments.view(np.uint32))
    legs *= radius


def _split(words: np.ndarray, exponent: np.ndarray, s: np.ndarray, free: np.ndarray) -> None:
    """Write E into `exponent` and (m - 1) / (m + 1) into `s`; `free` is overwritten. All are float32."""
    np.copyto(s, (words >> 24).view(np.int64), casting="unsafe")
    s += 0.5
    bits, shifted = s.view(np.int32), free.view(np.int32)
    bits -= ROOT_HALF + (40 << 23)
    np.right_shift(bits, 23, out=shifted)
    np.copyto(exponent, shifted, casting="unsafe")
    bits &= 0x7FFFFF
    bits += ROOT_HALF
    np.add(s, 1.0, out=free)
    s -= 1.0
    s /= free


def _orient(words: np.ndarray, legs: np.ndarray, low: np.ndarray, swapped: np.ndarray) -> None:
    """Give the long leg its sign, and swap the legs where bit 23 is set; all are bits, `low` and `swapped` are free."""
    np.copyto(low, words, casting="unsafe")
    np.left_shift(low, 8, out=swapped)
    np.right_shift(swapped.view(np.int32), 31, out=swapped.view(np.int32))
    low <<= 31
    legs[0] ^= low
    np.bitwise_xor(*legs, out=low)
    low &= swapped
    legs ^= low
