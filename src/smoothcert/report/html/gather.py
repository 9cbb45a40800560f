"""From stores to the runs of a page, and from a page to a file."""

from collections.abc import Sequence
from pathlib import Path

from smoothcert.errors import InputError, SmoothcertError, StoreError
from smoothcert.report.gallery import Gallery, ImagesOf, gallery_of
from smoothcert.report.html.facts import Attack, Run
from smoothcert.report.interop import named, open_records
from smoothcert.report.results import Result
from smoothcert.runs.files import make_folder, write_text
from smoothcert.runs.store import Store

GALLERY = 48
"""Images that the galleries of a page show together; each run has at least one, and only the first so many runs."""


def gathered(texts: Sequence[str], images_of: ImagesOf | None) -> tuple[list[Run], list[Attack]]:
    """The runs and the attacks of a page, from stores, logs and count files (also METHOD=PATH).

    Images that cannot be had are left out, and the page says why.

    Args:
        images_of: the data set of a store, or None for no images.
    Raises:
        StoreError: a store of another kind, or none that has radii. What opening them raises.
    """
    opened = [(open_records(one.path), one.name) for one in named(texts)]
    if bounds := [name for store, name in opened if store.kind == "distributional"]:
        raise StoreError(f"{', '.join(bounds)}: a report shows what was certified of single images, and these stores "
                         f"bound losses under data laws: `smoothcert table` and `smoothcert plot distributional` show "
                         f"them")
    attacks = [Attack(store, name) for store, name in opened if store.kind == "attack"]
    rest = [(store, name) for store, name in opened if store.kind != "attack"]
    if not rest:
        raise StoreError("a report shows what was certified: give at least one certify store or log with radii")
    runs = [Run(Result.of(store, name), store, *_gallery(store, images_of, number, len(rest)))
            for number, (store, name) in enumerate(rest)]
    return runs, attacks


def write_page(file: Path, page: str) -> None:
    """Write the page whole."""
    make_folder(file.parent)
    write_text(file, page)


def check_page(file: Path) -> None:
    """Raise InputError unless a file's name is that of a page."""
    if file.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{file.name} must end in .html")


def _gallery(store: Store, images_of: ImagesOf | None, number: int, of: int) -> tuple[Gallery | None, str]:
    if images_of is None:
        return None, "They were not asked for."
    if number >= GALLERY:
        return None, f"Only the first {GALLERY} runs have images here."
    try:
        return gallery_of(store, images_of, max(1, GALLERY // of)), ""
    except SmoothcertError as error:
        return None, f"{error}."
