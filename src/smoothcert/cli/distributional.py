"""`smoothcert distributional`."""

from dataclasses import replace

from smoothcert.cli.options import verb
from smoothcert.cli.output import say_result
from smoothcert.progress import phase
from smoothcert.runs.options import DistributionalConfig


@verb
def distributional(config: DistributionalConfig, as_json: bool) -> None:
    """Bound the expected loss under all data laws near the images' own, of a model or from a store's counts."""
    with phase("starting"):
        from smoothcert.results.base import Points
        from smoothcert.results.distributional import Robustness
        from smoothcert.runs.distributional import distributional as run

    store = run(config)
    result = Robustness.of(store, alpha=config.alpha if "alpha" in config.model_fields_set else None)
    say_result(replace(result, rho=tuple(config.rho)), Points(), as_json)
