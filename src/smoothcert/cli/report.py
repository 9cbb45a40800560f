"""`smoothcert report`."""

from smoothcert.cli.options import verb
from smoothcert.cli.output import fail_for, say
from smoothcert.cli.plot import images_of
from smoothcert.errors import InputError
from smoothcert.report.options import ReportConfig


@verb
def report(config: ReportConfig) -> None:
    """Write one self-contained HTML page on stores: curves, tables, images, what is guaranteed and what is not."""
    from smoothcert.report.html import check_page, report_page, write_page
    from smoothcert.report.html.outputs import outputs_report
    from smoothcert.report.selftest import read_selftest
    from smoothcert.results.gather import gather_page

    check_page(config.out)
    tested = read_selftest(config.selftest) if config.selftest else None
    images = None if config.no_gallery else images_of(config)
    found = gather_page(config.stores, images, alpha=config.alpha, radius_column=config.radius_column)
    if found.outputs:
        if tested is not None:
            raise InputError("selftest is shown beside certificates of classes: leave it out for runs of other tasks")
        page = outputs_report(found.outputs, config.radii or (), config.title, found.problems)
    else:
        page = report_page(found.runs, config.radii or (), config.rho, config.title, found.attacks, found.problems,
                           tested)
    write_page(config.out, page)
    say(f"wrote {config.out}", err=True)
    fail_for(found.problems)
