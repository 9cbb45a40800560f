"""`smoothcert demo`: the main job end to end, in a minute, without a network."""

import os
import shlex
import shutil
import sys
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
    say(f"\n3. the curve: {files[0]} and {files[1]}\n\n{describe_next_steps(out)}")


_NEXT = (
    ("another guarantee from the same counts, without the model",
     "recertify {out}/store --alpha 0.01 --method cohen"),
    ("a page to show to others, in any browser", "report {out}/store -o {out}/report.html"),
    ("less noise: more accuracy, smaller radii",
     "certify {out}/model --sigma 0.12 --n 5000 --threads 1 -o {out}/store-0.12"),
    ("up to 100,000 samples an image, where they decide these radii",
     "certify {out}/model --n-max 100000 --radii 0.25,0.5,0.75 --threads 1 -o {out}/store-100k"),
    ("all of them side by side", "table {out}/store*"),
)


def describe_next_steps(out: Path) -> str:
    """Return what to try after the demo, in commands that a shell runs as they are printed."""
    program, folder = find_program(), shlex.quote(str(out))
    steps = [f"{words}:\n  {program} {command.format(out=folder)}" for words, command in _NEXT]
    return "\n".join(["What to try next:", *steps])


def find_program() -> str:
    """Return how a shell in this folder starts this smoothcert: by its name where PATH leads to it, else by a path."""
    script = Path(sys.executable).with_name("smoothcert")
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m smoothcert"
    found = shutil.which("smoothcert")
    if found and os.path.samefile(found, script):
        return "smoothcert"
    near = os.path.relpath(script)
    return shlex.quote(str(script) if near.startswith(os.pardir) else near if os.sep in near else f"./{near}")
