"""Box-Muller in float32, fast: what `sfc64-bm-v1` makes of its 64-bit words.

A word makes two normals r cos(theta) and r sin(theta). With k its high 40 bits and B its low 24, in float32,

    u = (k + 1/2) 2^-40,    r = sqrt(-2 ln u),    theta = 2 pi B 2^-24

k + 1/2 is rounded twice, to nearest even, so that u lies in [2^-41, 1] and |z| reaches sqrt(82 ln 2) = 7.54. The normal
law has mass 9.6e-14 beyond 7.447, where u < 2^-40: that is the total variation a value, up to the spacing of the values
(theta in steps of 2^-24 of a turn; u is a float32, so r^2 in steps of at most 2^-23 where r is small).

ln, cos and sin are NumPy's own for float32: another processor or release may differ in the last places, as it does in
the matrix products that follow. On one machine the bits depend on the word alone.
"""

from typing import Final

import numpy as np

CHUNK: Final = 16_384  # words at a time: 0.5 MB with all buffers, so that they stay in a processor's second cache


def box_muller(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The normals r cos(theta) and r sin(theta) of each uint64 word: float32 arrays of its shape, elementwise."""
    flat = np.ascontiguousarray(words).reshape(-1)
    cosines, sines = np.empty((2, len(flat)), np.float32)
    shifted = np.empty(min(len(flat), CHUNK), np.uint64)
    scratch = np.empty((2, len(shifted)), np.float32)
    for start in range(0, len(flat), CHUNK):
        part = slice(start, start + CHUNK)
        size = len(flat[part])
        _transform(flat[part], cosines[part], sines[part], shifted[:size], *scratch[:, :size])
    return cosines.reshape(words.shape), sines.reshape(words.shape)


def _transform(
    words: np.ndarray, cosines: np.ndarray, sines: np.ndarray, shifted: np.ndarray, radius: np.ndarray,
    angle: np.ndarray,
) -> None:
    """The normals of `words` into `cosines` and `sines`; the other arrays, of the same length, are overwritten."""
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
