"""`smoothcert demo`: the main job end to end, in a minute, without a network."""

from pathlib import Path

from pydantic import Field

from smoothcert.cli.options import verb
from smoothcert.cli.output import say, say_result
from smoothcert.config.base import Config
from smoothcert.config.fields import Local


class DemoConfig(Config):
    """Options of `smoothcert demo`."""

    out: Local = Field(Path("demo"), description="folder for the model, store and plots")


@verb
def demo(config: DemoConfig) -> None:
    """Train a small CNN on handwritten digits under noise, certify 359 test images, print the table, draw the curve."""
    from smoothcert.report.plots import plot_curves
    from smoothcert.results.base import Points
    from smoothcert.results.certified import Result
    from smoothcert.results.curves import certified_curve
    from smoothcert.runs.certify import certify
    from smoothcert.runs.options import CertifyConfig
    from smoothcert.training.options import TrainConfig
    from smoothcert.training.train import train

    out = config.out
    model, store = out / "model", out / "store"
    say("1. train a small CNN on 8 x 8 digits, Gaussian noise sigma 0.25 added to every image")
    card = train(TrainConfig.parse(
        {"data": "digits", "model": "cnn", "model_option": {"width": 16}, "sigma": 0.25, "epochs": 30,
         "batch_size": 64, "normalise": "standard", "threads": 1, "out": model}))
    say(f"   held-out accuracy under that noise: {card.best['validation_accuracy']:.1%}\n")
    say("2. certify the test images: 5,000 noisy copies each, votes counted, radii proved")
    done = certify(CertifyConfig.parse({"model": str(model), "n": 5000, "seed": 0, "threads": 1, "out": store}))
    result = Result.of(done, "digits, small CNN")
    say_result(result, Points((0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)), as_json=False)
    files = [out / "curve.png", out / "curve.svg"]
    plot_curves([certified_curve(result)], files, title="Certified accuracy of the smoothed classifier, digits")
    say(f"\n3. the curve: {files[0]} and {files[1]}\n\n" + _NEXT.format(model=model, store=store, out=out))


_NEXT = """What to try next:
  smoothcert recertify {store} --alpha 0.01 --method cohen     another guarantee from the same counts, no model needed
  smoothcert certify {model} --n 100000 -o {out}/store-100k     more samples, larger radii
  smoothcert certify {model} --sigma 0.12 -o {out}/store-0.12   less noise: more accuracy, smaller radii
  smoothcert table {out}/store*                                 side by side
  smoothcert train --data mnist --data-dir FOLDER --model lenet --sigma 0.5 --epochs 4 -o mnist-model"""
