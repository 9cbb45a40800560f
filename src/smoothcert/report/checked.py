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


def decision_words(one: Decision) -> str:
    """Return the limit, what was required, and by how much it is met."""
    why = f": {one.why}" if one.why else ""
    return f"limit {_limit(one)}, required {one.number:g}, margin {_margin(one)}{why}"


def to_junit(*checked: Checked) -> str:
    """Return the outcomes on one or several runs as JUnit XML: a test case for each requirement, a failure where it
    fails, an error where it is undecided."""
    suites = ElementTree.Element("testsuites", _counts(*checked))
    for run in checked:
        name = one_line(run.name)
        suite = ElementTree.SubElement(suites, "testsuite", {"name": f"smoothcert check {name}", **_counts(run)})
        for one in run.decisions:
            case = ElementTree.SubElement(suite, "testcase", {"classname": name, "name": one.requirement, "time": "0"})
            words = decision_words(one)
            if one.outcome == "holds":
                ElementTree.SubElement(case, "system-out").text = words
            else:
                kind = "failure" if one.outcome == "fails" else "error"
                ElementTree.SubElement(case, kind, {"message": words, "type": one.outcome}).text = words
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode")


def _counts(*checked: Checked) -> dict[str, str]:
    count = {"tests": sum(len(run.decisions) for run in checked),
             "failures": sum(run.count("fails") for run in checked),
             "errors": sum(run.count("undecided") for run in checked), "skipped": 0, "time": 0}
    return {name: str(value) for name, value in count.items()}
