"""Classes that a run's images do not show, of which its figures say nothing."""

from collections.abc import Sequence

import numpy as np

from smoothcert.checks import one_line
from smoothcert.store.names import few


def unseen_classes(
    label: np.ndarray | None, classes: Sequence[str] | None, index: np.ndarray | None = None
) -> tuple[str, ...]:
    """Return a note where the images of some records show fewer than all K classes; nothing where labels or names of
    classes are unknown.

    Classes are named, and more images advised, only where as many images could show more of them.

    Args:
        label: (M,) of each record.
        index: (M,) of its image, where an image has several records.

    >>> unseen_classes(np.array([0, 0, 1]), ["cat", "dog"])
    ()
    >>> unseen_classes(np.array([1, 1, 1]), ["cat", "dog", "owl"])[0]
    '3 images show 1 of the 3 classes (dog), and the figures speak of no other; --every, or more images, may show more'
    >>> unseen_classes(np.array([1, 0]), ["cat", "dog", "owl"])[0]
    '2 images show 2 of the 3 classes, and the figures speak of no other'
    """
    if label is None or not classes:
        return ()
    images, count = len(label) if index is None else len(np.unique(index)), len(classes)
    is_seen = np.isin(np.arange(count), label)
    seen = int(is_seen.sum())
    if seen == count:
        return ()
    words = f"{images:,} image{' shows' if images == 1 else 's show'} {seen:,} of the {count:,} classes"
    if seen == images:
        return (f"{words}, and the figures speak of no other",)
    told = is_seen if 2 * seen <= count else ~is_seen
    names = few([one_line(str(name)) for name, is_told in zip(classes, told, strict=True) if is_told])
    return (f"{words} ({'' if 2 * seen <= count else 'not '}{names}), and the figures speak of no other; --every, or "
            f"more images, may show more",)
