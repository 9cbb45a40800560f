"""Clean and certified accuracy of each class, against counting by hand."""

from dataclasses import replace

import numpy as np

from smoothcert.report.html import report_page
from smoothcert.results.by_class import shares_by_class
from smoothcert.results.certified import Result
from smoothcert.results.gather import gather_page
from smoothcert.store.store import read_store
from stores import made


def test_each_class_has_the_shares_of_its_own_images(tmp_path):
    store = read_store(made(tmp_path / "s", right=1, count=80))
    result = Result.of(store)
    found = shares_by_class(result, [0.1, 0.25])
    label, answer, radius = (store.column(name) for name in ("label", "prediction", "radius"))
    assert found.label.tolist() == sorted(set(label.tolist()))
    for k, c in enumerate(found.label):
        own = label == c
        assert found.images[k] == own.sum()
        assert found.right[k] == np.mean(answer[own] == c)
        assert found.abstained[k] == np.mean(answer[own] == -1)
        for i, r in enumerate((0.1, 0.25)):
            assert found.certified[k, i] == np.mean((answer[own] == c) & (radius[own] >= r))
    weights = found.images / found.images.sum()
    assert np.isclose(weights @ found.acr, result.acr)
    assert shares_by_class(replace(result, label=None), [0.1]) is None
    assert found.weakest(3).tolist() == sorted(np.argsort(found.acr, kind="stable")[:3].tolist())


def test_many_classes_make_a_short_table(tmp_path):
    (run,), *_ = gather_page([str(made(tmp_path / "s", count=300))], None)
    names = tuple(f"class-{k}" for k in range(300))
    many = replace(run, result=replace(run.result, label=np.arange(300), classes=names))
    page = report_page([many])
    table = page[page.index('id="classes"'):page.index('id="meaning"')]
    assert "the 100 of 300 classes with the lowest ACR" in table
    assert table.count("<tr>") == 101
