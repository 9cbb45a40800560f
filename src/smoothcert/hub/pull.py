"""A model directory or a store taken from the hub: only what smoothcert writes, checked, whole or not at all."""

import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smoothcert.classifiers.card import read_card
from smoothcert.classifiers.folder import integer_file, read_network, read_weights, runs_code
from smoothcert.errors import InputError, StoreError
from smoothcert.hub.client import PATIENCE, explain_errors, find_repository, missing_repository, open_hub, quiet_client
from smoothcert.hub.contents import Kind, check_sizes, is_expected, kind_of_files
from smoothcert.hub.options import DATASETS, PullConfig
from smoothcert.io.files import make_folder, write_error
from smoothcert.io.paths import CERTIFICATES
from smoothcert.progress import Progress, phase, reporting
from smoothcert.store.manifest import is_store
from smoothcert.verify.files import check_adversaries, read_all


@dataclass(frozen=True)
class Pulled:
    """A repository as it was taken: its name, what it holds, the commit, the folder, and the files in it."""

    repo: str
    kind: Kind
    revision: str
    folder: Path
    files: tuple[str, ...]


def pull(config: PullConfig, progress: Progress | None = None, *, verbose: bool = False) -> Pulled:
    """Take a model directory or a store from a repository, at one commit, into a new folder.

    Names and sizes are checked before anything is loaded. Then the weights are read and compared with the model's
    description, and every file of a store with its hash. No code is run.

    Raises:
        MissingExtraError: without huggingface_hub. InputError: `out` is not new. HubError: a hub that cannot be
        reached or refuses, no such repository or revision, or one that is neither a model nor a store. FileError,
        ModelError, StoreError: damaged files, or larger ones than smoothcert writes. Nothing is written then.
    Warns:
        UserWarning: the repository has other files too, which are left there.
    """
    hub, out = open_hub("pull"), config.out
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} exists: give a new folder for -o")
    with reporting(progress, verbose):
        with phase("asking the hub"):
            kinds: tuple[Kind, ...] = ("dataset",) if config.names_dataset else ("model", "dataset")
            answers = ((kind, find_repository(hub, config.bare_repo, kind, config.revision)) for kind in kinds)
            where, found = next(((kind, one) for kind, one in answers if one is not None), (None, None))
            if where is None or found is None:
                raise missing_repository(hub, config.repo)
            sizes = {file.rfilename: file.size for file in found.siblings or ()}
            kind = kind_of_files(sizes, config.repo)
            wanted = {name: size for name, size in sizes.items() if is_expected(kind, name)}
            check_sizes(wanted, config.repo)
        if others := sorted(name for name in sizes.keys() - wanted if not name.startswith(".")):
            warnings.warn(f"{config.repo} has files that are no part of a {_WORDS[kind]}, and they are left there: "
                          f"{', '.join(others[:5])}{' and others' if len(others) > 5 else ''}", stacklevel=2)
        make_folder(out.parent)
        try:
            draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        except OSError as error:
            raise write_error(error, out) from error
        try:
            with phase("loading the files"), explain_errors(hub, config.repo), quiet_client():
                hub.snapshot_download(config.bare_repo, repo_type=where, revision=found.sha, local_dir=draft / out.name,
                                      allow_patterns=sorted(wanted), etag_timeout=PATIENCE)
            shutil.rmtree(draft / out.name / ".cache", ignore_errors=True)
            with phase("checking the files"):
                _check_folder(draft / out.name, kind, wanted)
            try:
                (draft / out.name).replace(out)
            except OSError as error:
                raise write_error(error, out) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    prefix = DATASETS if where == "dataset" else ""
    return Pulled(f"{prefix}{config.bare_repo}", kind, found.sha, out, tuple(sorted(wanted)))


_WORDS: dict[Kind, str] = {"model": "model directory", "dataset": "store"}


def _check_folder(folder: Path, kind: Kind, wanted: dict[str, int | None]) -> None:
    """Raise FileError, ModelError or StoreError where what was loaded is not what it should be."""
    held = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    check_sizes(held, str(folder.name))
    if strange := sorted(held.keys() ^ wanted.keys()):
        raise StoreError(f"what came of {folder.name} is not what the hub listed: {', '.join(strange[:5])}")
    if kind == "dataset":
        _check_store(folder)
        return
    card = read_card(folder)
    if card.quantised is not None:
        integer_file(folder, card)
    elif runs_code(card):  # its network is not built here: that would run the code
        read_weights(folder / "best.safetensors")
    else:
        read_network(folder)
    if is_store(folder / CERTIFICATES):
        _check_store(folder / CERTIFICATES)


def _check_store(folder: Path) -> None:
    readable, checks = read_all(folder)
    if readable.identity.kind == "attack" and readable.identity.attack.adversaries:
        images = list(dict.fromkeys(readable.store.column("index").tolist()))
        checks.append(check_adversaries(readable, np.array(images, dtype=np.int64)))
    if problems := [problem for check in checks for problem in check.problems]:
        raise StoreError("\n".join([f"the store is damaged, and was not kept ({len(problems)} found):",
                                    *(f"  - {problem}" for problem in problems[:10])]))
