"""A server on a real port in this process alone, in a second (`start_server`); `live_app` is that on Ray Serve."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import uvicorn

from serve.auth import ApiKeys, new_key
from serve.endpoint import BLOCK_TOKENS, Endpoint
from serve.gate import DEFAULT_BODY_LIMITS, BodyLimits
from serve.pinning import with_calibration
from serve.routes import create_api
from serve.scorer import Scorer
from serve.settings import ServeArgs
from serve.streaming import DEFAULT_LIMITS, StreamLimits
from tests.conftest import LiveApp

StartServer = Callable[..., "Server"]


@dataclass
class Call:
    """A call of a replica on its way, awaited as Serve's are."""

    work: Coroutine[Any, Any, Any]
    task: asyncio.Task[Any] | None = None

    def __await__(self) -> Any:
        self.task = asyncio.ensure_future(self.work)
        return self.task.__await__()

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


@dataclass
class LocalHandle:
    """Calls the methods of an object as a DeploymentHandle calls those of a replica; `failures` come first.

    What asks for the first speed does not fail: no stub that stands for a replica has to know it.
    """

    target: Any
    failures: list[Exception] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        handle = self

        class Method:
            def remote(self, *arguments: Any) -> Call:
                handle.calls.append(name)
                return Call(handle.call(name, arguments))

        return Method()

    async def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name == "tokens_per_second" and not isinstance(self.target, Scorer):
            return None
        if self.failures and name != "tokens_per_second":
            raise self.failures.pop(0)
        return await getattr(self.target, name)(*arguments)


@dataclass
class Server:
    """A server of this process: the real routes, gate, endpoint and scorer, and no Ray between them."""

    base_url: str
    endpoint: Endpoint
    handle: LocalHandle
    key: str | None

    def post(self, path: str, json: Any = None, **options: Any) -> requests.Response:
        """A request with the key, if there is one."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        headers |= options.pop("headers", {})
        return requests.post(self.base_url + path, json=json, headers=headers, timeout=60, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        """Likewise."""
        return requests.get(self.base_url + path, timeout=60, **options)


@dataclass(frozen=True)
class Sizes:
    """What is a constant in a real server."""

    block_tokens: int = BLOCK_TOKENS
    stream: StreamLimits = DEFAULT_LIMITS
    body: BodyLimits = DEFAULT_BODY_LIMITS


REAL_SIZES = Sizes()


@pytest.fixture(scope="session")
def scorers() -> dict[str, Scorer]:
    """Loaded replicas by model, shared by all servers of this process."""
    return {}


@pytest.fixture
def start_server(scorers: dict[str, Scorer], bert_directory: Any) -> Iterator[StartServer]:
    """Starts servers with the tiny model; `keys=True` wants a key, `sizes` are `Sizes`, all else are ServeArgs."""
    with ExitStack() as running:

        def start(keys: bool = False, sizes: Sizes = REAL_SIZES, **settings: Any) -> Server:
            args = ServeArgs(**{"model": str(bert_directory), "served_model_name": "tiny"} | settings)
            return running.enter_context(run_server(args, keys, scorers, sizes))

        yield start


@contextmanager
def run_server(args: ServeArgs, keys: bool, scorers: dict[str, Scorer], sizes: Sizes = REAL_SIZES) -> Iterator[Server]:
    """A uvicorn in a thread of its own."""
    config = with_calibration(args)
    name = f"{args.model} {config.calibration}"
    if name not in scorers:
        scorers[name] = Scorer(config)
    key = new_key("test") if keys else None
    handle = LocalHandle(scorers[name])
    accepted = ApiKeys.parse(key.line, "test") if key else None
    endpoint = Endpoint(
        args,
        accepted,
        handle,  # type: ignore[arg-type]
        calibration=config.calibration,
        block_tokens=sizes.block_tokens,
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            create_api(lambda: endpoint, sizes.stream, sizes.body), log_level="warning", lifespan="off"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            port = listener.getsockname()[1]
            yield Server(f"http://127.0.0.1:{port}", endpoint, handle, key.key if key else None)
        finally:
            server.should_exit = True
            thread.join()


class Duplex:
    """A connection whose request is still being written while its answer is read."""

    def __init__(self, server: Server | LiveApp) -> None:
        address = urlsplit(server.base_url)
        self.connection = http.client.HTTPConnection(address.netloc, timeout=20)
        self.connection.putrequest("POST", f"{address.path}/v1/rerank/stream")
        self.connection.putheader("Transfer-Encoding", "chunked")
        self.connection.putheader("Authorization", f"Bearer {server.key}")
        self.connection.endheaders()
        self.response: http.client.HTTPResponse | None = None

    def send(self, *lines: Any) -> None:
        data = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
        self.connection.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> None:
        self.connection.send(b"0\r\n\r\n")

    def read(self) -> dict[str, Any] | None:
        if self.response is None:
            self.response = self.connection.getresponse()
        line = self.response.readline()
        return json.loads(line) if line else None


@contextmanager
def duplex(server: Server | LiveApp) -> Iterator[Duplex]:
    stream = Duplex(server)
    try:
        yield stream
    finally:
        stream.connection.close()
