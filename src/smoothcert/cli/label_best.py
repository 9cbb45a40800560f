"""`smoothcert label-best`."""

import json

from smoothcert.cli.options import verb
from smoothcert.cli.output import say
from smoothcert.report.options import LabelBestConfig


@verb
def label_best(config: LabelBestConfig, as_json: bool) -> None:
    """Write which classifier certifies each image furthest, as labels that a router is trained on."""
    from smoothcert.interop import name_inputs
    from smoothcert.store.routed import label_best as write_labels
    from smoothcert.store.store import read_store

    named = name_inputs(config.stores)
    counts = write_labels([read_store(one.path) for one in named], config.out)
    told = {one.name: count for one, count in zip(named, counts, strict=True)}
    say(json.dumps(told) if as_json else "\n".join(
        [f"class {k}, {name}: furthest on {count:,} images" for k, (name, count) in enumerate(told.items())]
        + [f"then    smoothcert train --data labels:{config.out} --objective gaussian --sigma SIGMA -o router"]))
