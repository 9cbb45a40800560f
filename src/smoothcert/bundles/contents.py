"""The contents of a bundle: every file but those that are about the others."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from smoothcert.bundles.bom import BOM, write_bom
from smoothcert.bundles.card import CARD, write_card
from smoothcert.bundles.files import BundleFile
from smoothcert.bundles.options import BundleConfig
from smoothcert.bundles.pages import STANDARDS, write_standards
from smoothcert.bundles.stores import BundledStore
from smoothcert.errors import StoreError
from smoothcert.limits import path_inside
from smoothcert.report.checked import to_junit
from smoothcert.report.html import report_page
from smoothcert.report.html.intervals import intervals_report
from smoothcert.report.selftest import SelfTest
from smoothcert.report.shown import render
from smoothcert.results.attacks import AttackResult
from smoothcert.results.base import Runs
from smoothcert.results.certified import Result, default_radii
from smoothcert.results.gather import PageIntervals, PageRun
from smoothcert.results.metrics import list_metrics
from smoothcert.results.regression import CertifiedIntervals
from smoothcert.results.requirements import Checked
from smoothcert.store.adversaries import list_store_files
from smoothcert.store.manifest import NAME as MANIFEST


@dataclass(frozen=True)
class Findings:
    """Everything that the files of a bundle say of its stores.

    Attributes:
        title: heading of the pages.
        runs: their figures, those of each kind side by side.
        verified: the outcome of each one's verification. tested: the selftest. checked: the requirements.
    """

    title: str
    stores: Sequence[BundledStore]
    runs: Sequence[Runs]
    verified: Sequence[dict[str, Any]]
    tested: SelfTest | None
    checked: Sequence[Checked]


def list_evidence(found: Findings, config: BundleConfig) -> list[BundleFile]:
    """Return the report, the tables, and the outcomes of all that was tested."""
    files = [_text(name, page, "the report: curves, tables, what is guaranteed and what is not", "in a browser")
             for name, page in _write_reports(found, config)]
    files.append(_text("tables.md", render(found.runs, "markdown") + "\n", "the tables, in Markdown", "as text"))
    files += [_text(f"tables-{one.kind}.csv", render([one], "csv") + "\n",
                    f"the figures of the {one.kind} stores, in full precision", "in a spreadsheet, or with pandas")
              for one in found.runs]
    files += [_json("figures.json", [entry for one in found.runs for entry in one.to_json()],
                    "the same figures with all limits", "as `smoothcert table --json` prints them"),
              _json("verify.json", found.verified, "the outcome of `smoothcert verify` for each store",
                    "`smoothcert verify` of a store says it again")]
    if found.tested is not None:
        files.append(_json("selftest.json", found.tested.content(), "the selftest of the installation that made this "
                           "bundle", "`smoothcert report --selftest selftest.json` shows it"))
    if found.checked:
        files.append(_text("checks.xml", to_junit(*found.checked) + "\n", "the requirements and their outcomes",
                           "JUnit XML, as build servers show it"))
    return files


def list_documents(found: Findings, config: BundleConfig, manifests: Sequence[str], time: datetime | None
                   ) -> list[BundleFile]:
    """Return the documents in the formats of others; `manifests` are the SHA-256 of the stores' manifests."""
    certified = [one.result for one in found.stores if isinstance(one.result, Result)]
    shared = default_radii(certified) if certified else []
    figures = [list_metrics(one.result, config.radii or (shared if isinstance(one.result, Result) else ()), config.rho)
               for one in found.stores]
    card = write_card(found.title, found.stores, figures, config.rho, render(found.runs, "markdown"))
    bom = write_bom(found.title, found.stores, figures, config.rho, manifests, time)
    return [
        _text(BOM, bom, "bill of materials of the models, data and packages, with the figures",
              "CycloneDX 1.6: `cyclonedx validate`, Dependency-Track"),
        _text(CARD, card, "model card with a model-index", "README.md of a repository on the Hugging Face hub; "
              "`huggingface_hub.ModelCard.load`"),
        BundleFile(STANDARDS, write_standards(found.title), "what this may be cited for under ISO/IEC 24029, the EU AI "
                   "Act and the NIST AI RMF, and what not", "in a browser")]


def list_store(one: BundledStore, manifest: bytes, has_records: bool) -> list[BundleFile]:
    """Return the files of a store, or its manifest alone. Raises FileError where a link leads out of the store."""
    told = BundleFile(f"{one.place}/{MANIFEST}", manifest, f"what the run of {one.name} was, and the SHA-256 of its "
                      f"records", f"`smoothcert verify {one.place}`, which needs the records")
    if not has_records:
        return [told]
    told = BundleFile(told.name, manifest, f"the store of {one.name}; its records lie beside this file",
                      f"`smoothcert verify {one.place}`")
    held = {name: path_inside(one.source, name) if isinstance(one.source, Path) else one.source / name
            for name in list_store_files(one.source) if name != MANIFEST}
    return [told, *(BundleFile(f"{one.place}/{name}", path) for name, path in held.items())]


def _write_reports(found: Findings, config: BundleConfig) -> Iterator[tuple[str, str]]:
    """Yield the names and the texts of pages: of the certified runs, with attacks beside them, and of regressions."""
    title = found.title if config.title else ""
    runs, problems = [], []
    for one in found.stores:
        if isinstance(one.result, Result):
            try:
                runs.append(PageRun(one.result.in_norm("l2"), one.store, None, "They were not asked for."))
            except StoreError as error:
                problems.append(error)
    attacks = [one.result for one in found.stores if isinstance(one.result, AttackResult)]
    if runs:
        yield "report.html", report_page(runs, config.radii or (), config.rho, title, attacks, problems, found.tested)
    regressions = [PageIntervals(one.result, one.store) for one in found.stores
                   if isinstance(one.result, CertifiedIntervals)]
    if regressions:
        yield "report-intervals.html", intervals_report(regressions, config.radii or (), title)


def _text(name: str, text: str, what: str, use: str) -> BundleFile:
    return BundleFile(name, text.encode("utf-8", "replace"), what, use)


def _json(name: str, content: Any, what: str, use: str) -> BundleFile:
    return _text(name, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n", what, use)


def _finite(value: Any) -> Any:
    """Return plain values with None in place of numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
