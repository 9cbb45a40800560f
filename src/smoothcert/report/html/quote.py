"""The sentence of a page that a person can quote: which claim, of which images, and how sure."""

from collections.abc import Sequence

from smoothcert.report.tables import Markup, element
from smoothcert.results.base import ASSUMED_ALPHA, is_foreign
from smoothcert.results.certified import Result, default_radii
from smoothcert.results.figures import down, percent, sigma_words
from smoothcert.results.gather import PageRun
from smoothcert.results.networks import describe_arithmetic

_RUNS = 6
"""Runs that have a sentence each; a reader of more looks at the tables."""

_RADIUS = 0.25
"""The radius of the sentence on a run that does not state its sigma."""


def quoted_radius(result: Result, radii: Sequence[float] = ()) -> float:
    """Return the radius of the sentence on a run: of `radii`, of those it decided, or of any, the nearest to sigma.

    It follows from how the run was set up and never from its outcome, so a bound at one radius holds there. A radius
    that no outcome could have proved is not taken where there is another.
    """
    aim = result.sigma if result.sigma == result.sigma else _RADIUS
    ceiling = float("inf") if result.ceiling is None else result.ceiling
    known = [radius for radius in radii or result.decided or () if radius > 0]
    if not known:
        known = [aim] if aim <= ceiling else default_radii([result])
    return min([radius for radius in known if radius <= ceiling] or known, key=lambda radius: abs(radius - aim))


def quote(run: PageRun, radii: Sequence[float], rho: float) -> tuple[str, str]:
    """Return the sentence on the images of a run, and one on new images, each a lower bound at level 1 - rho."""
    result, radius = run.result, quoted_radius(run.result, radii)
    at = result.at([radius], rho)
    sure = down(100 * (1 - rho), 4).rstrip("0").rstrip(".")
    what, units = _units(run)
    unchanged = f", and stay so under every change of their {what} with an l2 norm below {radius:g}, {units}" * bool(
        radius)
    promise = "are classified correctly by the smoothed classifier" if result.claim is None else result.claim.promise
    first = (f"With {sure}% confidence, at least {percent(at.test_set[0])}% of {_images(run)} {promise}"
             f"{_classifier(run)}{unchanged}{_provided(result)}.")
    second = (f"The same is true of at least {percent(at.population[0])}% of new images that are drawn at random like "
              f"these, also with {sure}% confidence.")
    return first, second


def show_quotes(runs: Sequence[PageRun], radii: Sequence[float], rho: float) -> Markup:
    """Return the section of sentences, one for each of the first runs."""
    parts = []
    for run in runs[:_RUNS]:
        first, second = quote(run, radii, rho)
        source = element("footer", f"Of the run {run.name}") if len(runs) > 1 else ""
        parts.append(element("blockquote", element("p", first), element("p", element("small", second)), source))
    words = ("Each sentence holds by itself, at its one radius, which was set by how the run was made and not by how "
             "it came out.")
    words += f" The other {len(runs) - _RUNS:,} runs are in the tables." if len(runs) > _RUNS else ""
    return element("section", element("h2", "To quote"), *parts, element("p", element("small", words)), id="quote")


def _images(run: PageRun) -> str:
    """Return which images a run is of, in words."""
    result, count = run.result, f"{run.result.images:,}"
    if is_foreign(run.store):
        return f"the {count} images of the file {run.name}"
    data, images = run.store.identity.data, run.store.identity.images
    name = f"{data.name} ({data.split} split"
    if not result.complete:
        return f"the {count} images of {name}) that this unfinished run has done so far"
    if images.of is not None:
        return f"{count} evenly spaced images of {name})"
    if "every" not in images.model_fields_set:
        return f"{count} chosen images of {name})"
    if images.every > 1:
        return f"{count} images of {name}, one in {images.every} from number {images.start} on)"
    return f"the {count} images of {name}, numbers {images.start} to {images.start + images.count - 1})"


def _units(run: PageRun) -> tuple[str, str]:
    """Return what the radii are a change of, and their units, in words."""
    data = None if is_foreign(run.store) else run.store.identity.data
    if data is None or (len(data.shape) == 3 and data.bounds == (0, 1)):
        return "pixels", "where pixels lie in [0, 1]"
    return "values", "in the units of the data"


def _classifier(run: PageRun) -> str:
    facts = [f"sigma {sigma_words(run.result.sigma)}"] if run.result.sigma == run.result.sigma else []
    if not is_foreign(run.store):
        arithmetic = describe_arithmetic(run.store)
        facts = [run.store.provenance.model, "" if arithmetic == "float32" else arithmetic, *facts]
    facts = [fact for fact in facts if fact]
    return f" ({', '.join(facts)})" if facts else ""


def _provided(result: Result) -> str:
    """Return the conditions under which the sentence holds, where the file leaves something open."""
    conditions = []
    if result.printed:
        conditions.append("no printed radius was rounded up")
    if result.alpha is None:
        conditions.append(f"each line fails with probability at most {ASSUMED_ALPHA:g}")
    return f", provided that {' and '.join(conditions)}" if conditions else ""
