"""What a bundle may be cited for: the page of the documentation is the page of the bundle."""

from pathlib import Path

from smoothcert.bundles.standards import CLAUSES, standards_page

PAGE = Path(__file__).parents[2] / "docs" / "standards.md"


def test_the_documentation_has_the_page_word_for_word():
    assert PAGE.read_text().endswith(f"\n\n{standards_page().to_markdown()}\n")


def test_every_clause_says_what_it_is_not():
    assert len({clause.text for clause in CLAUSES}) == len(CLAUSES)
    for words in ("24029-1", "24029-2", "15(1)", "15(4)", "15(5)", "MEASURE 2.5", "MEASURE 2.6", "MEASURE 2.7"):
        assert any(words in clause.text for clause in CLAUSES)
    for clause in CLAUSES:
        assert min(map(len, clause)) > 10
        for claim in ("complies", "conforms", "compliant", "guarantees"):
            assert claim not in " ".join(clause)
