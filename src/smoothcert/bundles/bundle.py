"""Evidence of stores put together: their figures and outcomes in the formats that others read, and themselves."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from smoothcert.bundles.contents import Findings, list_documents, list_evidence, list_store
from smoothcert.bundles.files import BundleFile, check_new, check_outside, draft, move_into_place, write_files
from smoothcert.bundles.options import BundleConfig
from smoothcert.bundles.outcomes import (
    BundleOutcome,
    check_stores,
    list_outcomes,
    plan_selftest,
    summarise,
    verify_stores,
)
from smoothcert.bundles.pages import INDEX, SUMS, write_index
from smoothcert.bundles.statement import STATEMENT, write_statement
from smoothcert.bundles.stores import open_stores, place_stores
from smoothcert.checks import one_line
from smoothcert.errors import InputError, MissingExtraError
from smoothcert.io.files import sha256
from smoothcert.progress import Progress, phase, reporting
from smoothcert.report.selftest import read_selftest
from smoothcert.report.shown import PAGES
from smoothcert.results.base import Points
from smoothcert.results.gather import Gathered
from smoothcert.store.manifest import NAME as MANIFEST
from smoothcert.store.names import few
from smoothcert.store.store import Store

_PACKAGES = {"cyclonedx": "cyclonedx-python-lib", "jsonschema": "jsonschema", "huggingface_hub": "huggingface_hub",
             "in_toto_attestation": "in-toto-attestation"}
_EPOCH = "SOURCE_DATE_EPOCH"


@dataclass(frozen=True)
class Bundle:
    """A bundle that was written: where, the names of its files, and what was tested.

    Attributes:
        result: "PASSED", "WARNED" or "FAILED", the worst of `outcomes`.
    """

    out: Path
    files: tuple[str, ...]
    result: str
    outcomes: tuple[BundleOutcome, ...]

    @property
    def holds(self) -> bool:
        """True where nothing failed."""
        return self.result != "FAILED"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"out": str(self.out), "files": list(self.files), "result": self.result,
                "outcomes": [asdict(one) for one in self.outcomes]}


def bundle(
    config: BundleConfig, named: Sequence[tuple[str, Store]] = (), progress: Progress | None = None, *,
    verbose: bool = False,
) -> Bundle:
    """Write a bundle of stores, whether or not what is tested passes. It has no times but `SOURCE_DATE_EPOCH`, if set,
    and that of the selftest.

    Args:
        named: the stores with their names, in place of those that the options name.
    Raises:
        MissingExtraError: without the packages that write and check the formats. InputError: `out` exists or lies in a
        store; a store twice; a selftest that is not possible here. StoreError, FileError: stores that are not finished,
        have no records or cannot be read; a file that cannot be written. Nothing is left then.
    """
    check_packages()
    check_new(config.out)
    time = read_epoch()
    with reporting(progress, verbose):
        tested = read_selftest(config.selftest) if config.selftest else None
        with phase("reading the stores"):
            stores = place_stores(named) if named else open_stores(config.stores)
            check_outside(config.out, [one.source for one in stores])
            runs = Gathered([one.result for one in stores]).at(Points(tuple(config.radii or ()), config.rho))
            checked = check_stores(stores, config.require, config.bound, config.rho)
        verified = verify_stores(stores, config.noise)
        if tested is None and not config.no_selftest:
            from smoothcert.selftest.run import selftest  # brings torch

            tested = selftest(plan_selftest(stores, config.quick))
        outcomes = list_outcomes(stores, verified, tested, checked)
        with phase("writing"), draft(config.out) as folder:
            title = one_line(config.title) or f"Certified robustness: {few([one.name for one in stores])}"
            names = _write(folder, config, Findings(title, stores, runs, verified, tested, checked), outcomes, time)
            move_into_place(folder, config.out, time)
    return Bundle(config.out, names, summarise(outcomes), tuple(outcomes))


def _write(folder: Path, config: BundleConfig, found: Findings, outcomes: Sequence[BundleOutcome],
           time: datetime | None) -> tuple[str, ...]:
    """Write all files into a folder, first those on the stores, then those on these files, and return their names."""
    manifests = {f"{one.place}/{MANIFEST}": (one.source / MANIFEST).read_bytes() for one in found.stores}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in manifests.items()}
    files = [*list_evidence(found, config), *list_documents(found, config, list(digests.values()), time)]
    files += [file for one, content in zip(found.stores, manifests.values(), strict=True)
              for file in list_store(one, content, not config.digest_only)]
    listed = [*files, BundleFile(STATEMENT, b"", "what was tested, and the SHA-256 of every file", "in-toto statement, "
              "predicate test-result; to be signed, see below"),
              BundleFile(SUMS, b"", "the SHA-256 of every file", f"`sha256sum --check {SUMS}`")]
    tables = [PAGES[one.kind](one, "text") for one in found.runs]
    files.append(BundleFile(INDEX, write_index(found.title, found.stores, outcomes, tables, listed, digests,
                                               not config.digest_only)))
    write_files(folder, files)
    digests |= {file.name: sha256(folder / file.name) for file in files}
    tested = [*manifests, *(name for name in ("selftest.json", "checks.xml") if name in digests)]
    statement = BundleFile(STATEMENT, write_statement(digests, tested, outcomes).encode())
    write_files(folder, [statement])
    digests[STATEMENT] = sha256(folder / STATEMENT)
    sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    write_files(folder, [BundleFile(SUMS, sums.encode())])
    return tuple(sorted([*digests, SUMS]))


def check_packages() -> None:
    """Raise MissingExtraError unless the packages of the extra `bundle` are installed."""
    for module, package in _PACKAGES.items():
        try:
            import_module(module)
        except ImportError as error:
            raise MissingExtraError(package, "bundle", "bundle") from error


def read_epoch() -> datetime | None:
    """Return the time that SOURCE_DATE_EPOCH names, None where it is not set. Raises InputError for what is none."""
    text = os.environ.get(_EPOCH, "")
    try:
        return datetime.fromtimestamp(int(text), UTC) if text else None
    except (ValueError, OverflowError, OSError):
        raise InputError(f"{_EPOCH} must be a number of seconds since 1970, got {text!r:.80}") from None
