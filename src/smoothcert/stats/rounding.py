"""How far the same value may differ where two processors compute it from the same counts.

Logarithms and exponentials differ between processors in their last bits: by NumPy's kernels for AVX2 and AVX512, and by
the C library's. So do the radii and p-values that are computed from them. Counts do not, and are compared exactly.
"""

import math

_RADIUS = 2.0**-47
_P_VALUE = 2.0**-36


def is_same(name: str, stored: object, found: object, sigma: float) -> bool:
    """Return whether a stored value is the one that its votes give, perhaps on another processor.

    Args:
        name: of the value. A "radius" may differ by 2^-47 (sigma + radius), three times the largest difference found
            over all methods, n to 1e10, and kernels with and without AVX512, AVX2 and FMA. It is less than radii are
            rounded down by (2^-44 of each limit and 2^-46 of each quantile): what is larger by no more is still proved
            by the votes. A "p_value" may differ by a share of 2^-36. All else must be equal, as 0 must.
        sigma: noise level, in whose units the radius is.
    """
    if not isinstance(stored, float) or not isinstance(found, float) or found == 0:
        return stored == found
    most = {"radius": _RADIUS * (sigma + abs(found)), "p_value": _P_VALUE * abs(found)}.get(name, 0.0)
    return math.isclose(stored, found, rel_tol=0, abs_tol=most)
