"""`smoothcert certify`."""

import json

from smoothcert.cli.options import verb
from smoothcert.cli.output import say, show_progress
from smoothcert.runs.options import CertifyConfig


@verb
def certify(config: CertifyConfig, as_json: bool, quiet: bool) -> None:
    """Certify the images of a data set into a store; the same command resumes an interrupted run."""
    from smoothcert.report.tables import render, summary
    from smoothcert.results.certified import Result, default_radii
    from smoothcert.runs.certify import certify as run

    with show_progress("images", quiet) as progress:
        result = Result.of(run(config, progress))
    radii = config.radii or default_radii([result])
    if as_json:
        say(json.dumps({"store": str(config.out), **summary(result, radii, rho=0.05)}))
    else:
        say(render([result], radii, rho=0.05, style="text"))
