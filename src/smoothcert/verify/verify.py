"""A store checked end to end: its files, images and looks, and every answer computed again from its votes.

Nothing of it needs torch, but for records that are drawn again from their seeds (`resample`).
"""

from dataclasses import dataclass
from typing import Any

from smoothcert.errors import FileError, StoreError
from smoothcert.io.paths import Place
from smoothcert.progress import Progress, phase, reporting
from smoothcert.smoothing.precision import isolate
from smoothcert.store.manifest import check_is_store
from smoothcert.store.store import read_store
from smoothcert.verify.files import Readable, StoreCheck, check_adversaries, read_all
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.records import RecordTerms, check_images, check_original, check_settings, check_votes, terms_of


@dataclass(frozen=True)
class Verified:
    """The checks of a store, in order."""

    folder: Place
    kind: str
    checks: tuple[StoreCheck, ...]

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong."""
        return [problem for check in self.checks for problem in check.problems]

    def content(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {"store": str(self.folder), "kind": self.kind, "ok": not self.problems,
                "checks": [{"name": check.name, "told": check.told, "problems": list(check.problems)}
                           for check in self.checks]}


@isolate()
def verify(config: VerifyConfig, progress: Progress | None = None, *, verbose: bool = False) -> Verified:
    """Check a store of any kind, and find everything that is wrong with it.

    Raises:
        FileError: no such store. Where records are to be drawn again, also what `check_resampling` raises.
    """
    folder = config.store
    check_is_store(folder)
    with reporting(progress, verbose):
        try:
            with phase("reading the store"):
                readable, checks = read_all(folder)
                terms = terms_of(readable, config.noise)
        except (FileError, StoreError) as error:
            return Verified(folder, "unknown", (StoreCheck("manifest", "cannot be believed", (str(error),)),))
        with phase("checking the records"):
            checks += _of_records(readable, terms) if len(readable.positions) else []
            if config.original_store is not None and len(readable.positions):
                checks.append(check_original(readable, read_store(config.original_store)))
        if config.resample is not None:
            from smoothcert.verify.resampling import check_resampling

            checks.append(check_resampling(readable, config))
    return Verified(folder, readable.identity.kind, tuple(checks))


def _of_records(readable: Readable, terms: RecordTerms) -> list[StoreCheck]:
    images = check_images(readable, terms)
    checks = [images, *check_votes(readable, terms)]
    try:
        if (settings := check_settings(readable, terms)) is not None:
            checks.append(settings)
        if readable.identity.kind == "attack" and readable.manifest.complete:
            checks.append(check_adversaries(readable, readable.store.column("index")[:: terms.per_image]))
    except (FileError, StoreError) as error:
        checks.append(StoreCheck("settings", "cannot be believed", (str(error),)))
    return checks
