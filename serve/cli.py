"""The online app's command lines: `crossray serve` (also `python -m serve.cli`) and `crossray keys`.

Every field of ServeArgs is a flag with its default and its docstring; written out here are only the flags for where to
listen, who may come in, and which Ray to start on.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
import shlex
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from pipelines.config import EMBEDDED_MODELS
from pipelines.errors import ConfigError, ModelError
from serve.auth import check_access, new_key
from serve.deaths import say_deaths_of_haproxy
from serve.drain import drain
from serve.environment import set_serve_environment
from serve.haproxy import complaints
from serve.private_ray import fitted, ray_session
from serve.reloading import reload_on_sighup
from serve.settings import ServeArgs

if TYPE_CHECKING:
    from serve.auth import ApiKeys

FAILED = 1
"""Exit code: the app did not come up."""
USAGE = 2
"""Exit code: what was asked for cannot work; nothing was started."""
INTERRUPTED = 130
"""Exit code: stopped while Ray started, or once more while it answered what was under way."""
APP = "crossray"
REFUSED_BY_REPLICA = re.compile(r"^pipelines\.errors\.Model\w*Error: (?P<why>.+)$", re.MULTILINE)
"""In what Serve says of a replica: below the traceback, the error that says what to do."""
EXAMPLE = {
    "query": "how to keep bread fresh",
    "documents": ["Rye is a kind of grass.", "Freeze a loaf and it will not go stale.", "A baker gets up early."],
}

PANELS = {
    "Model and lengths": (
        "model",
        "served_model_name",
        "revision",
        "dtype",
        "max_length",
        "max_query_length",
        "overlap_tokens",
        "max_chunks_per_doc",
        "instruction",
        "calibration",
        "max_batch_tokens",
    ),
    "Replicas": ("num_threads", "num_gpus", "device", "queued_tokens_per_replica", "endpoints"),
    "Requests": (
        "strict_model",
        "return_documents",
        "max_documents",
        "max_body_bytes",
        "max_wait_seconds",
        "max_queued_tokens",
        "deadline_seconds",
    ),
    "Access": ("api_keys_file", "allow_anonymous", "cors_origins"),
}
"""Where --help shows the fields of ServeArgs; `command` has flags of its own for the others."""


def option(*flags: str, help: str, panel: str, **settings: Any) -> typer.models.OptionInfo:
    """A flag of the command line."""
    return typer.Option(*flags, help=help, rich_help_panel=panel, **settings)  # type: ignore[no-any-return]


def with_flags_of_args(function: Callable[..., None]) -> Callable[..., None]:
    """The function as Typer shall see it: with a parameter for each field in PANELS in place of its `**settings`."""
    own = inspect.signature(function, eval_str=True)
    parameters = [one for one in own.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    for panel, names in PANELS.items():
        for name in names:
            field = ServeArgs.model_fields[name]
            flag = typer.Option(field.default, help=field.description, rich_help_panel=panel)
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(name, kind, default=flag, annotation=field.annotation))
    function.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {one.name: one.annotation for one in parameters}
    return function


@with_flags_of_args
def command(
    host: Annotated[str, option(help="Address to listen on; 0.0.0.0 is all of them.", panel="Listen")] = "127.0.0.1",
    port: Annotated[int, option(help="Port to listen on.", panel="Listen", min=1, max=65535)] = 8000,
    address: Annotated[
        str | None,
        option(help="A running Ray; default: a private one on this machine.", panel="Replicas", envvar="RAY_ADDRESS"),
    ] = None,
    replicas: Annotated[
        str, option(help="Loaded models: N, or MIN:MAX to follow the tokens that wait.", panel="Replicas")
    ] = "1",
    num_cpus: Annotated[
        float | None, option(help="CPUs of a replica; default: all, on a private Ray, else 1.", panel="Replicas")
    ] = None,
    **settings: Any,
) -> None:
    """Serve a model over HTTP, with a page to try it on, until Ctrl-C or SIGTERM.

    Then no more requests are taken, and the server ends as soon as those under way are answered. SIGHUP reads the file
    of API keys at once, which is otherwise read every second.
    Exit codes: 0 ended, 1 the app did not come up, 2 usage, 130 cut off (by a second signal, or while Ray started).
    """
    console = Console(stderr=True)
    with errors_as_exit_codes(console):
        args = parse_args(replicas, settings | {"num_cpus": num_cpus})
        set_environment(address)
        start(checked_server(args, host, port, address), console, num_cpus)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that nothing speaks against starting: its keys were read, its model was found, its port is free."""

    args: ServeArgs
    host: str
    port: int
    keys: ApiKeys | None
    address: str | None
    """The Ray that it shall run on; None is a private one on this machine."""
    is_calibrated: bool = True
    """Whether scores mean something by themselves, and so a threshold."""


