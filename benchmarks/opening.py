"""What the trial of a model costs when it is opened, in forward passes of single rows."""

import torch
from networks import CLASSES, SHAPES, network
from pages import Section, section, table
from timing import Run, interleaved

from smoothcert.smoothing.contract import try_rows

ROUNDS = 7


def main(figures: dict[str, float]) -> Section:
    rows, costs = [], {}
    for name, shape in SHAPES.items():
        model = network(name).model
        runs: dict[str, Run] = {"trial": _trial(model, shape), "row": _single(model, shape)}
        for run in runs.values():
            run()
        rates = interleaved(runs, ROUNDS)
        cost = rates.ratio("row", "trial")
        costs[f"{name} trial"] = cost.median
        rows.append([name, f"{1e3 / rates.median('trial'):.2f}", f"{cost:.1f}", "30"])
    lines = table(["network", "ms", "forward passes of one row", "goal, at most"], rows)
    lines += ["The trial judges 26 rows in 7 passes, before the first sample and never again; of a network as small as "
              "the linear one its own arithmetic takes longer than they do. A model that answers in steps is judged on "
              "some 600 rows more."]
    return section("What the trial at opening costs, one thread", lines, costs)


def _trial(model: torch.nn.Module, shape: tuple[int, int, int]) -> Run:
    def run() -> int:
        try_rows(model, shape, CLASSES, torch.device("cpu"), model=model)
        return 1

    return run


def _single(model: torch.nn.Module, shape: tuple[int, int, int]) -> Run:
    row, passes = torch.full((1, *shape), 0.5), 26

    def run() -> int:
        with torch.no_grad():
            for _ in range(passes):
                model(row)
        return passes

    return run
