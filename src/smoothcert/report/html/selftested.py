"""What a selftest of the installation found, beside the runs that were made with it."""

from collections.abc import Sequence

from smoothcert.report.html.facts import Run
from smoothcert.report.html.markup import Markup, element, sortable
from smoothcert.report.selftest import SelfTest

_OF_A_RUN = ("precision", "device", "engine")


def selftested(found: SelfTest | None, runs: Sequence[Run]) -> Markup:
    """A section: verdict, date, what was tested and where, and every check; nothing where there was no selftest."""
    if found is None:
        return Markup("")
    words = (f"Of {found.date}. By chance alone a right installation gets a red check with probability at most "
             f"{found.false_alarm:g}. The result is what its file says; it is not signed.")
    facts = [element("tr", element("th", name, scope="row"), element("td", value))
             for name, value in (*found.settings.items(), *found.environment.items())]
    rows = [[check.group, check.name, check.verdict, check.measured, check.allowed] for check in found.checks]
    others = [element("li", element("strong", name), ": ", line) for name, line in untested(found, runs)]
    return element(
        "section", element("h2", "Selftest of the installation"), element("p", element("strong", found.summary)),
        element("p", words), element("ul", *others) if others else "",
        element("details", element("summary", "Checks, settings and versions"),
                element("div", element("table", *facts), class_="wide", tabindex="0"),
                sortable("Checks", ["group", "check", "verdict", "measured", "allowed"], rows, set()),
                open=found.verdict == "red"),
        class_="warn" if found.verdict == "red" or others else None, id="selftest")


def untested(found: SelfTest, runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(run, words) where a run was made with other than what was tested: versions, noise, precision, engine, device."""
    tested = {*found.environment.get("versions", "").split(", ")} | _tested(found)
    lines = []
    for run in runs:
        identity, versions = run.store.identity, run.store.provenance.get("versions")
        used = [f"{name} {version}" for name, version in versions.items()] if isinstance(versions, dict) else []
        asked = {"noise": identity.get("noise", {}).get("kind"), **{name: identity.get(name) for name in _OF_A_RUN}}
        used += [f"{name} {value}" for name, value in asked.items() if value is not None]
        if other := [words for words in used if words not in tested]:
            lines.append((run.name, f"made with {', '.join(other)}, which this selftest did not test."))
    return lines


def _tested(found: SelfTest) -> set[str]:
    """Noise, precision and kind of device, and the engines whose checks were made; "exact" is that of small spaces."""
    told = {f"{name} {found.settings.get(name, '').split(':')[0]}" for name in ("noise", "precision", "device")}
    made = {check.group for check in found.checks if check.verdict != "skipped"}
    return told | {group for group in made if group.startswith("engine ")} | (
        {"engine exact"} if "smaller spaces" in made else set())
