"""The calls of huggingface_hub, and what goes wrong with them in plain words."""

import errno
import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from smoothcert.errors import FileError, HubError, InputError, MissingExtraError, SmoothcertError, first_line
from smoothcert.hub.contents import Kind
from smoothcert.version import __version__

TOKEN = "HF_TOKEN"
PATIENCE = 10.0
"""Seconds until a hub that does not answer is given up."""


def open_hub(purpose: str) -> Any:
    """Return the hub's client for HF_ENDPOINT, or the public hub. Raises MissingExtraError without huggingface_hub."""
    try:
        library = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "hub", purpose) from error
    return library.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="smoothcert",
                         library_version=__version__)


def find_repository(hub: Any, repo: str, kind: Kind, revision: str | None = None) -> Any:
    """Return what the hub says of a repository, with its commit and its files; None where it has none of this name
    that the token may see."""
    errors = importlib.import_module("huggingface_hub.errors")
    with explain_errors(hub, repo, revision):
        try:
            return hub.repo_info(repo, repo_type=kind, revision=revision, timeout=PATIENCE, files_metadata=True)
        except errors.RepositoryNotFoundError as error:
            if isinstance(error, errors.GatedRepoError):
                raise
            return None


def missing_repository(hub: Any, repo: str) -> HubError:
    """Return the error for a repository that does not exist, or is not shown to this token."""
    return HubError(f"there is no repository {repo} at {hub.endpoint}, or it is private and {TOKEN} gives no access: "
                    f"check the name, or set {TOKEN} to a token that may read it")


@contextmanager
def explain_errors(hub: Any, repo: str, revision: str | None = None) -> Iterator[None]:
    """Turn what huggingface_hub raises within into our own errors.

    Raises HubError; InputError for a name or a card that the hub does not take; FileError for a disk that is full.
    """
    errors = importlib.import_module("huggingface_hub.errors")
    try:
        yield
    except SmoothcertError:
        raise
    except errors.GatedRepoError:
        raise HubError(f"{repo} is given only to those who accept its terms: do so on its page, and set {TOKEN}"
                       ) from None
    except errors.RepositoryNotFoundError:
        raise missing_repository(hub, repo) from None
    except errors.RevisionNotFoundError:
        raise HubError(f"{repo} has no revision {revision or 'main'}: give a branch, a tag or a commit that it has"
                       ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        said = (getattr(error, "server_message", None) or "").strip().partition("\n")[0]
        if status in (401, 403):
            raise HubError(f"{hub.endpoint} refuses this for {repo} ({status}{f': {said}' if said else ''}): set "
                           f"{TOKEN} to a token that may do it") from None
        raise HubError(f"{hub.endpoint} answered {status} for {repo}{f': {said}' if said else ''}: try again later"
                       ) from None
    except errors.HFValidationError as error:
        raise InputError(f"{repo}: {str(error).partition(chr(10))[0]}") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise FileError(f"cannot write what comes from {repo}: {error.strerror}") from None
        raise _unreachable(hub, error) from None
    except errors.HTTPError as error:  # of the client below: no connection, no answer in time
        raise _unreachable(hub, error) from None
    except ValueError as error:  # YAML of the card that the hub does not take
        raise InputError(f"{hub.endpoint} does not take this for {repo}: {error}") from None
    except RuntimeError as error:
        raise HubError(f"a file of {repo} could not be sent: {first_line(error.__cause__ or error)}") from None


def _unreachable(hub: Any, error: BaseException) -> HubError:
    return HubError(f"cannot reach the hub at {hub.endpoint} ({first_line(error)}): check the connection, and "
                    f"HF_ENDPOINT and HF_HUB_OFFLINE, if they are set")


@contextmanager
def quiet_client() -> Iterator[None]:
    """Keep huggingface_hub from showing bars of its own, and from asking if parquet files belong beside a model."""
    bars = importlib.import_module("huggingface_hub.utils")
    shown = not bars.are_progress_bars_disabled()
    if shown:
        bars.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")
            yield
    finally:
        if shown:
            bars.enable_progress_bars()
