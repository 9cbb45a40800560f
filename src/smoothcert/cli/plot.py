"""`smoothcert plot`."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from smoothcert.cli.errors import fail_for, reported
from smoothcert.cli.output import number_list, say
from smoothcert.cli.table import RadiusColumn, Rho
from smoothcert.errors import InputError

PLOTS = ("curve", "envelope", "empirical", "bounds", "theorems", "projection", "abstention", "votes", "wall", "scatter",
         "gallery", "panels", "resolution", "regions", "denoised", "failures", "contraction", "distributional")

Which = Annotated[str, typer.Argument(metavar="KIND", help=", ".join(PLOTS) + ".")]
Stores = Annotated[
    list[str], typer.Argument(metavar="STORE...", help="Stores, logs or count files; how many depends on the kind.")
]
OutPicture = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="The picture: .png, .svg or .pdf. (required)")
]
Title = Annotated[str, typer.Option(metavar="TEXT", help="A line above the picture (default: none).")]
Sizes = Annotated[
    str | None, typer.Option("--n", metavar="LIST", help="projection: numbers of samples (default: n/10, 10 n, 100 n); "
                                                         "contraction: one, noisy copies an image (64).")
]
Alphas = Annotated[str | None, typer.Option("--alpha", metavar="LIST", help="projection: alphas, instead of n.")]
Sigmas = Annotated[
    str | None, typer.Option("--sigma", metavar="LIST", help="panels: noise levels; resolution: one (the run's).")
]
ImageIndex = Annotated[
    int | None, typer.Option("--image", metavar="INT", help="panels, resolution, regions: index of the image (default: "
                                                            "that of the median radius); denoised: copies of this one.")
]
Count = Annotated[
    int | None, typer.Option("--count", metavar="INT", help="gallery, denoised, failures, contraction: at most so many "
                                                            "images (default: 36, 8, 12, 100).")
]
Data = Annotated[
    str | None, typer.Option("--data", metavar="TEXT", help="Where images are, as for certify (default: as stored).")
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", metavar="PATH", help="Folder with the data sets' files.")]
Resize = Annotated[int | None, typer.Option(metavar="INT", help="As the run was given it.")]
Crop = Annotated[int | None, typer.Option(metavar="INT", help="As the run was given it.")]
NumericClasses = Annotated[bool, typer.Option("--numeric-classes", help="As the run was given it.")]
Model = Annotated[str | None, typer.Option(metavar="TEXT", help="regions: the base classifier, as for certify.")]
Weights = Annotated[str | None, typer.Option(metavar="TEXT", help="regions: of a model directory: best or last.")]
Trust = Annotated[bool, typer.Option("--trust", help="regions: run the Python code that a model directory names.")]

Denoiser = Annotated[
    Path | None, typer.Option("--denoiser", metavar="PATH", help="denoised, failures, contraction: directory of a "
                                                                 "trained denoiser, for the run's sigma.")
]
Walk = Annotated[
    Path | None, typer.Option("--walk-jump", metavar="PATH", help="denoised, contraction: a second, as for certify.")
]
FrontOption = Annotated[
    list[str] | None, typer.Option("--front-option", metavar="KEY=VALUE", help="Option of the walk, as for certify.")
]


@reported
def plot(
    kind: Which, stores: Stores, out: OutPicture, title: Title = "", rho: Rho = 0.05, sizes: Sizes = None,
    alphas: Alphas = None, sigmas: Sigmas = None, image: ImageIndex = None, count: Count = None, data: Data = None,
    data_dir: DataDir = None, resize: Resize = None, crop: Crop = None, numeric_classes: NumericClasses = False,
    model: Model = None, weights: Weights = None, trust: Trust = False, denoiser: Denoiser = None,
    walk_jump: Walk = None, front_option: FrontOption = None, radius_column: RadiusColumn = None,
) -> None:
    """Draw a picture from stores: curves, envelopes, projections, galleries, noise panels, decision regions, denoisers.
    """
    from smoothcert.report.plots.kinds import Request, check_request, draw_picture
    from smoothcert.report.plots.style import check_ending, save

    given = {"n": _whole("n", sizes), "alpha": number_list("alpha", alphas), "sigma": number_list("sigma", sigmas),
             "image": image, "count": count, "model": model, "weights": weights, "trust": trust,
             "denoiser": denoiser, "walk-jump": walk_jump, "front-option": front_option}
    options = {name: value for name, value in given.items() if value is not None and value is not False and value != []}
    check_request(kind, Request(tuple(stores), rho, options))
    check_ending(out)
    request = Request(tuple(stores), rho, options, radius_column,
                      images_of(data, data_dir, resize, crop, numeric_classes),
                      partial(_answers, model, weights or "best", trust) if model else None,
                      partial(_estimates, denoiser, walk_jump, front_option) if denoiser else None)
    figure, problems = draw_picture(kind, request)
    save(figure, out, title)
    say(f"wrote {out}", err=True)
    fail_for(problems)


def images_of(
    data: str | None, data_dir: Path | None, resize: int | None, crop: int | None, numeric_classes: bool
) -> Any:
    def images_of(store: Any) -> Any:
        from smoothcert.runs.reopen import stored_data

        return stored_data(store, data, data_dir, resize, crop, numeric_classes)

    return images_of


def _answers(model: str, weights: str, trust: bool, store: Any) -> Any:
    from smoothcert.runs.reopen import stored_answers

    return stored_answers(store, model, weights=weights, trust=trust)


def _estimates(denoiser: Path, walk_jump: Path | None, front_option: list[str] | None, store: Any) -> Any:
    from smoothcert.results.estimates import Estimates
    from smoothcert.runs.estimates import stored_estimates

    return Estimates(*stored_estimates(store, denoiser, walk_jump, front_option))


def _whole(name: str, text: str | None) -> list[int]:
    numbers = number_list(name, text)
    if any(value != int(value) for value in numbers):
        raise InputError(f"{name} must be whole numbers separated by commas, such as 1000,100000, got {text!r}")
    return [int(value) for value in numbers]
