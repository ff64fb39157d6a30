"""The Ray that `crossray serve` runs on: a private one that shares nothing with any other, or one that runs already."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.errors import ConfigError
from pipelines.own_packages import check_not_hidden
from pipelines.ray_token import keep_ray_token
from serve import haproxy
from serve.deaths import say_deaths
from serve.environment import SERVE_ENVIRONMENT
from serve.settings import ServeArgs

CONTROLLER = {"name": "SERVE_CONTROLLER_ACTOR", "namespace": "serve"}
"""The actor that is there when Serve runs on a Ray."""
PORTS_TRIED = 1000
RESERVATIONS: list[socket.socket] = []
"""What this process holds of its ports until it ends; see `reserve_port`."""


@contextmanager
def ray_session(address: str | None, console: Console) -> Iterator[None]:
    """The Ray at `address`, or a private one; SIGTERM interrupts as Ctrl-C does.

    Raises ConfigError where Serve runs there already, and RuntimeError where Ray does not start or is not there.
    """
    check_not_hidden(Path.cwd())
    with tempfile.TemporaryDirectory(prefix="crossray-") as directory:
        if address is None:
            console.print("starting a private Ray on this machine ...")
            check_token(os.environ, console)
            for name, value in private_environment(Path(directory)).items():
                os.environ.setdefault(name, value)
            os.environ.update(haproxy.wrapped(os.environ, Path(directory)))
        import ray

        how: dict[str, Any] = {"include_dashboard": False}
        if address is not None:
            how = {"runtime_env": {"env_vars": SERVE_ENVIRONMENT | haproxy.installed(os.environ)}}
        try:
            ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **how)
        except Exception as error:  # Ray raises this very class for a node that does not come up, and asserts
            what = "Ray did not start on this machine" if address is None else f"no Ray can be reached at {address!r}"
            raise RuntimeError(f"{what}: {str(error) or type(error).__name__}") from error
        try:
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # ray.init takes it for itself
            say_deaths(console)
            if CONTROLLER in ray.util.list_named_actors(all_namespaces=True):
                raise ConfigError(
                    f"Serve runs on {address} already, and its host and port cannot be changed from here; deploy with "
                    "`serve deploy cluster/serve.yaml`, or end it with `serve shutdown`"
                )
            yield
        finally:
            ray.shutdown()


def check_token(environment: Mapping[str, str], console: Console) -> None:
    """Keeps Ray's token from others, or says that Ray shall want none; raises ConfigError where it cannot be kept."""
    if environment.get("RAY_AUTH_MODE", "token").lower() == "token":
        keep_ray_token(environment)
        return
    console.print(
        "warning: RAY_AUTH_MODE stands in the environment, and is not `token`: whoever reaches this machine's ports "
        "can run code through Ray (docs/security.md)",
        style="yellow",
    )


def private_environment(directory: Path) -> dict[str, str]:
    """What the processes of a private Ray get beside SERVE_ENVIRONMENT, so that it keeps to itself.

    Its HAProxy would share files (an admin socket for everybody among them) and ports with any other on this machine.
    So would Serve's own proxies, which HAProxy asks while no endpoint lives: several may listen on one port, and a
    request would come to whichever takes it, to one that wants no key or has another model among them.
    """
    return {
        "RAY_worker_niceness": "0",  # Ray's own 15 would let anything else on the machine go first
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(reserve_port(8600)),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(reserve_port(9200)),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(reserve_port(8404)),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(reserve_port(9101)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(directory / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(directory / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(directory / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(directory),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(directory / "server-state"),
    }


def reserve_port(usual: int) -> int:
    """The usual port, or the first after it that nobody has, for what this process starts until it ends.

    HAProxy takes its ports seconds after they are chosen, and again when it has died: the port itself cannot be held
    for it. What is held is a name of the same number, which on Linux whoever shares the ports of this process shares
    too, so that two servers never choose the same. The system is not asked for a port: it gives out those that Ray's
    own processes are about to take.
    """
    for port in range(usual, usual + PORTS_TRIED):
        with suppress(OSError), socket.create_server(("", port)):
            if sys.platform == "linux":
                RESERVATIONS.append(bound_to(f"\0crossray-port-{port}"))
            return port
    raise RuntimeError(f"none of the ports {usual} to {usual + PORTS_TRIED - 1} is free on this machine")


def bound_to(name: str) -> socket.socket:
    """A Unix socket of this name; raises OSError where somebody has it."""
    one = socket.socket(socket.AF_UNIX)
    try:
        one.bind(name)
    except OSError:
        one.close()
        raise
    return one


def fitted(args: ServeArgs, num_cpus: float | None, resources: Mapping[str, float]) -> ServeArgs:
    """The args with this machine's CPUs for the replicas, where `num_cpus` does not say; `resources` are Ray's.

    Raises ConfigError for replicas that need more than there is.
    """
    cpus, gpus = int(resources.get("CPU", 0)), resources.get("GPU", 0)
    if num_cpus is None:
        args = args.model_copy(update={"num_cpus": max(1, cpus // args.max_replicas)})
    if args.max_replicas * args.num_cpus > cpus or args.max_replicas * args.num_gpus > gpus:
        raise ConfigError(
            f"{args.max_replicas} replicas of {args.num_cpus:g} CPUs and {args.num_gpus:g} GPUs are more than this "
            f"machine's {cpus} and {gpus:g}; lower --replicas, --num-cpus or --num-gpus"
        )
    return args
