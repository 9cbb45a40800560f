"""The machine: which instruction sets a runtime may use, and which devices there are."""

import pytest
import torch

from smoothcert import machine
from smoothcert.errors import InputError

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


@pytest.fixture
def one_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.parametrize(("device", "message"), [
    ("tpu", "device: tpu cannot be used .* this machine has cpu"), ("meta", "no values: load the weights first"),
    ("cuda", "cuda was asked for, and torch finds no GPUs: this machine has cpu$"), (3.5, "device: 3.5 cannot be used"),
])
def test_devices_that_do_not_exist_are_refused(monkeypatch, device, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match=message):
        machine.find_device(device)
    assert machine.find_device("cpu") == torch.device("cpu")


def test_a_gpu_is_refused_where_there_are_fewer(one_gpu, monkeypatch):
    assert machine.find_device("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(InputError, match=r"cuda:7 .* torch finds 1 GPU: this machine has cpu and cuda:0"):
        machine.find_device("cuda:7")
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(InputError, match="cuda:3 was asked for"):
        machine.pick_device("auto")


def test_cards_are_those_that_the_processes_use(monkeypatch):
    names = ["H200", "H200", "A100"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "get_device_name", names.__getitem__)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    assert machine.list_cards(torch.device("cpu"), 3) == []
    assert machine.list_cards(torch.device("cuda", 2)) == ["A100 with cuDNN 91002"]
    assert machine.list_cards(torch.device("cuda", 0), 2) == ["H200 with cuDNN 91002"]
    assert machine.list_cards(torch.device("cuda", 0), 9) == ["H200 with cuDNN 91002", "A100 with cuDNN 91002"]
