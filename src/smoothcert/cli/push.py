"""`smoothcert push`."""

import json
from dataclasses import asdict

from smoothcert.cli.options import verb
from smoothcert.cli.output import say
from smoothcert.hub.options import PushConfig
from smoothcert.progress import phase


@verb
def push(config: PushConfig, as_json: bool) -> None:
    """Send a model directory or a store to the Hugging Face hub, with a card that has the certified accuracies."""
    with phase("starting"):
        from smoothcert.hub.push import push as run

    sent = run(config)
    say(json.dumps(asdict(sent)) if as_json else
        f"{sent.url}: {len(sent.files)} files at revision {sent.revision}")
