"""What a `predict` store says: accuracy and abstention of the smoothed classifier."""

from typing import Any

from smoothcert.errors import StoreError
from smoothcert.runs.store import Store


def prediction_summary(store: Store) -> dict[str, Any]:
    """Accuracy (an abstention counts as wrong) and abstention of the images predicted so far, as fractions."""
    if not store.records.num_rows:
        raise StoreError(f"{store.folder} has no records yet: let its run finish some images")
    procedure = store.identity["procedure"]
    return {
        "store": str(store.folder), "images": store.records.num_rows, "complete": store.complete,
        "sigma": store.identity["noise"]["sigma"], "alpha": procedure["alpha"],
        "n": procedure.get("n") or procedure["n_max"], "accuracy": float(store.correct.mean()),
        "abstained": float((store.column("prediction") < 0).mean()),
    }


def prediction_text(store: Store) -> str:
    """The same for people."""
    s = prediction_summary(store)
    unfinished = "" if s["complete"] else " (UNFINISHED: the run has images left)"
    return (f"{store.folder.name}: {s['images']} images, sigma {s['sigma']:g}, alpha {s['alpha']:g}, n {s['n']:,}"
            f"{unfinished}\naccuracy of the smoothed classifier {s['accuracy']:.1%}, abstained {s['abstained']:.1%}")
