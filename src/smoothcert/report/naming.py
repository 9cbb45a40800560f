"""Names of the runs of one report."""

from collections.abc import Sequence

from smoothcert.runs.places import Place


def distinct_names(folders: Sequence[Place]) -> list[str]:
    """The shortest end of each path that tells it from the others; the same path twice keeps one name.

    >>> from pathlib import Path
    >>> distinct_names([Path("a/store"), Path("b/store"), Path("c")])
    ['a/store', 'b/store', 'c']
    """
    names = [folder.absolute().name for folder in folders]
    for depth in range(2, max((len(folder.absolute().parts) for folder in folders), default=1) + 1):
        shared = {name for name in names if len({f.absolute() for f, n in zip(folders, names, strict=True)
                                                 if n == name}) > 1}
        names = ["/".join(folder.absolute().parts[-depth:]) if name in shared else name
                 for folder, name in zip(folders, names, strict=True)]
    return names
