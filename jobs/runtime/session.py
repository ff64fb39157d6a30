"""The Ray that a command works with: a running cluster, a private Ray, or the cluster of an app."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from rich.console import Console

from jobs.errors import StoppedError
from pipelines.errors import ConfigError
from pipelines.own_packages import check_not_hidden
from pipelines.ray_noise import quiet_ray, while_ray_starts
from pipelines.ray_token import keep_ray_token

ENVIRONMENT_OF_PRIVATE_RAY = {
    # glibc gives the kernel back what a thread frees and takes it again page by page. A replica's activations come and
    # go in a thread: with its memory kept it was 1.5% faster.
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
}
"""Where the user sets nothing else."""
AUTH_MODE = "RAY_AUTH_MODE"


class NoClusterError(ConfigError):
    """There is no Ray at the address that the command was given."""


@contextmanager
def ray_session(address: str | None, console: Console) -> Iterator[None]:
    """The cluster at `address`, or a private Ray on this machine; one that already runs in this process is used.

    Raises NoClusterError where there is none at `address`, and StoppedError where a private one does not start.
    """
    if ray.is_initialized():
        yield
        return
    check_not_hidden(Path.cwd())
    handler = signal.getsignal(signal.SIGTERM)
    if address is None:
        console.print("starting a private Ray on this machine ...")
        for name, value in ENVIRONMENT_OF_PRIVATE_RAY.items():
            os.environ.setdefault(name, value)
        want_token()
    where: dict[str, Any] = (
        {"address": "local", "include_dashboard": False} if address is None else {"address": address}
    )
    quiet_ray(os.environ)
    try:
        with while_ray_starts():
            ray.init(**where, logging_level=logging.ERROR, log_to_driver=False)
    except SystemExit as error:  # its own handler of SIGTERM, which it installs on the way
        if error.code == signal.SIGTERM and callable(handler):
            handler(signal.SIGTERM, None)
        raise
    except Exception as error:  # Ray raises this very class for a node that does not come up, and asserts
        if address is None:
            raise StoppedError(f"Ray did not start on this machine: {reason_of(error)}") from error
        raise NoClusterError(
            f"no Ray can be reached at {address!r}: {reason_of(error)}; give the address of one that runs with "
            "--address or RAY_ADDRESS"
        ) from error
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # ray.init takes it for itself
        yield
    finally:
        if address is None:
            kill_autoscaler_monitor()
        ray.shutdown()


def reason_of(error: Exception) -> str:
    """What an error of Ray's says in its first line, or its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).split("\n")[0]


def want_token() -> None:
    """Lets only those into the private Ray that is about to start who have its token, unless RAY_AUTH_MODE says else.

    Ray listens on all interfaces, and whoever it lets in can run code. Raises ConfigError where others could read the
    token.
    """
    if os.environ.get(AUTH_MODE, "token").lower() == "token":
        keep_ray_token(os.environ)
    if AUTH_MODE not in os.environ:
        from ray._raylet import Config  # type: ignore[attr-defined]  # Ray's own way, as in its authentication_token_setup

        os.environ[AUTH_MODE] = "token"
        Config.initialize("")  # Ray read its environment when it was imported


@contextmanager
def session_with_app(address: str | None, app: str, console: Console) -> Iterator[None]:
    """The cluster at `address`, by default any, on which `app` runs; raises ConfigError where there is none."""
    with ExitStack() as session:
        try:
            session.enter_context(ray_session(address or "auto", console))
        except NoClusterError as error:
            raise ConfigError(f"--app is {app!r}, but {error}") from error
        yield


def kill_autoscaler_monitor() -> None:
    """Ends a process of a private Ray that has nothing to do there, and that `ray.shutdown` would wait a second for.

    It ends the GCS first, and then asks the monitor, which does not answer without it.
    """
    with suppress(psutil.Error):
        for child in psutil.Process().children():
            if any(argument.endswith("autoscaler/_private/monitor.py") for argument in child.cmdline()):
                child.kill()
