"""`smoothcert report`."""

from pathlib import Path
from typing import Annotated

import typer

from smoothcert.cli.errors import fail_for, reported
from smoothcert.cli.output import number_list, say
from smoothcert.cli.plot import Crop, Data, DataDir, NumericClasses, Resize, images_of
from smoothcert.cli.table import LogAlpha, Radii, RadiusColumn, Rho

Stores = Annotated[
    list[str], typer.Argument(metavar="STORE...", help="Stores, logs (TSV) or count files (NPZ), also attack stores.")
]
OutPage = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The page, one HTML file. (required)")]
Title = Annotated[str, typer.Option(metavar="TEXT", help="Heading of the page (default: names the runs).")]
NoGallery = Annotated[bool, typer.Option("--no-gallery", help="Show no images.")]
Selftest = Annotated[
    Path | None, typer.Option("--selftest", metavar="FILE", help="Show this result of `smoothcert selftest -o`.")
]


@reported
def report(
    stores: Stores, out: OutPage, title: Title = "", radii: Radii = None, rho: Rho = 0.05,
    no_gallery: NoGallery = False, data: Data = None, data_dir: DataDir = None, resize: Resize = None,
    crop: Crop = None, numeric_classes: NumericClasses = False, selftest: Selftest = None, alpha: LogAlpha = None,
    radius_column: RadiusColumn = None,
) -> None:
    """Write one self-contained HTML page on stores: curves, tables, images, what is guaranteed and what is not."""
    from smoothcert.report.html import check_page, report_page, write_page
    from smoothcert.report.selftest import read_selftest
    from smoothcert.results.gather import gather_page

    check_page(out)
    tested = read_selftest(selftest) if selftest else None
    grid = number_list("radii", radii)
    images = None if no_gallery else images_of(data, data_dir, resize, crop, numeric_classes)
    runs, attacks, problems = gather_page(stores, images, alpha=alpha, radius_column=radius_column)
    write_page(out, report_page(runs, grid, rho, title, attacks, problems, tested))
    say(f"wrote {out}", err=True)
    fail_for(problems)
