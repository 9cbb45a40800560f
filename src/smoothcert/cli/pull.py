"""`smoothcert pull`."""

import json
from dataclasses import asdict

from smoothcert.cli.options import verb
from smoothcert.cli.output import say
from smoothcert.hub.options import PullConfig
from smoothcert.progress import phase


@verb
def pull(config: PullConfig, as_json: bool) -> None:
    """Take a model directory or a store from the Hugging Face hub, checked, into a new folder."""
    with phase("starting"):
        from smoothcert.hub.pull import pull as run

    got = run(config)
    say(json.dumps({**asdict(got), "folder": str(got.folder)}) if as_json else
        f"{got.folder}: {len(got.files)} files of {got.repo} at revision {got.revision}")
