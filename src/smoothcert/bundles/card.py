"""A model card with a `model-index`, which huggingface_hub's classes write and read."""

import html
from collections.abc import Sequence
from importlib import import_module

from smoothcert.bundles.stores import BundledStore
from smoothcert.errors import FileError
from smoothcert.report.model_index import describe_results
from smoothcert.results.metrics import Metric

CARD = "model-card.md"
TAGS = ["smoothcert", "randomized-smoothing", "certified-robustness"]


def write_card(title: str, stores: Sequence[BundledStore], figures: Sequence[Sequence[Metric]], rho: float,
               tables: str) -> str:
    """Return the text of the card: the figures for the hub, and the tables for people.

    Args:
        figures: of each store. rho: failure probability of their limits. tables: in Markdown.
    Raises:
        FileError: the hub's classes do not read it as it was written.
    """
    hub, cards = import_module("huggingface_hub"), import_module("huggingface_hub.repocard_data")
    results = [describe_results(one.store, metrics, {"rho": rho, "store": one.place})
               for one, metrics in zip(stores, figures, strict=True)]
    _, evaluations = cards.model_index_to_eval_results([{"name": title, "results": results}])
    front = hub.ModelCardData(model_name=title, eval_results=evaluations, tags=list(TAGS), library_name="smoothcert")
    text = (f"---\n{front.to_yaml()}\n---\n\n# {html.escape(title)}\n\nFigures of stores of smoothcert. `at_least` "
            f"is the lower limit for new inputs that are drawn at random like these; each fails with probability at "
            f"most {rho:g}.\n\n{tables}\n")
    try:
        read = hub.ModelCard(text).data.eval_results
    except (ValueError, TypeError) as error:
        raise FileError(f"{CARD} is not as the Hugging Face hub has it: {error}") from None
    if read != evaluations:
        raise FileError(f"{CARD} is read by the Hugging Face hub with other figures than were written")
    return text
