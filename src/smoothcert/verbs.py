"""The verbs as functions: `smoothcert.certify(model, data, sigma=0.5)` and the others, for scripts and notebooks.

Models and data are objects or names. Each function checks all options at once, as the command line does, and makes the
same run: with `out` into a store that the same call resumes, without it into a store in memory.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from smoothcert.classifiers.card import ModelCard
from smoothcert.config.sampling import RunConfig
from smoothcert.errors import InputError
from smoothcert.interop import open_named
from smoothcert.noise import NOISES
from smoothcert.progress import Progress
from smoothcert.runs import attack as attack_run
from smoothcert.runs import certify as sampling_runs
from smoothcert.runs import transfer as transfer_run
from smoothcert.runs.inputs import model_title
from smoothcert.runs.options import AttackConfig, CertifyConfig, PredictConfig
from smoothcert.runs.transfer_options import TransferConfig
from smoothcert.smoothing import SmoothedClassifier
from smoothcert.store.manifest import is_store
from smoothcert.store.store import Store, read_store
from smoothcert.training import train as training
from smoothcert.training.options import TrainConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from smoothcert.bundles.bundle import Bundle
    from smoothcert.report.tables import Page
    from smoothcert.results.planning import ClaimPlan
    from smoothcert.results.requirements import Checked

Out = str | PathLike[str] | None
Stores = Any
"""A store, its folder, a log or a count file; several of them; or a mapping from names to them."""

Options = TypeVar("Options", bound=RunConfig)

IN_MEMORY = "(in memory)"
"""The folder that a store in memory names."""


def certify(
    model: Any, data: Any = None, *, sigma: float | None = None, n: int | None = None, n0: int | None = None,
    n_max: int | None = None, radii: Sequence[float] | None = None, curve_loss: float | None = None,
    curve_to: float | None = None, alpha: float | None = None, seed: int | None = None, noise: Any = None,
    denoiser: Any = None, max_images: int | None = None, batch_size: int | None = None, workers: int | None = None,
    out: Out = None, log_to: Any = None, progress: Progress | None = None, verbose: bool = False, **options: Any,
) -> Store:
    """Certify the images of a data set: a class and an l2 radius for each.

    Args:
        model: a torch module in eval mode, a function from inputs (N, *shape) to logits (N, K), an object with
            `predict_proba`, a factory of one of these, or a `SmoothedClassifier`, whose sigma, noise, denoiser and seed
            are then used; or a name, as the command line takes it (a folder, "zoo:NAME", "net.py:build", "net.onnx").
        data: `ImageData`; a pair (images, labels); a map-style torch Dataset, or a DataLoader of one; a Hugging Face
            Dataset; or a name, such as "digits" or "imagefolder:PATH". None takes the data that the model was trained
            on, else the digits.
        sigma: noise level, in the data's units (pixel units of [0, 1] of images); None takes that of the model.
        n, n0, n_max, radii, curve_loss, curve_to, alpha: the design; see `smoothcert.runs.options.CertifyConfig`.
        out: the folder of the store. The same call resumes an interrupted run. None keeps the store in memory.
        log_to: loggers of the figures so far, such as "tensorboard:DIR", an object, or a list of them.
        progress: is called with the progress of the run. verbose: shows it.
        options: any other option of `CertifyConfig`, by its name, such as task="regression" for a function with real
            values, or task="multi-label".
    Returns:
        The finished store: `smoothcert.table` shows its figures, `smoothcert.plot` its curve, `to_pandas` its records.
    Raises:
        ConfigError: with all mistakes in the options. InputError, ModelError, DataError, FileError: a model or data
        that cannot be used, before anything is written. IdentityError: `out` holds another run.

    >>> import torch
    >>> linear = lambda x: torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], dim=1)
    >>> images, labels = torch.ones(3, 1, 4, 4), [0, 0, 1]
    >>> store = certify(linear, (images, labels), sigma=0.5, n=1000, seed=0)
    >>> store.column("prediction").tolist()
    [0, 0, 0]
    """
    given = {"sigma": sigma, "n": n, "n0": n0, "n_max": n_max, "radii": radii, "curve_loss": curve_loss,
             "curve_to": curve_to, "alpha": alpha, "seed": seed, "noise": noise, "denoiser": denoiser,
             "max_images": max_images, "batch_size": batch_size, "workers": workers, "log_to": log_to, **options}
    return _run(sampling_runs.certify, CertifyConfig, model, data, out, given, progress, verbose)


def predict(
    model: Any, data: Any = None, *, sigma: float | None = None, n: int | Sequence[int] | None = None,
    n_max: int | None = None, alpha: float | None = None, seed: int | None = None, noise: Any = None,
    denoiser: Any = None, max_images: int | None = None, batch_size: int | None = None, workers: int | None = None,
    out: Out = None, log_to: Any = None, progress: Progress | None = None, verbose: bool = False, **options: Any,
) -> Store:
    """Predict the images of a data set by the smoothed classifier: a class for each, or an abstention.

    Args:
        n, n_max, alpha: the design; see `smoothcert.runs.options.PredictConfig`, whose other options may be given too.
        model, data, sigma, out, log_to, progress, verbose: as for `certify`.
    Returns:
        The finished store.
    Raises:
        What `certify` raises.
    """
    given = {"sigma": sigma, "n": n, "n_max": n_max, "alpha": alpha, "seed": seed, "noise": noise,
             "denoiser": denoiser, "max_images": max_images, "batch_size": batch_size, "workers": workers,
             "log_to": log_to, **options}
    return _run(sampling_runs.predict, PredictConfig, model, data, out, given, progress, verbose)


def attack(
    model: Any, data: Any = None, *, sigma: float | None = None, eps: float | Sequence[float] | None = None,
    attack: Any = None, m: int | Sequence[int] | None = None, steps: int | Sequence[int] | None = None,
    n: int | Sequence[int] | None = None, alpha: float | None = None, seed: int | None = None, noise: Any = None,
    denoiser: Any = None, max_images: int | None = None, batch_size: int | None = None, workers: int | None = None,
    out: Out = None, progress: Progress | None = None, verbose: bool = False, **options: Any,
) -> Store:
    """Attack the smoothed classifier at the images of a data set, and predict what comes of them.

    Args:
        eps: bounds on the perturbations, in the data's units. attack: a name, such as "pgd", or an attack of your own.
        m: noisy copies that the attack sees. steps: its steps. n: samples that predict the attacked image.
        options: any other option of `smoothcert.runs.options.AttackConfig`, by its name.
        model, data, sigma, out, progress, verbose: as for `certify`.
    Returns:
        The finished store, which has a record for each image, eps, m and number of steps.
    Raises:
        What `certify` raises.
    """
    given = {"sigma": sigma, "eps": eps, "attack": attack, "m": m, "steps": steps, "n": n, "alpha": alpha,
             "seed": seed, "noise": noise, "denoiser": denoiser, "max_images": max_images, "batch_size": batch_size,
             "workers": workers, **options}
    if out is None and options.get("save_adversaries"):
        raise InputError("save_adversaries keeps images in the store's folder: give out")
    return _run(attack_run.attack, AttackConfig, model, data, out, given, progress, verbose)


def transfer(
    store: Any, model: Any, data: Any = None, *, original: Any = None, n: int | None = None,
    share: float | None = None, alpha: float | None = None, method: str | None = None, max_images: int | None = None,
    batch_size: int | None = None, workers: int | None = None, out: Out = None, progress: Progress | None = None,
    verbose: bool = False, **options: Any,
) -> Store:
    """Certify a network by the certificates of another one, such as its float32 original, and noisy copies that both
    judge: see `smoothcert.stats.transfer`.

    Args:
        store: the finished store of `certify` of the original network, or its folder.
        model: the network to certify. original: the store's network; None takes `model` itself in the store's
            precision, for another `precision` of one network.
        data: the store's data, in the forms of `certify`; None looks where the store's run found them.
        n: noisy copies an image that both networks judge. share: part of alpha that the flips between them may spend.
        alpha, method: None takes those of the store. All of these are to be chosen before any copy is judged.
        options: any other option of `smoothcert.runs.transfer_options.TransferConfig`, by its name.
        max_images, batch_size, workers, out, progress, verbose: as for `certify`.
    Returns:
        The finished store. `smoothcert.results.transfers.Transferred` says what the transfer gained or lost.
    Raises:
        What `certify` raises; and StoreError where the certificates of `store` cannot be transferred.
    """
    in_memory = isinstance(store, Store) and not is_store(store.folder)
    given = {"store": store.folder if isinstance(store, Store) and not in_memory else store, "n": n, "share": share,
             "original": original.model if isinstance(original, SmoothedClassifier) else original, "alpha": alpha,
             "method": method, "max_images": max_images, "batch_size": batch_size, "workers": workers, **options}
    return _run(transfer_run.transfer, TransferConfig, model, data, out, given, progress, verbose)


def plan(
    pilot: Any, *, radius: float, accuracy: float | None = None, samples: float | None = None, data: Any = None,
    **options: Any,
) -> "ClaimPlan":
    """Plan a run that proves which share of new images is certified at a radius, by a pilot.

    Args:
        pilot: the store of `certify` or `predict` over some 50 images, its folder, a log or a count file.
        radius: of the claim. accuracy: the share that is wanted. samples: or what the run may take, on average.
        data: the pilot's images, as for `certify`, where its store does not say where they are.
        options: any other field of `smoothcert.results.planning.ClaimRequest`, by its name.
    Returns:
        The plan: `certify(model, data, **plan.options)` runs it, and
        `smoothcert.results.planning.ClaimOutcome.of(store)` says what became of the claim.
    Raises:
        InputError: no run can prove that; the message has the best that can be had. StoreError: see `plan_claim`.
    """
    from smoothcert.results.planning import ClaimRequest, plan_claim
    from smoothcert.runs.reopen import reopen_data

    ((_, store),) = open_named(pilot)
    return plan_claim(store, ClaimRequest(radius, accuracy, samples, **options), partial(reopen_data, data=data))


def train(
    model: str | None = None, data: Any = None, *, out: str | PathLike[str], objective: Any = None,
    sigma: float | None = None, epochs: int | None = None, batch_size: int | None = None, lr: float | None = None,
    seed: int | None = None, log_to: Any = None, progress: Progress | None = None, verbose: bool = False,
    **options: Any,
) -> ModelCard:
    """Train a base classifier, or a denoiser, into a model folder; the same call resumes an interrupted run.

    Args:
        model: the name of a network, such as "resnet20", or the place of a factory of your own.
        data: as for `certify`; names take their split `train`. None takes the digits.
        objective: a name, such as "smoothadv", or an objective of your own, the class or the object.
        out: the folder, which `certify` takes as a model.
        log_to: loggers of each epoch's figures, as for `certify`.
        options: any other option of `smoothcert.training.options.TrainConfig`, by its name.
    Returns:
        The model's card: its network, data, sigma and figures.
    Raises:
        What `certify` raises; and ConfigError where the network cannot be named by a text.
    """
    given = {"model": model, "data": data, "objective": objective, "sigma": sigma, "epochs": epochs,
             "batch_size": batch_size, "lr": lr, "seed": seed, "log_to": log_to, **options, "out": Path(out)}
    config = TrainConfig.parse({name: value for name, value in given.items() if value is not None})
    return training.train(config, **_reports(progress, verbose))


def quantise(
    model: Any, data: Any = None, *, out: str | PathLike[str], sigma: float | None = None, noise: Any = None,
    images: int | None = None, split: str | None = None, denoiser: Any = None, seed: int | None = None,
    progress: Progress | None = None, verbose: bool = False, **options: Any,
) -> ModelCard:
    """Make an int8 network of a float32 model, calibrated on noisy images, in a new model folder.

    Args:
        model: as for `certify`: a torch module, a folder, an ONNX file, or another that can be exported to ONNX.
        data: the images of the calibration, as for `certify`; None takes those that the model was trained on.
        out: the folder, which `certify` and the other verbs take as a model.
        sigma, noise: of the certification to come; None takes the model's sigma and grid noise.
        images: how many, evenly spaced. split: of named data; None takes `train`.
        denoiser: to be quantised together with the model behind it.
        options: any other option of `smoothcert.quantisation.options.QuantiseConfig`, by its name.
    Returns:
        The card of the new model: `card.quantised` says how it was made, `card.best` how often it agrees with the
        original on noisy images.
    Raises:
        What `smoothcert.quantisation.quantise.quantise` raises; and ConfigError with all mistakes in the options.
    """
    from smoothcert.quantisation.options import QuantiseConfig
    from smoothcert.quantisation.quantise import quantise as run

    given = {"model": model, "data": data, "sigma": sigma, "noise": noise, "images": images, "split": split,
             "denoiser": denoiser, "seed": seed, **options, "out": Path(out)}
    return run(QuantiseConfig.parse({name: value for name, value in given.items() if value is not None}),
               **_reports(progress, verbose))


def table(stores: Stores, *, radii: Sequence[float] | None = None, **options: Any) -> "Page":
    """Return the figures of stores as the command `table` prints them.

    Args:
        stores: a store, its folder, a log or a count file; a list of them; or a mapping from names to them.
        radii: at which certified accuracies are given.
        options: those of `smoothcert.results.base.Points`.
    Returns:
        A page, which is text where it is printed and HTML in a notebook; see its `to_markdown` and `to_latex`.
    Raises:
        StoreError, FileError: what cannot be read. InputError: stores of several kinds, or points that they lack.
    """
    from smoothcert.report.shown import PAGES
    from smoothcert.results.base import Points
    from smoothcert.results.gather import Gathered, read_result

    results = [read_result(store, name) for name, store in open_named(stores)]
    if len({result.kind for result in results}) > 1:
        raise InputError(f"a table is of stores of one kind, got {', '.join(result.kind for result in results)}")
    (runs,) = Gathered(results).at(Points(() if radii is None else tuple(radii), **options))
    return PAGES[runs.kind](runs, "text")


def check(
    store: Any, require: str | Sequence[str], *, bound: str = "population", rho: float = 0.05
) -> "Checked":
    """Hold requirements, such as "accuracy@0.5 >= 0.40", against a run, as the command `check` does.

    Args:
        store: a store, its folder, a log or a count file.
        require: one or several; `smoothcert.results.requirements.GRAMMAR` says how they are written.
        bound: the figures to compare: "population" (lower limits for new images), "test_set", "bernstein", "all_radii"
            or "observed".
        rho: failure probability of each limit.
    Returns:
        The outcomes: `holds` is True where all hold, and `decisions` says by how much each does.
    Raises:
        ConfigError: requirements that do not parse. StoreError, FileError: a store that cannot be read, holds no
            figures of this kind, or is not finished.
    """
    from smoothcert.results.requirements import check_store

    [(name, opened)] = open_named([store])
    return check_store(opened, [require] if isinstance(require, str) else require, bound, rho, name)


def bundle(
    stores: Stores, out: str | PathLike[str], *, radii: Sequence[float] | None = None,
    require: str | Sequence[str] = (), title: str = "", progress: Progress | None = None, verbose: bool = False,
    **options: Any,
) -> "Bundle":
    """Put the evidence of stores into a new folder or a zip file, as the command `bundle` does.

    Args:
        stores: as for `table`, but on disk and finished.
        out: the folder; or the file, where it ends in .zip.
        radii: of the figures. require: what has to hold, as for `check`. title: heading of the pages.
        options: any other option of `smoothcert.bundles.options.BundleConfig`, by its name, such as `selftest`, the
            file of a selftest, `quick` or `digest_only`.
    Returns:
        What was written, and the outcomes of all that was tested: `holds` is False where any of it failed.
    Raises:
        What `smoothcert.bundles.bundle.bundle` raises; and ConfigError with all mistakes in the options.
    """
    from smoothcert.bundles.bundle import bundle as run
    from smoothcert.bundles.options import BundleConfig

    named = open_named(stores)
    given = {"stores": [str(store.folder) for _, store in named], "out": Path(out), "radii": radii, "title": title,
             "require": require, **options}
    config = BundleConfig.parse({name: value for name, value in given.items() if value is not None})
    return run(config, named, **_reports(progress, verbose))


def plot(
    stores: Stores, kind: Any = "curve", *, ax: "Axes | None" = None, data: Any = None, **options: Any
) -> "Figure":
    """Draw a picture of stores.

    Args:
        stores: as for `table`.
        kind: "curve", "wall", "abstention" or another name that the command `plot` takes, or a picture of your own.
        ax: the axes to draw in, for kinds that draw in one.
        data: the images of the stores, as for `certify`, for kinds that show images; None opens what the stores name.
        options: those of the kind.
    Returns:
        The matplotlib figure, which a notebook shows.
    Raises:
        What `smoothcert.report.plots.picture` raises.
    """
    from smoothcert.report.plots import picture
    from smoothcert.runs.reopen import reopen_data

    return picture(kind, open_named(stores), ax=ax, images_of=partial(reopen_data, data=data), **options)


def _run(
    run: Callable[..., Store], kind: type[Options], model: Any, data: Any, out: Out, given: dict[str, Any],
    progress: Progress | None, verbose: bool,
) -> Store:
    """Make a run of the options that were given, into a folder or into memory."""
    known = {name: value for name, value in given.items() if value is not None}
    if isinstance(model, SmoothedClassifier):
        known, model = _with_smoothed(model, known), model.model
    if isinstance(model, nn.Module) and "device" not in known and (first := next(model.parameters(), None)) is not None:
        known["device"] = first.device.type
    values = {"model": model, "data": data, **known}
    reports = _reports(progress, verbose)
    if out is not None:
        return run(kind.parse({**values, "out": out if isinstance(out, str) else Path(out)}), **reports)
    with tempfile.TemporaryDirectory(prefix="smoothcert-") as folder:
        store = run(kind.parse({**values, "out": Path(folder) / kind.__name__}), **reports)
        store.records  # noqa: B018 - reads what the folder holds
        name = model_title(model)
        return replace(store, folder=Path(IN_MEMORY) / (Path(name).name or name))


def _with_smoothed(g: SmoothedClassifier, known: dict[str, Any]) -> dict[str, Any]:
    """Return options with what a smoothed classifier fixes. Raises InputError where they contradict it."""
    kind: Any = g.noise.kind
    own = {"sigma": g.sigma, "noise": kind if kind in NOISES else type(g.noise), "num_classes": g.num_classes,
           "seed": g.seed, "denoiser": g.denoiser, "output": g.output}
    for name in ("sigma", "num_classes"):
        if known.get(name, own[name]) != own[name]:
            raise InputError(f"{name} is {known[name]}, but that of the SmoothedClassifier is {own[name]}: leave "
                             f"{name} out, or give its model alone")
    return {**{name: value for name, value in own.items() if value is not None}, **known}


def _reports(progress: Progress | None, verbose: bool) -> dict[str, Any]:
    return {**({} if progress is None else {"progress": progress}), **({"verbose": True} if verbose else {})}


__all__ = ["attack", "bundle", "certify", "check", "plan", "plot", "predict", "quantise", "read_store", "table",
           "train", "transfer"]
