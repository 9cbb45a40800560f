"""L of L L^T = W W^T, the same on every processor but for its last bits, and which rows of a matrix are equal."""

import numpy as np

_ROUNDING = 1e-13  # share of the largest entry below which an entry of L is the rounding error of a zero
_DEPENDENT = 1e-11  # the same share, below which what is left of a row of W lies in the span of those above it


def factor_of(weight: np.ndarray, rank: int) -> np.ndarray:
    """L float32 (w, min(rank, d)), lower triangular with a diagonal >= 0, L L^T = W W^T.

    Every row of W beyond the first `rank` must depend on those above it: the columns of L that are dropped are zero.
    Equal rows of W give equal rows of L.
    """
    upper = np.asarray(np.linalg.qr(weight.T, mode="r"))
    if np.abs(np.diagonal(upper)).min(initial=np.inf) <= _DEPENDENT * np.abs(upper).max(initial=0.0):
        upper = _echelon(upper)
    upper = upper[:rank]
    signs = np.where(np.diagonal(upper) < 0, -1.0, 1.0)  # makes L unique where W has full rank
    lower = signs * upper.T
    lower[np.abs(lower) <= _ROUNDING * np.abs(lower).max(initial=0.0)] = 0.0
    return lower[first_equal(weight)].astype(np.float32, order="C")


def _echelon(upper: np.ndarray) -> np.ndarray:
    """R' of R' ^T R' = R^T R in row echelon form, each row's first entry > 0: unique, as R is where it has full rank.

    Where a column of R depends on those before it, what is left of it is rounding error, another on each processor.
    Householder's reflections would turn that into a direction, and all later columns with it; here it is set to zero.
    """
    upper, least, row = upper.copy(), _DEPENDENT * np.abs(upper).max(initial=0.0), 0
    for column in range(upper.shape[1]):
        mirror = upper[row:, column].copy()
        length = np.linalg.norm(mirror)
        if length <= least:
            upper[row:, column] = 0.0
            continue
        mirror[0] += np.copysign(length, mirror[0])
        mirror /= np.linalg.norm(mirror)
        upper[row:, column:] -= 2 * np.outer(mirror, mirror @ upper[row:, column:])
        upper[row + 1 :, column] = 0.0
        upper[row] *= np.sign(upper[row, column])
        row += 1
    return upper


def first_equal(rows: np.ndarray) -> np.ndarray:
    """For each row the index of the first one that equals it, int64."""
    found: dict[bytes, int] = {}
    return np.array([found.setdefault((row + 0.0).tobytes(), k) for k, row in enumerate(rows)], dtype=np.int64)
