"""`smoothcert cost`."""

import json
from typing import Annotated

import typer

from smoothcert.cli.errors import reported
from smoothcert.cli.options import JsonFlag
from smoothcert.cli.output import real, say

PilotStore = Annotated[
    str | None, typer.Argument(metavar="STORE", help="A pilot: a store of certify or predict over some images.")
]
Images = Annotated[int, typer.Option("--images", help="Images of the run to forecast. (required)")]
N = Annotated[int | None, typer.Option("--n", help="Samples an image, a fixed number (default: the pilot's mean).")]
Samples = Annotated[
    float | None, real("--samples-per-image", help="Mean samples an image, all told (default: the pilot's).")
]
Rate = Annotated[float | None, real("--rate", help="Samples/s of one worker (default: the pilot's).")]
Machines = Annotated[int, typer.Option("--machines", help="Machines.")]
Workers = Annotated[int, typer.Option("--workers-per-machine", help="Workers of each: processes, or GPUs.")]
Block = Annotated[
    int | None, typer.Option("--block", help="Images handed out together (default: 1; several machines: 16).")
]
Startup = Annotated[float, real("--startup", help="Seconds before a worker's first sample.")]
Price = Annotated[float | None, real("--price", help="Price of a machine-hour, in any currency.")]
Preemptions = Annotated[
    float, real("--preemptions-per-hour", help="How often a spot machine is taken away, each losing a block.")
]


@reported
def cost(
    images: Images, store: PilotStore = None, n: N = None, samples: Samples = None, rate: Rate = None,
    machines: Machines = 1, workers: Workers = 1, block: Block = None, startup: Startup = 0.0, price: Price = None,
    preemptions: Preemptions = 0.0, as_json: JsonFlag = False,
) -> None:
    """Forecast time and price of a run, from a pilot's store or from given samples an image and samples/s."""
    from smoothcert.io.paths import place
    from smoothcert.report.cost import render_cost
    from smoothcert.results.costing import CostRequest, estimate_cost
    from smoothcert.store.store import read_store

    asked = CostRequest(images, n, samples, rate, machines, workers, block, startup, preemptions, price)
    found = estimate_cost(asked, None if store is None else read_store(place(store)))
    say(json.dumps(found.to_json()) if as_json else render_cost(found))
