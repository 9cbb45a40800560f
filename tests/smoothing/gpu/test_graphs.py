"""A recorded step: what is recorded, and when it is used."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

from smoothcert.smoothing.gpu import graphs


@pytest.fixture
def device(monkeypatch):
    """A stand-in for the GPU: what torch is asked for, in order."""
    order, mode = [], ["default"]

    class Stream:
        def __init__(self, device=None):
            pass

        def wait_stream(self, other):
            order.append("stream waits")

    @contextmanager
    def recording(graph):
        order.append("begin")
        yield
        order.append("end")

    class Graph:
        def replay(self):
            order.append("replay")

    stand_ins = {"Stream": Stream, "current_stream": Stream, "stream": nullcontext, "device": nullcontext,
                 "CUDAGraph": Graph, "graph": recording, "get_sync_debug_mode": lambda: mode[-1],
                 "set_sync_debug_mode": mode.append}
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return order, mode


def test_a_step_is_recorded_after_its_warm_up(device):
    order, mode = device
    replay = graphs.record(lambda: order.append(f"step, waits {mode[-1]}"), torch.device("cuda"))
    plain = "step, waits default"
    assert order == ["stream waits", plain, plain, "step, waits error", "stream waits", "begin", plain, "end"]
    replay()
    assert order[-1] == "replay"


def test_a_step_that_waits_is_found_before_the_recording(device):
    order, mode = device

    def step():
        if mode[-1] == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    with pytest.raises(RuntimeError, match="synchronizing"):
        graphs.record(step, torch.device("cuda"))
    assert "begin" not in order
    assert mode[-1] == "default"


@pytest.mark.parametrize(("seconds", "off", "fault"), [
    (1.0, 0, None), (3.0, 0, "it takes 1.50 times the time"), (1.0, 1, "its votes are others")])
def test_a_recorded_step_is_used_where_it_is_right_and_faster(monkeypatch, seconds, off, fault):
    clock, first, votes = [0.0], torch.zeros(1, dtype=torch.int64), torch.full((8,), 7, dtype=torch.int32)
    monkeypatch.setattr(graphs, "_now", lambda device: clock[0])

    def run(takes, more):
        at = int(first)
        votes[at : at + 4] = torch.arange(at, at + 4, dtype=torch.int32) + more
        first.add_(4)
        clock[0] += takes

    assert graphs.find_fault(lambda: run(seconds, off), lambda: run(2.0, 0), first, votes) == fault
