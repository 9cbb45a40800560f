"""Every reader, fed damaged and hostile files: it reads them or refuses them with an error of smoothcert's own.

A sample of what `evidence/fuzz.py` does at length, under a fixed profile.
"""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzzing import CHECKED, READERS, mutated, outcome
from smoothcert.errors import SmoothcertError

FIXED = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
SECONDS = 5.0


@pytest.fixture(scope="module", params=[*READERS])
def reader(request):
    return READERS[request.param]


@pytest.fixture(scope="module")
def folder(reader, tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def checked(reader, content, folder):
    begun = time.process_time()
    said = outcome(reader, content, folder)
    assert said in ("read", "refused"), f"{reader.name}: {said}"
    assert time.process_time() - begun < SECONDS


def test_valid_files_are_read(reader, folder):
    for content in reader.valid():
        assert outcome(reader, content, folder) == "read"


def test_damaged_files_are_read_or_refused(reader, folder):
    @settings(FIXED, max_examples=40)
    @given(st.randoms(use_true_random=False))
    def fuzz(rng):
        checked(reader, mutated(reader, rng), folder)

    fuzz()


def test_arbitrary_bytes_are_read_or_refused(reader, folder):
    @settings(FIXED, max_examples=10)
    @given(st.binary(max_size=200))
    def fuzz(content):
        checked(reader, content, folder)

    fuzz()


@pytest.mark.parametrize("name", [*CHECKED])
def test_files_with_checksums_are_never_read_as_something_else(name, tmp_path):
    reader, folder = CHECKED[name], tmp_path
    truths = [reader.same(reader.read(content, folder)) for content in reader.valid()]

    @settings(FIXED, max_examples=40)
    @given(st.randoms(use_true_random=False))
    def fuzz(rng):
        try:
            found = reader.read(mutated(reader, rng), folder)
        except SmoothcertError:
            return
        assert reader.same(found) in truths

    fuzz()
