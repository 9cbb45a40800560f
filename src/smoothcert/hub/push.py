"""A model directory or a store sent to the hub, in one commit."""

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from smoothcert.classifiers.card import ModelCard, read_card
from smoothcert.classifiers.classifier import open_classifier
from smoothcert.config.model import ModelConfig
from smoothcert.errors import HubError, InputError
from smoothcert.hub.card import write_card_text
from smoothcert.hub.client import TOKEN, explain_errors, find_repository, open_hub, quiet_client
from smoothcert.hub.contents import README, gather_contents, is_expected
from smoothcert.hub.options import PushConfig
from smoothcert.io.paths import CERTIFICATES
from smoothcert.limits import YAML_BYTES, bounded_bytes
from smoothcert.progress import Progress, phase, reporting
from smoothcert.store.comparison import differences
from smoothcert.store.store import Store, read_store


@dataclass(frozen=True)
class Pushed:
    """A repository as it is now: its name as `pull` takes it, its page, its commit, and the files that were sent."""

    repo: str
    url: str
    revision: str
    files: tuple[str, ...]


def push(config: PushConfig, progress: Progress | None = None, *, verbose: bool = False) -> Pushed:
    """Send a model directory or a store, with a card, to a repository; files that it no longer has are removed there.

    Certificates are sent only if they are of this model: its weights and code are compared with the store.

    Raises:
        MissingExtraError: without huggingface_hub. FileError, StoreError: what cannot be sent. InputError:
        certificates of another model, or a name that the hub does not take. HubError: no token, no such branch, or
        a hub that cannot be reached or refuses. Nothing is sent then.
    Warns:
        UserWarning: the model's description names folders of this machine.
    """
    hub = open_hub("push")
    contents = gather_contents(config.folder, config.certificates, config.checkpoints)
    kind, repo = contents.kind, config.bare_repo
    if kind == "model" and config.names_dataset:
        raise InputError(f"{config.folder} is a model directory, and {config.repo} would be a store's repository: give "
                         f"{repo}")
    if not importlib.import_module("huggingface_hub").get_token():
        raise HubError(f"there is no token for {hub.endpoint}: set {TOKEN} to one that may write to {repo}")
    with reporting(progress, verbose):
        with phase("asking the hub"):
            found = find_repository(hub, repo, kind, config.revision)
            if found is None and config.revision not in (None, "main"):
                raise HubError(f"there is no repository {repo} yet, and so no branch {config.revision}: leave revision "
                               f"out")
        with phase("reading what is sent"):
            model, store = _read_folder(config, contents.files)
            own = config.folder / README
            text = write_card_text(kind, repo, model, store, config.radii, config.license,
                                   bounded_bytes(own, YAML_BYTES).decode(errors="replace") if own.is_file() else "")
        library = importlib.import_module("huggingface_hub")
        changes = [library.CommitOperationAdd(name, str(path)) for name, path in contents.files.items()]
        changes.append(library.CommitOperationAdd(README, text.encode()))
        stale = {file.rfilename for file in found.siblings or ()} - {README, *contents.files} if found else set()
        changes += [library.CommitOperationDelete(name) for name in sorted(stale) if is_expected(kind, name)]
        with phase("sending"), explain_errors(hub, repo, config.revision), quiet_client():
            made = hub.create_repo(repo, repo_type=kind, private=config.private or None, exist_ok=True)
            sent = hub.create_commit(made.repo_id, changes, repo_type=kind, revision=config.revision,
                                     commit_message=f"{'Model' if kind == 'model' else 'Store'} of smoothcert")
    prefix = "datasets/" if kind == "dataset" else ""
    return Pushed(f"{prefix}{made.repo_id}", str(made), sent.oid, (*contents.files, README))


def _read_folder(config: PushConfig, files: Mapping[str, Path]) -> tuple[ModelCard | None, Store | None]:
    """Return the card of the model that is sent, and its certificates, or the store that is sent."""
    if "model.json" not in files:
        return None, read_store(config.folder)
    card = read_card(config.folder)
    if folders := sorted({word for word in _texts([card.data, card.identity, card.init])
                          if Path(word.rpartition(":")[2]).expanduser().is_absolute()}):
        warnings.warn(f"model.json, which is part of the model's identity, names folders of this machine, and is sent "
                      f"as it is: {', '.join(folders)}", stacklevel=3)
    if f"{CERTIFICATES}/manifest.json" not in files:
        return card, None
    store = read_store(files[f"{CERTIFICATES}/manifest.json"].parent)
    if store.kind != "certify":
        raise InputError(f"{store.folder} is a {store.kind} store: certificates are a certify store")
    if card.kind != "classifier":
        raise InputError(f"{config.folder} is a denoiser: certificates are of a classifier")
    asked = ModelConfig.parse({"model": str(config.folder), "trust": config.trust})
    same = open_classifier(asked, card.input_shape, card.num_classes, sigma=card.sigma,
                           bounds=store.identity.data.bounds)
    if fields := differences(store.identity.raw["model"], same.identity):
        raise InputError(f"{store.folder} has certificates of another model than {config.folder} (they differ in "
                         f"{', '.join(fields)}): give certificates of its best weights")
    return card, store


def _texts(value: object) -> list[str]:
    """Return all texts in nested lists and mappings."""
    if isinstance(value, dict):
        return [word for part in value.values() for word in _texts(part)]
    if isinstance(value, list | tuple):
        return [word for part in value for word in _texts(part)]
    return [value] if isinstance(value, str) else []
