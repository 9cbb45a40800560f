"""Joining a Ray cluster: which one an address means, and the token that it may ask for.

From Ray 2.60 on, a local `ray.init` leaves a token in the home folder, and a `ray start --head` that finds one there
asks everybody for it. Ray itself shows it only to a cluster that it has found, never to an address; and where it shows
it to a cluster that asks for none, the cluster's workers cannot answer, because they have none to show in return.
"""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smoothcert.errors import InputError, MissingExtraError

_ANSWER = 10.0  # seconds that a cluster has to answer
_CLIENT = "ray://"
_MODE = "RAY_AUTH_MODE"


@contextmanager
def join_cluster(address: str) -> Iterator[Any]:
    """Connect Ray to a cluster, and yield Ray: `auto` is the one that runs already, else, as `local`, one of this
    machine.

    Raises:
        MissingExtraError: no Ray. InputError: no such cluster, or one that refuses our token.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray", "--cluster") from None
    if ray.is_initialized():
        yield ray
        return
    ending, mode = signal.getsignal(signal.SIGTERM), os.environ.get(_MODE)
    try:
        _connect(ray, address)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ending)  # Ray puts its own in its place, which drops the process
        yield ray
    finally:
        ray.shutdown()
        _set_mode(ray, mode)


def _connect(ray: Any, address: str) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "auto":
        address = _find_local_cluster(ray) or "local"
    try:
        if address == "local":
            quiet["include_dashboard"] = False
        else:
            _check_answers(address)
            _agree_on_token(ray, address)
        ray.init(address, **quiet)
    except Exception as error:  # Ray raises Exception itself where its own processes do not start in time
        if _has_tokens(ray) and isinstance(error, ray.exceptions.AuthenticationError):
            raise InputError(f"cluster: {address} asks for its token, but {_describe_token()}") from None
        again = "Try again while this machine has less to do, or use --workers. " if address == "local" else ""
        raise InputError(f"cluster: cannot join {address}: {error}\n{again}Give the address of a running Ray cluster "
                         f"(HOST:PORT of its head, or ray://HOST:10001 from outside, with its token in "
                         f"~/.ray/auth_token where it has one), auto or local") from None


def _find_local_cluster(ray: Any) -> str | None:
    """Return the address that `auto` means to Ray: RAY_ADDRESS, else the cluster that runs here and answers."""
    named = os.environ.get("RAY_ADDRESS", "auto")
    if named not in ("", "auto"):
        return named
    try:
        address = str(ray._private.services.canonicalize_bootstrap_address("auto"))
        _check_answers(address)
    except (OSError, ValueError):
        return None
    return address


def _check_answers(address: str) -> None:
    """Raise OSError or ValueError where nobody answers, which Ray itself would wait for over many minutes."""
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER).close()


def _has_tokens(ray: Any) -> bool:
    """Return whether this Ray knows tokens (2.52 and later)."""
    return hasattr(ray.exceptions, "AuthenticationError")


def _agree_on_token(ray: Any, address: str) -> None:
    """Have Ray show its token where the head asks for one; an AuthenticationError where it refuses what Ray can show.

    Ray itself would try for 20 seconds, and then say that nobody answers. A `ray://` address is not asked, because
    Ray's client gives no reasons; nor is anybody where the token is that of a Kubernetes account, which Ray handles.
    """
    if not _has_tokens(ray) or os.environ.get("RAY_ENABLE_K8S_TOKEN_AUTH"):
        return
    may_show = os.environ.get(_MODE, "token").lower() == "token" and _token()[0]
    if address.startswith(_CLIENT):
        if may_show:
            _set_mode(ray, "token")
        return
    with _without_stderr():
        _set_mode(ray, "disabled")
        try:
            ray._raylet.GcsClient(address=address)
        except ray.exceptions.AuthenticationError:
            if not may_show:
                raise
            _set_mode(ray, "token")
            ray._raylet.GcsClient(address=address)


def _set_mode(ray: Any, mode: str | None) -> None:
    """Switch the showing and asking of tokens; None leaves it to Ray."""
    if mode == os.environ.get(_MODE):
        return
    if mode is None:
        del os.environ[_MODE]
    else:
        os.environ[_MODE] = mode
    if _has_tokens(ray):
        ray._raylet.Config.initialize("")  # Ray read its settings when it was imported


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Keep everything off standard error, also what Ray's own code in C++ writes."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _token() -> tuple[bool, str]:
    """Return whether Ray finds a token, and the place where it looks: the first of the three that is set."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True, "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.stat().st_size > 0, str(path)
    except OSError:
        return False, str(path)


def _describe_token() -> str:
    """Say which token was shown, or where none was found, and how to get the right one."""
    found, place = _token()
    if not found:
        state = f"none was found in {place}"
    elif os.environ.get(_MODE) == "token":
        state = f"the one in {place} is another"
    else:
        state = f"the one in {place} was not shown, because {_MODE} is not token"
    return (f"{state}.\nOn the head, `ray get-auth-token` prints the cluster's: put it into ~/.ray/auth_token here, "
            f"into a file that RAY_AUTH_TOKEN_PATH names, or into RAY_AUTH_TOKEN; and leave {_MODE} unset, or at token")