@contextmanager
def errors_as_exit_codes(console: Console) -> Iterator[None]:
    """Ends the command with a message and the exit code that belongs to what was raised inside."""
    try:
        yield
    except (ConfigError, ModelError) as error:
        exit_with_error(console, str(error), USAGE)
    except RuntimeError as error:  # Serve's word for an app that does not come up, and ours for no Ray
        exit_with_error(console, str(error), FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def set_environment(address: str | None) -> None:
    """Sets the variables that Ray and Serve read when they are imported."""
    set_serve_environment()
    if address is None:
        # Ray listens on all interfaces, and whoever it lets in can run code.
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def checked_server(args: ServeArgs, host: str, port: int, address: str | None) -> Server:
    """The server as it can be started; raises ConfigError or ModelError for what cannot work."""
    from serve.app import api_keys  # Ray: reads the environment now; and a second, spared to --help

    keys = api_keys(args)
    check_access(host, keys, args.allow_anonymous)
    args, is_calibrated = with_found_model(args)
    if address is None:
        check_port(host, port)
    return Server(args, host, port, keys, address, is_calibrated)


def start(server: Server, console: Console, num_cpus: float | None) -> None:
    """Starts Ray, or goes to the one that runs, and serves there until a signal comes; `num_cpus` as the flag says."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there are endpoints that can read their keys anew
    with ray_session(server.address, console):
        if server.address is None:
            import ray

            resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
            server = replace(server, args=fitted(server.args, num_cpus, resources))
        run(server, console)


def exit_with_error(console: Console, message: str, code: int) -> NoReturn:
    """Ends the command with a message, in which nothing is read as markup or broken over lines."""
    console.print(Text.assemble(("error: ", "red"), message), soft_wrap=True)
    raise typer.Exit(code)


def parse_args(replicas: str, settings: Mapping[str, Any]) -> ServeArgs:
    """Flags -> ServeArgs; raises ConfigError."""
    fewest, _, most = replicas.partition(":")
    given = {name: value for name, value in settings.items() if value is not None}
    try:
        return ServeArgs(min_replicas=fewest, max_replicas=most or fewest, **given)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise ConfigError(str(first["ctx"]["error"])) from None
        field = str(first["loc"][0])
        flag = "replicas" if field.endswith("_replicas") else field.replace("_", "-")
        raise ConfigError(f"--{flag} is {first['input']!r}: {first['msg']}") from None


def check_port(host: str, port: int) -> None:
    """Raises ConfigError when nothing can listen there."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {error.strerror}; choose another --port or --host"
        ) from None


def with_found_model(args: ServeArgs) -> tuple[ServeArgs, bool]:
    """The args with a directory's full path, since replicas may start elsewhere, and whether it is calibrated.

    Raises ModelError for no model, and as `with_calibration`.
    """
    from pipelines.preparation import Preparation
    from serve.pinning import with_calibration

    Preparation.load(args.reranker())
    is_calibrated = with_calibration(args).calibration is not None
    directory = Path(args.model).expanduser()
    if args.model in EMBEDDED_MODELS or not directory.is_dir():
        return args, is_calibrated
    return args.model_copy(update={"model": str(directory.resolve()), "served_model_name": args.name}), is_calibrated


