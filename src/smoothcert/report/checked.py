"""Requirements and their outcomes: as a table for people, and as JUnit XML for build servers."""

import math
from xml.etree import ElementTree

from smoothcert.checks import one_line
from smoothcert.report.tables import Page, Table, write
from smoothcert.results.figures import confidence, down, up
from smoothcert.results.requirements import BOUNDS, Checked, Decision

_DIGITS = 4


def render_checked(checked: Checked) -> str:
    """Return the outcomes as text."""
    return write(lambda style: checked_page(checked), list, "text")


def checked_page(checked: Checked) -> Page:
    """Return one table of all requirements on a run."""
    rows = [[one.requirement, _limit(one), _margin(one), one.outcome + (f": {one.why}" if one.why else "")]
            for one in checked.decisions]
    total = len(checked.decisions)
    parts = [f"{checked.count(word)} {word}" for word in ("fails", "undecided") if checked.count(word)]
    words = f"all {total} hold" if checked.holds else f"{checked.count('holds')} of {total} hold, {', '.join(parts)}"
    legend = f"Compared are {BOUNDS[checked.bound]}" + (
        "." if checked.bound == "observed" else f"; each holds with probability {confidence(checked.rho)}.")
    table = Table.of(["requirement", "limit", "margin", "outcome"], rows, above=[f"{checked.name}: {words}"])
    return Page([table], notes=tuple(checked.notes), legend=legend)


def _limit(one: Decision) -> str:
    """Return the limit, rounded to the side on which it says less."""
    if one.limit is None:
        return "-"
    return (up if "<" in one.requirement else down)(one.limit, _DIGITS)


def _margin(one: Decision) -> str:
    """Return by how much the limit is better than required, rounded down."""
    if one.margin is None:
        return "-"
    return f"{math.floor(one.margin * 10**_DIGITS + 1e-9) / 10**_DIGITS:+.{_DIGITS}f}"


def to_junit(checked: Checked) -> str:
    """Return the outcomes as JUnit XML: a test case for each requirement, a failure where it fails, an error where it
    is undecided."""
    counts = {"tests": str(len(checked.decisions)), "failures": str(checked.count("fails")),
              "errors": str(checked.count("undecided")), "skipped": "0", "time": "0"}
    suites = ElementTree.Element("testsuites", counts)
    name = one_line(checked.name)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": f"smoothcert check {name}", **counts})
    for one in checked.decisions:
        case = ElementTree.SubElement(suite, "testcase", {"classname": name, "name": one.requirement, "time": "0"})
        why = f": {one.why}" if one.why else ""
        words = f"limit {_limit(one)}, required {one.number:g}, margin {_margin(one)}{why}"
        if one.outcome == "holds":
            ElementTree.SubElement(case, "system-out").text = words
        else:
            kind = "failure" if one.outcome == "fails" else "error"
            ElementTree.SubElement(case, kind, {"message": words, "type": one.outcome}).text = words
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=False)
