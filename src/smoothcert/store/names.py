"""Names of the runs of one report, and many of them in few words."""

from collections.abc import Iterable, Sequence

from smoothcert.io.paths import Place

LOG_ENDINGS = (".tsv", ".txt", ".csv", ".log")
"""What the name of a log may end in, also with .gz; whatever else follows a dot belongs to the name."""


def log_stem(name: str) -> str:
    """Return the name of a file without the ending of a log.

    >>> log_stem("sigma_0.25"), log_stem("sigma_0.25.tsv"), log_stem("noise_0.50.TXT.gz")
    ('sigma_0.25', 'sigma_0.25', 'noise_0.50')
    """
    stem = name[:-3] if name.lower().endswith(".gz") else name
    return stem[:-4] if stem.lower().endswith(LOG_ENDINGS) and len(stem) > 4 else stem or name


def name_of(path: Place) -> str:
    """Return the name of a folder, or of a file without its ending, by which tables call a store, log or count file.

    >>> from pathlib import Path
    >>> name_of(Path("runs/a")), name_of(Path("logs/sigma_0.25.tsv")), name_of(Path("b.npz"))
    ('a', 'sigma_0.25', 'b')
    """
    return log_stem(path.absolute().name).removesuffix(".npz")


def distinct_names(folders: Sequence[Place]) -> list[str]:
    """Return the shortest end of each path that tells it from the others; the same path twice keeps one name.

    >>> from pathlib import Path
    >>> distinct_names([Path("a/store"), Path("b/store"), Path("c")])
    ['a/store', 'b/store', 'c']
    """
    whole = [folder.absolute() for folder in folders]
    parts, names = [folder.parts for folder in whole], [folder.name for folder in whole]
    for depth in range(2, max(map(len, parts), default=1) + 1):
        shared: dict[str, set[tuple[str, ...]]] = {}
        for name, path in zip(names, parts, strict=True):
            shared.setdefault(name, set()).add(path)
        if len(shared) == len(set(parts)):
            break
        names = ["/".join(path[-depth:]) if len(shared[name]) > 1 else name
                 for name, path in zip(names, parts, strict=True)]
    return names


def few(names: Sequence[str], most: int = 4) -> str:
    """Write names in a sentence; of many, the first ones and how many more there are.

    >>> few(["a", "b"]), few(["a", "b", "c", "d"], most=2)
    ('a, b', 'a, b and 2 more')
    """
    more = len(names) - most
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:most])} and {more:,} more"


def group_by_words(told: Iterable[tuple[str, str]]) -> list[tuple[list[str], str]]:
    """Put (name, words) pairs with equal words together: the names, and their words, in the order of their first."""
    groups: dict[str, list[str]] = {}
    for name, words in told:
        groups.setdefault(words, []).append(name)
    return [(names, words) for words, names in groups.items()]