def run(server: Server, console: Console) -> None:
    """Serves until a signal comes and what is under way is answered; raises RuntimeError if no app comes up."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(http_options={"host": server.host, "port": server.port})
    console.print(f"loading {server.args.name} ...")
    try:  # from here on: requests are answered a little before Serve says so
        deploy(server.args)
        reload_on_sighup(APP, server.args, console)
        if server.address is None:
            for complaint in complaints(Path(os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent):
                console.print(complaint, style="yellow", markup=False, soft_wrap=True)
        console.print(welcome(server), markup=False, highlight=False, soft_wrap=True)
        say_deaths_of_haproxy(console)
    except KeyboardInterrupt:
        console.print("ending, once what is under way is answered ...")
        drain(APP)


def deploy(args: ServeArgs) -> None:
    """Returns when the app is up; raises ModelError where replicas refuse the model, RuntimeError for all else."""
    from ray import serve

    from serve.app import build_app

    try:
        serve.run(build_app(args), name=APP, route_prefix="/")
    except RuntimeError as error:
        deployments = serve.status().applications[APP].deployments.values()
        said = "\n".join([str(error), *(one.message for one in deployments if one.message)])
        if refused := REFUSED_BY_REPLICA.search(said):
            raise ModelError(refused["why"]) from None
        raise RuntimeError(said) from None


def welcome(server: Server) -> str:
    """What the command prints once the app is up: where everything is, and how to try it."""
    args, host, keys = server.args, server.host, server.keys
    everywhere = host in ("0.0.0.0", "::")
    shown = "localhost" if everywhere else f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{server.port}"
    number = str(args.min_replicas)
    if args.max_replicas > args.min_replicas:
        number += f" to {args.max_replicas}"
    each = f"GPUs of each: {args.num_gpus:g}" if args.num_gpus else f"threads of each: {args.threads}"
    key = "" if keys is None else '-H "Authorization: Bearer $KEY" '
    return f"""
Crossray serves {args.name}{" on all interfaces of this machine" if everywhere else ""}.

  Page      {url}/
  API       {url}/v1/rerank (all of it: {url}/docs)
  Metrics   {url}/metrics
  API keys  {"none wanted" if keys is None else f"{len(keys.digests)} accepted"}
  Replicas  {number}; {each}
  Scores    {"calibrated" if server.is_calibrated else "not calibrated, so score_threshold is refused by default"}

Try it:
  curl {url}/v1/rerank {key}-d {shlex.quote(json.dumps(EXAMPLE))}

Ctrl-C ends it.
"""


keys = typer.Typer(no_args_is_help=True)


@keys.callback()
def keys_help() -> None:
    """API keys for `crossray serve`."""


@keys.command("new")
def new(label: Annotated[str, typer.Option(help="Whose key it is, for whoever reads the list.")] = "") -> None:
    """Make an API key: to stdout the key and its line for the list of keys, to stderr how to use both."""
    try:
        made = new_key(label)
    except ConfigError as error:
        exit_with_error(Console(stderr=True), str(error), USAGE)
    typer.echo("The key, for whoever calls the server; it is shown this once and stored nowhere:", err=True)
    typer.echo(made.key)
    typer.echo("Its line for the server's list of keys, which is no secret:", err=True)
    typer.echo(made.line)
    typer.echo(
        "\nAdd the line to the file of `crossray serve --api-keys-file FILE`: a server that runs takes it within 5 s.\n"
        "Or add it to CROSSRAY_API_KEYS (with commas between lines), which is read when the server starts.\n"
        "Clients send the key as `Authorization: Bearer KEY`: it is what they call their API key.",
        err=True,
    )


if __name__ == "__main__":
    typer.run(command)
