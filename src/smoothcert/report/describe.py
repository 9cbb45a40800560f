"""The description of something on disk: a store, a log, a count file or a model directory."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from smoothcert.checks import one_line
from smoothcert.classifiers.card import is_model_dir, read_card
from smoothcert.errors import EmptyStoreError, FileError
from smoothcert.interop import open_records
from smoothcert.io.paths import Place
from smoothcert.report.shown import render_result, result_json
from smoothcert.results.base import Points, StoreResult, is_foreign
from smoothcert.results.gather import read_result
from smoothcert.store.manifest import is_store

_LISTED = 100
"""Values of a list that are shown."""


@dataclass(frozen=True)
class Description:
    """Plain facts, the figures between them, and what was run.

    Attributes:
        facts: the path, the kind of thing, and of records how many there are.
        result: the figures; None where there are none (yet).
        origin: identity and provenance of a store or a count file.
    """

    facts: dict[str, Any]
    result: StoreResult | None = None
    origin: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Place, radius_column: str | None = None) -> Self:
        """Describe what is at a path; a store is checked against its hashes on the way.

        Args:
            radius_column: the column of a log that holds the radii; see `read_log`.
        Raises:
            FileError: it is none of these.
        """
        if isinstance(path, Path) and not is_store(path) and is_model_dir(path):
            return cls({"path": str(path), "is": "model directory", **asdict(read_card(path))})
        if not (is_store(path) or path.is_file()):
            raise FileError(f"{path} is neither a store (manifest.json) nor a model directory (model.json)"
                            if path.exists() else f"there is no {path}")
        store = open_records(path, radius_column=radius_column)
        form = "log" if store.provenance.log is not None else "count file" if path.is_file() else "store"
        facts = {"path": str(path), "is": f"{store.kind} {form}",
                 "records": f"{store.num_records} of {store.identity.record_count}", "complete": store.complete}
        if store.num_records and not is_foreign(store):
            facts["off_grid_images"] = len(np.unique(store.column("index")[store.column("off_grid")]))
        origin = {} if form == "log" else {"identity": store.identity.raw, "provenance": store.provenance.raw}
        try:
            return cls(facts, read_result(store), origin)
        except EmptyStoreError:
            return cls(facts, None, origin)

    def to_json(self) -> dict[str, Any]:
        """Return facts, figures as every verb gives them, and origin as plain values."""
        return {**self.facts, **(result_json(self.result) if self.result else {}), **self.origin}

    def to_text(self, intervals: str = "one") -> str:
        """Return the same for people; figures are those that `smoothcert table` prints, with the same intervals."""
        figures = [render_result(self.result, Points(intervals=intervals))] if self.result else []
        return "\n\n".join([outline(self.facts), *figures, *([outline(self.origin)] if self.origin else [])])


def outline(facts: dict[str, Any], indent: int = 0) -> str:
    """Return facts as indented lines."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            lines += [one_line(f"{' ' * indent}{name}:"), outline(value, indent + 2)]
        else:
            more = f" ... ({len(value):,} in all)" if isinstance(value, list) and len(value) > _LISTED else ""
            shown = ", ".join(map(str, value[:_LISTED])) + more if isinstance(value, list) else value
            lines.append(one_line(f"{' ' * indent}{name}: {shown}"))
    return "\n".join(lines)
