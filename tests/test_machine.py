"""The machine: which instruction sets a runtime may use."""

import pytest

from smoothcert import machine

FLAGS = "flags : fpu sse4_1 avx avx2 fma avx512f avx512bw avx512dq avx512vl avx512_vnni avx512_bf16 amx_bf16\n"


@pytest.mark.parametrize(("limit", "vnni", "bf16"), [
    ("", True, {"avx512_bf16", "amx_bf16"}), ("ALL", True, {"avx512_bf16", "amx_bf16"}), ("AVX2", False, set()),
    ("avx512_core", False, set()), ("AVX512_CORE_VNNI", True, set()), ("AVX512_CORE_BF16", True, {"avx512_bf16"}),
])
def test_onednn_uses_what_its_variable_leaves(monkeypatch, limit, vnni, bf16):
    monkeypatch.setattr(machine.Path, "read_text", lambda self: FLAGS)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    found = machine.instruction_sets(onednn=True)
    assert bool(machine.VNNI_UNITS & found) == vnni
    assert found & machine.BF16_UNITS == bf16
    assert machine.VNNI_UNITS & machine.instruction_sets(), "others do not ask the variable"


def test_a_machine_that_does_not_list_its_sets_has_none(monkeypatch):
    def read(self):
        raise OSError

    monkeypatch.setattr(machine.Path, "read_text", read)
    assert machine.instruction_sets() == frozenset()
    assert "no instruction sets that could be read" in machine.describe_processor()
