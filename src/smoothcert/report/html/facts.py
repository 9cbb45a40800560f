"""The words of a page: what a run is, what its guarantee says and does not say, and warnings."""

from collections.abc import Sequence
from typing import Any, Protocol

from smoothcert.report.selftest import SelfTest
from smoothcert.results.base import ASSUMED_ALPHA, is_foreign
from smoothcert.results.figures import alpha_words, sigma_words
from smoothcert.results.gather import PageRun
from smoothcert.results.networks import describe_arithmetic
from smoothcert.store.store import Store

SAYS = (
    "For each certified image, the smoothed classifier gives the stated class to every image whose l2 distance from it "
    "is below the radius. This is a theorem (Cohen et al. 2019, Theorem 1), not the outcome of attacks that failed.",
    "Each certificate is false with probability at most alpha, over the noise that was drawn for it. Of many "
    "certificates some few may be false; the lower bounds in the tables count with that.",
    "Certified accuracy at radius r is the share of images whose class is right and whose radius is at least r. Wrong "
    "answers and abstentions count as 0 in it, and in the average certified radius (ACR).",
)
SAYS_NOT = (
    "It does not say that the class is right.",
    "It says nothing about the base classifier without noise: the guarantee is for the vote over noisy copies, so that "
    "vote is what has to be used.",
    "It says nothing about other changes of an image (rotation, blur, a large change of few pixels), unless their l2 "
    "norm is below the radius.",
    "It says nothing about images that were not certified. The bound for new images holds for images drawn like these.",
    "It is void when the weights, sigma or the preprocessing change.",
)
ASSUMES = (
    "Sigma and radii are in the units of the data (images are in [0, 1]), normalisation is inside the model, and noise "
    "is not clipped.",
    "The class was chosen from other samples than those that bound its probability.",
    "alpha, n and the images were chosen beforehand, not after a look at the counts.",
    "The random numbers behave like independent normal ones.",
)


def settings(run: PageRun) -> list[tuple[str, str]]:
    """Return what was certified, how, and with what, in (name, value) lines."""
    result = run.result
    identity, origin = run.store.identity, run.store.provenance.raw
    lines = [("images", f"{result.images:,}"), ("sigma", sigma_words(result.sigma)),
             ("method", result.method or "?"), ("alpha", alpha_words(result.alpha)),
             ("samples an image, at most", f"{result.n:,}" if result.n else "?")]
    if result.margin is not None:
        lines.append(("margin tau", f"{result.margin:g}"))
    if is_foreign(run.store):
        return [*lines, ("read from", ", ".join(str(origin[name]) for name in ("log", "counts") if name in origin))]
    if (routed := identity.routed_from) is not None:
        return [*lines, ("data", f"{identity.data.name}, {identity.data.split}"), ("router", f"store {routed.router}"),
                *((f"classifier {k}", f"store {digest}") for k, digest in enumerate(routed.classifiers))]
    data, model = identity.data, identity.model
    lines += [
        ("model", f"{origin.get('model', '')} (by {model.by}: {model.sha256 or model.id})"),
        ("certified in", describe_arithmetic(run.store)),
        ("data", f"{data.name}, {data.split}, inputs of shape {tuple(data.shape)}"),
        ("SHA-256 of the data", data.sha256), ("which images", _flat(identity.images.raw)),
        ("noise", _flat(identity.noise.raw)), ("seed", str(identity.seed)),
        ("procedure", _flat(identity.procedure.raw)),
        ("computed in", ", ".join(f"{name} {identity.raw[name]}" for name in
                                  ("space", "engine", "precision", "device") if name in identity.raw)),
    ]
    if (told := identity.transferred_from) is not None:
        lines.append(("transferred from", f"{origin.get('original', '')} (by {told.model.by}: "
                                          f"{told.model.sha256 or told.model.id}), store {told.digest}"))
    lines += [(name, _flat(origin[name]) if isinstance(origin[name], dict) else str(origin[name]))
              for name in ("versions", "machine") if name in origin]
    return lines


