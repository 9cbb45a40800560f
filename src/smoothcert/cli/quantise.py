"""`smoothcert quantise`."""

import json
from dataclasses import asdict

from smoothcert.cli.options import verb
from smoothcert.cli.output import say
from smoothcert.progress import phase
from smoothcert.quantisation.options import QuantiseConfig


@verb
def quantise(config: QuantiseConfig, as_json: bool) -> None:
    """Make an int8 network of a model, calibrated on noisy images; every verb takes its directory as a model."""
    with phase("starting"):
        from smoothcert.quantisation.quantise import quantise as run

    card = run(config)
    made = card.quantised
    assert made is not None
    floats = ", ".join(f"{count} {name}" for name, count in made.in_float.items()) or "none"
    say(json.dumps(asdict(card)) if as_json else
        f"{config.out}: {made.original['model']} in int8, calibrated on {made.calibration['images']} images of "
        f"{made.calibration['data']} ({made.calibration['split']}) under {made.noise['kind']} noise, sigma "
        f"{card.sigma:g}; on as many noisy copies of them it gives the original's class to "
        f"{card.best['agreement']:.1%}; operators in float: {floats}")
