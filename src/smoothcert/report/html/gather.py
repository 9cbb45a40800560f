"""From stores to the runs of a page, and from a page to a file."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from smoothcert.errors import InputError, SmoothcertError, StoreError
from smoothcert.interop import Named, open_records
from smoothcert.io.files import make_folder, write_whole
from smoothcert.report.html.facts import Run
from smoothcert.results.attacked import Attack
from smoothcert.results.certified import Result
from smoothcert.results.gallery import Gallery, ImagesOf, gallery_of
from smoothcert.results.several import opened_apart
from smoothcert.store.store import Store

GALLERY = 48
"""Images that the galleries of a page show together; each run has at least one, and only the first so many runs."""


class Gathered(NamedTuple):
    """The runs and the attacks of a page, and what went wrong with the others, in the order they were named."""

    runs: list[Run]
    attacks: list[Attack]
    problems: list[SmoothcertError]


def gathered(texts: Sequence[str], images_of: ImagesOf | None, *, alpha: float | None = None,
             radius_column: str | None = None) -> Gathered:
    """What a page shows of stores, logs and count files (also METHOD=PATH), opened as `opened_apart` does.

    Images that cannot be had are left out, and the page says why.

    Args:
        images_of: the data set of a store, or None for no images.
        alpha: failure probability of the answers of count files, and of logs that do not say it.
        radius_column: the column of logs that holds the radii; see `read_log`.
    Raises:
        StoreError: none has radii. What opening them raises.
    """
    opened, problems = opened_apart(texts, partial(_opened, alpha=alpha, radius_column=radius_column))
    attacks = [one for one in opened if isinstance(one, Attack)]
    runs = [one for one in opened if isinstance(one, Run)]
    if not runs:
        raise StoreError("\n".join(["a report shows what was certified: give at least one certify store or log with "
                                    "radii", *map(str, problems)]))
    shown = []
    for number, run in enumerate(runs):
        gallery, why_not = _gallery(run.store, images_of, number, len(runs))
        shown.append(replace(run, gallery=gallery, no_gallery=why_not))
    return Gathered(shown, attacks, problems)


def write_page(file: Path, page: str) -> None:
    """Write the page whole; what is no text in a name (a file's bytes that are no UTF-8) becomes a question mark."""
    make_folder(file.parent)
    write_whole(file, lambda temporary: temporary.write_bytes(page.encode("utf-8", "replace")))


def check_page(file: Path) -> None:
    """Raise InputError unless a file's name is that of a page."""
    if file.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{file.name} must end in .html")


def _opened(one: Named, alpha: float | None, radius_column: str | None) -> Run | Attack:
    store = open_records(one.path, alpha, radius_column)
    if store.kind == "distributional":
        raise StoreError(f"{one.name}: a report shows what was certified of single images, and this store bounds "
                         f"losses under data laws: `smoothcert table` and `smoothcert plot distributional` show it")
    if store.kind == "attack":
        return Attack.of(store, one.name)
    return Run(Result.of(store, one.name).in_norm("l2"), store)


def _gallery(store: Store, images_of: ImagesOf | None, number: int, of: int) -> tuple[Gallery | None, str]:
    if images_of is None:
        return None, "They were not asked for."
    if number >= GALLERY:
        return None, f"Only the first {GALLERY} runs have images here."
    try:
        return gallery_of(store, images_of, max(1, GALLERY // of)), ""
    except SmoothcertError as error:
        return None, f"{error}."
