"""The pages of a bundle for people: the index, and what it may be cited for. Names from outside are escaped."""

from collections.abc import Mapping, Sequence

from smoothcert.bundles.files import BundleFile
from smoothcert.bundles.outcomes import BundleOutcome, summarise
from smoothcert.bundles.standards import standards_page
from smoothcert.bundles.statement import PREDICATE, STATEMENT
from smoothcert.bundles.stores import BundledStore, list_limits
from smoothcert.report.html import frame
from smoothcert.report.html.facts import ASSUMES
from smoothcert.report.tables import Cell, Markup, Page, Table, element, join_parts

INDEX, STANDARDS, SUMS = "index.html", "standards.html", "SHA256SUMS"

_VERDICTS = {"PASSED": "Everything that was tested passed.", "FAILED": "Not everything that was tested passed.",
             "WARNED": "Everything that was tested passed, with warnings."}


def write_index(title: str, stores: Sequence[BundledStore], outcomes: Sequence[BundleOutcome], tables: Sequence[Page],
                files: Sequence[BundleFile], manifests: Mapping[str, str], has_records: bool) -> bytes:
    """Return the index: outcomes, figures, files and how to open them, and how to check all of it.

    Args:
        tables: the figures of the stores of each kind. manifests: the SHA-256 of each manifest, by its name.
    """
    tested = [[one.name, one.outcome, one.words] for one in outcomes]
    listed = [[Cell(element("a", one.name, href=one.name)), Cell(_mark_code(one.what)), Cell(_mark_code(one.use))]
              for one in files if one.what]
    digests = [[name, digest] for name, digest in manifests.items()]
    result = summarise(outcomes)
    return _write_page(
        title, f"Evidence of {len(stores)} store{'s' if len(stores) > 1 else ''}.",
        _section("Outcome", element("p", element("strong", f"{result}: "), _VERDICTS[result]),
                 _table(["tested", "outcome", "found"], tested), class_="warn" if result != "PASSED" else None),
        _section("Figures", *(Markup(page._repr_html_()) for page in tables), id="curves"),
        _section("Files", _table(["file", "what it is", "how to open or check it"], listed)),
        _section("How to check this bundle", element("p", "In its folder:"), element("pre", _commands(
            stores, has_records)), element("p", "The statement is not signed. Whoever vouches for it signs it, so that "
            "others can check who did:"), element("pre", _signing(next(iter(manifests)))),
            _table(["manifest", "SHA-256"], digests)),
        _section("What it does not say", element("ul", *(element("li", line) for line in list_limits(stores))),
                 element("p", "It assumes:"), element("ul", *(element("li", line) for line in ASSUMES)),
                 element("p", "What it may be cited for is in ", element("a", STANDARDS, href=STANDARDS), ".")),
    )


def write_standards(title: str) -> bytes:
    """Return the page on what a bundle may be cited for."""
    return _write_page(f"What this is evidence of: {title}", "Under ISO/IEC 24029, the EU AI Act and the NIST AI RMF.",
                       _section("What it may be cited for", Markup(standards_page()._repr_html_()), id="curves"),
                       element("p", element("a", "Back to the index", href=INDEX)))


def _commands(stores: Sequence[BundledStore], has_records: bool) -> str:
    if has_records:
        return "\n".join([f"sha256sum --check {SUMS}", *(f"smoothcert verify {one.place}" for one in stores)])
    return (f"sha256sum --check {SUMS}\n# of each store that you are given: its manifest is the one here, and it is "
            f"right in itself\n" + "\n".join(f"cmp {one.place}/manifest.json STORE/manifest.json && smoothcert verify "
                                             f"STORE" for one in stores))


def _signing(manifest: str) -> str:
    signature = STATEMENT.replace(".json", ".sigstore.json")
    return (f"cosign attest-blob --statement {STATEMENT} --bundle {signature} --key cosign.key\n"
            f"cosign verify-blob-attestation --bundle {signature} --key cosign.pub \\\n"
            f"    --type {PREDICATE} {manifest}")


def _mark_code(text: str) -> Markup:
    """Return a text with what stands between back ticks as code."""
    return join_parts(*(element("code", part) if k % 2 else part for k, part in enumerate(text.split("`"))))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> Markup:
    return Markup(Table.of(heads, rows, left=range(len(heads)))._repr_html_())


def _section(title: str, *children: Markup | str, **attributes: str | None) -> Markup:
    return element("section", element("h2", title), *children, **attributes)


def _write_page(title: str, words: str, *sections: Markup) -> bytes:
    return frame(title, words, sections).encode("utf-8", "replace")