def warnings(run: PageRun) -> list[str]:
    """Return sentences that a reader of the run's figures has to know."""
    result, found = run.result, []
    if not result.complete:
        found.append("The run is not finished: these are the images that it has done so far.")
    if result.asked_to is not None:
        found.append(f"The curve was asked for up to radius {result.asked_to:g}: beyond it, the curve and the ACR are "
                     f"lower bounds of what all samples would have given.")
    elif result.is_lower_bound:
        found.append("Sampling stopped early by rule: the curve and the ACR are lower bounds of what all samples would "
                     "have given" + (f"; it is settled at radius {', '.join(f'{r:g}' for r in result.decided)}."
                                     if result.decided else "."))
    if result.method == "t-certify":
        found.append("T-CERTIFY as published is proved to fail with probability at most 2 alpha, not alpha; its lower "
                     "bounds of certified accuracy are those at 2 alpha.")
    if result.margin is not None:
        found.append(f"Radii are those within which the class keeps {0.5 + result.margin:g} of the votes: smaller than "
                     f"plain ones.")
    if result.printed:
        found.append("Radii are those that a log printed, so they may be rounded up: by less than one unit of their "
                     "last digit.")
    if is_foreign(run.store):
        found.append("The file does not say which model, data and seed it is of, so none of it can be checked here.")
        if result.alpha is None:
            found.append(f"It does not say alpha either: lower bounds take {ASSUMED_ALPHA:g}.")
    else:
        found += _store_warnings(run.store)
    found += [f"{note[:1].upper()}{note[1:]}." for note in result.remarks]
    if run.gallery is not None and run.gallery.lossy:
        found.append("The images are stored in a lossy format (JPEG): certified are the decoded pixels, which may "
                     "differ from those of another copy of the data set.")
    return found


def _store_warnings(store: Store) -> list[str]:
    identity, found = store.identity, []
    if (precision := identity.precision or "float32") != "float32":
        batches = f", with its batches of {identity.batch_size}" if identity.batch_size else ""
        found.append(f"Reduced precision ({precision}): what is certified is the classifier computed in "
                     f"{describe_arithmetic(store)}{batches}. Another precision is another classifier.")
    model = identity.model_or_none
    if model is not None and "runtime" in model.raw:
        found.append(f"The network is {describe_arithmetic(store)}: that is what is certified. The network that it "
                     f"was made from is another classifier, of which this says nothing.")
    if identity.noise.kind == "gaussian":
        found.append("Noise of floating-point numbers, not on a grid: rounding could in principle let a noisy copy "
                     "tell its centre, which the theorem does not consider.")
    elif off := int(store.column("off_grid").sum()):
        found.append(f"{off:,} of {store.num_records:,} images are off the noise's grid (their pixels are no "
                     f"multiples of 1/{identity.noise.levels}): certified as given, and flagged.")
    if model is not None and model.by in ("id", "probe"):
        found.append({"id": "The model is known by the name it was given alone; its weights were not hashed.",
                      "probe": "The model is known by its answers to fixed inputs alone; its weights were not hashed."}
                     [model.by])
    if identity.recertified_from is not None:
        found.append("These certificates were recomputed from stored counts. They hold if alpha, method and margin "
                     "were chosen without looking at those counts.")
    return found


def _flat(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items() if value is not None)


class StoredRun(Protocol):
    """A run by its name, and its store."""

    @property
    def name(self) -> str: ...
    @property
    def store(self) -> Store: ...


def find_untested(found: SelfTest, runs: Sequence[StoredRun]) -> list[tuple[str, str]]:
    """Return (run, words) for each run made with versions, noise, precision, engine or device that were not tested."""
    made = {check.group for check in found.checks if check.verdict != "skipped"}
    tested = {*found.environment.get("versions", "").split(", "),
              *(f"{name} {found.settings.get(name, '').split(':')[0]}" for name in ("noise", "precision", "device")),
              *(group for group in made if group.startswith("engine "))}
    if "smaller spaces" in made:
        tested.add("engine exact")
    lines = []
    for run in runs:
        identity = run.store.identity
        used = [f"{name} {version}" for name, version in run.store.provenance.versions.items()]
        asked = {"noise": identity.noise.kind, "precision": identity.precision, "device": identity.device,
                 "engine": identity.engine}
        used += [f"{name} {value}" for name, value in asked.items() if value]
        if other := [words for words in used if words not in tested]:
            lines.append((run.name, f"made with {', '.join(other)}, which this selftest did not test."))
    return lines
