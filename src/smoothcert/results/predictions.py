"""What `predict` stores and logs say: accuracy and abstention of the smoothed classifier."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from smoothcert.checks import one_line
from smoothcert.results.certified import ASSUMED_ALPHA, setting_of
from smoothcert.results.figures import percent
from smoothcert.results.looks import look_answers
from smoothcert.results.present import check_records
from smoothcert.results.unseen import unseen_classes
from smoothcert.stats import CertifiedAccuracy, certified_accuracy
from smoothcert.store.store import Store


@dataclass(frozen=True)
class Predicted:
    """Answers of PREDICT for the images of one run.

    Attributes:
        name: how it is called in tables.
        index, correct, abstained, label: (M,) per image; an abstention counts as wrong.
        sigma, alpha, n: what they were predicted with; n is the most samples an image could take. A log may not say
            them: then sigma is NaN and the others are None.
        setting: the store's identity without what tells its images apart.
        complete: whether the run has finished.
        notes: what a log or a store says that a reader of its figures has to know besides; `remarks` has all of it.
        classes: the names of the classes, where known.
        earlier: the answers of the same sample at smaller n, where the run looked at it several times; each look is
            judged at alpha by itself.
    """

    name: str
    index: np.ndarray
    correct: np.ndarray
    abstained: np.ndarray
    label: np.ndarray
    sigma: float
    alpha: float | None
    n: int | None
    setting: dict[str, Any] = field(default_factory=dict)
    complete: bool = True
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    earlier: tuple["Predicted", ...] = ()

    @classmethod
    def of(cls, store: Store, name: str | None = None) -> Self:
        """The answers of a `predict` store, or StoreError where it has none."""
        check_records(store)
        procedure = store.identity["procedure"]
        n = procedure.get("n") or procedure["n_max"]
        label, answers = store.column("label"), store.column("prediction")[:, None]
        looks = n if isinstance(n, list) else [n]
        if len(looks) > 1:
            looks, answers = look_answers(store, procedure["alpha"])
        told = [cls(one_line(name or store.folder.name), store.column("index"), given == label, given < 0, label,
                    store.identity["noise"]["sigma"], procedure["alpha"], look, setting_of(store.identity),
                    store.complete, tuple(map(one_line, store.provenance.get("notes", ()))), store.class_names)
                for look, given in zip(looks, answers.T, strict=True)]
        return replace(told[-1], earlier=tuple(told[:-1]))

    @property
    def looks(self) -> tuple["Predicted", ...]:
        """The answers at every n, the smallest first."""
        return *self.earlier, self

    @property
    def remarks(self) -> tuple[str, ...]:
        """Its notes, and which classes its images do not show."""
        return (*self.notes, *unseen_classes(self.label, self.classes))

    @property
    def images(self) -> int:
        return len(self.index)

    def bounds(self, rho: float) -> CertifiedAccuracy:
        """Accuracy, with its lower bounds: each class returned is another than g's with probability at most alpha."""
        level = ASSUMED_ALPHA if self.alpha is None else self.alpha
        return certified_accuracy(np.zeros(self.images), self.correct, [0.0], level, rho)


def prediction_summary(store: Store) -> dict[str, Any]:
    """Accuracy (an abstention counts as wrong) and abstention of the images predicted so far, as fractions."""
    told = Predicted.of(store)
    looks = [{"n": look.n, "accuracy": float(look.correct.mean()), "abstained": float(look.abstained.mean())}
             for look in told.earlier]
    return {
        "store": str(store.folder), "images": told.images, "complete": told.complete, "sigma": told.sigma,
        "alpha": told.alpha, "n": told.n, "accuracy": float(told.correct.mean()),
        "abstained": float(told.abstained.mean()), **({"earlier": looks} if looks else {}),
        "notes": list(told.remarks),
    }


def prediction_text(store: Store) -> str:
    """The same for people."""
    s = prediction_summary(store)
    unfinished = "" if s["complete"] else " (UNFINISHED: the run has images left)"
    earlier = "".join(f"at n {look['n']:,}: accuracy {percent(look['accuracy'])}%, abstained "
                      f"{percent(look['abstained'])}%\n"
                      for look in s.get("earlier", ()))
    notes = "".join(f"\nnote: {note}" for note in s["notes"])
    return (f"{store.folder.name}: {s['images']} images, sigma {s['sigma']:g}, alpha {s['alpha']:g}, n {s['n']:,}"
            f"{unfinished}\n{earlier}accuracy of the smoothed classifier {percent(s['accuracy'])}%, abstained "
            f"{percent(s['abstained'])}%{notes}")
