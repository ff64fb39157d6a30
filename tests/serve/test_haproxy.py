"""What the script makes of the configuration that Ray renders; and what the HAProxy that it becomes then does."""

from __future__ import annotations

import http.client
import http.server
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from serve import haproxy
from serve.private_ray import reserve_port

Render = Callable[..., Path]


@pytest.fixture
def render(tmp_path: Path) -> Render:
    """Writes the configuration as Ray renders it, for ports by path prefix; `fallback` is the port of Serve's proxy."""

    def write(servers: dict[str, int] | None = None, fallback: int = 1, host: str = "127.0.0.1") -> Path:
        directory = tmp_path / "node"
        config = HAProxyConfig(
            http_options=HTTPOptions(host=host, port=reserve_port(18_000)),
            is_head=True,
            has_received_routes=bool(servers),
            socket_path=str(directory / "admin.sock"),
            server_state_base=str(directory),
            server_state_file=str(directory / "state"),
            metrics_socket_path=str(directory / "metrics.sock"),
            stats_port=reserve_port(18_000),
            metrics_port=reserve_port(18_000),
        )
        backends = {
            name: BackendConfig(
                name=name,
                path_prefix=prefix,
                app_name=name,
                servers=[ServerConfig("SERVE_REPLICA-1", "127.0.0.1", port)],
                fallback_server=ServerConfig("SERVE_PROXY_ACTOR-1", "127.0.0.1", fallback),
            )
            for prefix, port in (servers or {}).items()
            for name in [f"http-app{len(prefix)}"]
        }
        path = directory / "haproxy.cfg"
        HAProxyApi(config, backends, str(path))._generate_config_file_internal()
        return path

    return write


@contextmanager
def running(configuration: Path, tmp_path: Path, **variables: str) -> Iterator[tuple[str, psutil.Process]]:
    """The HAProxy that the script becomes, by its address, as Ray starts it."""
    wrapped = haproxy.wrapped({}, tmp_path)
    command = [wrapped[haproxy.BINARY], "-db", "-f", str(configuration), "-dR"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | variables)
    try:
        text = configuration.read_text()
        port = re.search(r"^frontend http_frontend\n\s+bind \S+:(\d+)", text, re.MULTILINE)
        assert port is not None
        deadline = time.monotonic() + 20
        while not (configuration.parent / "admin.sock").exists():
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port[1]}", psutil.Process(process.pid)
    finally:
        process.kill()
        process.communicate()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@contextmanager
def stub(status: int = 200, kind: str = "application/json") -> Iterator[tuple[int, list[dict[str, str]]]]:
    """A server that answers anything, with the request's id twice, as Serve and an endpoint do; method and headers of
    what it was asked."""
    seen: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()} | {"method": self.command})
            self.send_response(status if self.path != "/-/healthz" else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", "2")
            for _ in range(2):
                self.send_header("X-Request-Id", self.headers.get("x-request-id", "none"))
            self.end_headers()
            self.wfile.write(b"{}")

        do_TRACE = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], seen
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("servers", [{}, {"/": 1}, {"/a": 1, "/bb": 1}], ids=str)
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_every_edit_finds_its_place_in_what_ray_renders(render: Render, servers: dict[str, int], host: str) -> None:
    text, missing = haproxy.edited(render(servers, host=host).read_text())
    assert missing == []
    assert text.count(f'{haproxy.REPORT_HEADER} "{haproxy.COMPLETE}"') == 1
    binds = re.findall(r"^frontend prometheus\n\s+bind (.*):|^listen stats\n\s+bind (.*):", text, re.MULTILINE)
    assert binds == [("127.0.0.1", ""), ("", "127.0.0.1")]
    assert ("bind *:" in text) == (host == "0.0.0.0")  # what clients are let in by is the operator's choice
    assert text.count("srv_name -m beg SERVE_PROXY_ACTOR") == 2 * len(servers)
    assert text.count("http-reuse never") == text.count("http-reuse always") == len(servers)


def test_what_another_version_of_ray_renders_otherwise_is_named(render: Render) -> None:
    changed = render().read_text().replace("mode 666 level", "level").replace("listen stats", "listen statistics")
    text, missing = haproxy.edited(changed)
    assert missing == ["an admin socket for its owner alone", "statistics on loopback"]
    assert f'{haproxy.REPORT_HEADER} "without {", ".join(missing)}"' in text
    assert haproxy.edited("global\n")[1][-1] == "timeouts, and rules for headers"


def test_the_script_says_what_found_no_place_and_haproxy_runs(render: Render, tmp_path: Path) -> None:
    configuration = render()
    configuration.write_text(configuration.read_text().replace("listen stats", "listen statistics"))
    done = say_version(configuration, tmp_path)
    assert done.stdout.startswith("HAProxy version")
    assert done.stderr.startswith("crossray: HAProxy runs without statistics on loopback: ")


def test_what_the_script_said_is_found_where_ray_keeps_it(tmp_path: Path) -> None:
    """Once, though it is said at each reload."""
    for number in (1, 2):
        directory = tmp_path / "node"
        directory.mkdir(exist_ok=True)
        (directory / f"admin.sock.1.{number}.stderr.log").write_text("[NOTICE] haproxy\ncrossray: without this\n")
    assert haproxy.complaints(tmp_path) == ["crossray: without this"]


def say_version(configuration: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """The script, becoming an HAProxy that only says its version."""
    script = haproxy.wrapped({}, tmp_path)[haproxy.BINARY]
    return subprocess.run([script, "-v", "-f", str(configuration)], capture_output=True, check=False, text=True)


def test_nobody_else_reaches_the_admin_socket_the_statistics_and_the_metrics(render: Render, tmp_path: Path) -> None:
    """The process is HAProxy, of Ray's pid and with Ray's arguments, by which Ray knows it."""
    configuration = render(host="0.0.0.0")
    with running(configuration, tmp_path) as (_, process):
        assert process.name() == "haproxy"
        assert str(configuration) in process.cmdline()
        assert stat.S_IMODE((configuration.parent / "admin.sock").stat().st_mode) == 0o600
        assert stat.S_IMODE(configuration.parent.stat().st_mode) == 0o700
        listening = {one.laddr.ip for one in process.net_connections() if one.status == psutil.CONN_LISTEN}
        open_to_all = [one for one in process.net_connections() if one.laddr and one.laddr[0] in ("0.0.0.0", "::")]
        assert "127.0.0.1" in listening
        assert len({one.laddr.port for one in open_to_all}) == 1


def test_before_an_app_is_there_clients_are_told_to_come_again(render: Render, tmp_path: Path) -> None:
    with running(render(), tmp_path) as (url, _):
        for path in ("/", "/v1/rerank", "/nothing"):
            response = requests.post(url + path, data=b"{}", timeout=5)
            assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
            detail = response.json()["detail"]
            assert (detail["code"], detail["request_id"]) == ("UNAVAILABLE", response.headers["X-Request-Id"])


def test_with_no_endpoint_alive_clients_are_told_to_come_again(render: Render, tmp_path: Path) -> None:
    """Also where Serve's own proxy, which steps in then, does not know the app yet and says so in text."""
    with stub(404, "text/plain") as (port, _), running(render({"/": 1}, fallback=port), tmp_path) as (url, _):
        deadline = time.monotonic() + 10
        while (response := requests.get(url, timeout=5)).status_code == 404 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (response.status_code, response.json()["detail"]["code"]) == (503, "UNAVAILABLE")


def test_a_path_without_an_app_is_unknown_for_good_in_json(render: Render, tmp_path: Path) -> None:
    with running(render({"/a": 1}), tmp_path) as (url, _):
        response = requests.get(f"{url}/b", timeout=5)
        assert (response.status_code, response.json()["detail"]["code"]) == (404, "NOT_FOUND")


def test_answers_of_the_app_pass_as_they_are(render: Render, tmp_path: Path) -> None:
    with stub(404, "text/plain") as (port, _), running(render({"/": port}), tmp_path) as (url, _):
        assert requests.get(url, timeout=5).status_code == 404


@pytest.mark.parametrize("size", [5_000, 600_000, 6_000_000])
def test_a_request_whose_endpoint_dies_is_answered(render: Render, tmp_path: Path, size: int) -> None:
    """Also one that HAProxy cannot send again, over a connection that was used before, and while it is being sent."""
    with mortal() as port, running(render({"/": port}), tmp_path) as (url, _), requests.Session() as session:
        for _ in range(2):
            assert session.post(f"{url}/lives", data=b"x" * size, timeout=5).status_code == 200
            answer = session.post(f"{url}/dies", data=b"x" * size, timeout=5)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert answer.json()["detail"]["code"] == "UNAVAILABLE"
            wait_until(lambda: session.post(f"{url}/lives", timeout=5).status_code == 200)


@contextmanager
def mortal() -> Iterator[int]:
    """A server that ends the connection when it is asked to, after a part of the body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            left = int(self.headers.get("Content-Length", "0"))
            if self.path == "/dies":
                self.rfile.read(left // 2)
                self.close_connection = True
                return
            self.rfile.read(left)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_methods_that_no_parser_knows_are_sent_on_as_one_that_no_route_has(render: Render, tmp_path: Path) -> None:
    with stub() as (port, seen), running(render({"/": port}), tmp_path) as (url, _):
        for method, passed in (("BREW", "TRACE"), ("get", "TRACE"), ("X" * 40, "TRACE"), ("GET", "GET")):
            request = requests.Request(method, url).prepare()
            request.method = method  # which Requests would have written in capitals
            with requests.Session() as session:
                assert session.send(request, timeout=5).status_code == 200
            assert [one for one in seen if "user-agent" in one][-1]["method"] == passed


def test_a_path_that_no_parser_takes_is_refused_in_json(render: Render, tmp_path: Path) -> None:
    with stub() as (port, _), running(render({"/": port}), tmp_path) as (url, _):
        assert requests.get(f"{url}/{'a' * 60_000}", timeout=5).status_code == 200
        answer = requests.get(f"{url}/{'a' * 66_000}", timeout=5)
        assert (answer.status_code, answer.json()["detail"]["code"]) == (414, "URI_TOO_LONG")


def test_clients_have_no_say_in_what_serve_does_with_their_requests(render: Render, tmp_path: Path) -> None:
    ours = {"x-request-disconnect-disabled": "?0", "X-Request-Timeout-Seconds": "0.001", haproxy.REPORT_HEADER: "mine"}
    with stub() as (port, seen), running(render({"/": port}), tmp_path) as (url, _):
        assert requests.get(url, headers=ours, timeout=5).status_code == 200
    [asked] = [one for one in seen if "user-agent" in one]
    assert asked["x-request-disconnect-disabled"] == "?1"
    assert asked[haproxy.REPORT_HEADER] == haproxy.COMPLETE
    assert "x-request-timeout-seconds" not in asked


def test_an_answer_has_one_request_id_and_never_one_that_was_refused(render: Render, tmp_path: Path) -> None:
    with stub() as (port, seen), running(render({"/": port}), tmp_path) as (url, _):
        for mine in ("mine-1", "a.b:c_D", "x" * 64):
            answer = requests.get(url, headers={"X-Request-Id": mine}, timeout=5)
            assert answer.raw.headers.getlist("X-Request-Id") == [mine]
        for odd in (None, "a b", "x" * 65, "a,b", "mine-1,mine-2", b"\xe9", "a;b"):
            answer = requests.get(url, headers={"X-Request-Id": odd}, timeout=5)
            [new] = answer.raw.headers.getlist("X-Request-Id")
            assert re.fullmatch("[0-9a-f-]{36}", new)
            assert [one for one in seen if "user-agent" in one][-1]["x-request-id"] == new


def test_of_two_request_ids_none_is_kept(render: Render, tmp_path: Path) -> None:
    with stub() as (port, _), running(render({"/": port}), tmp_path) as (url, _):
        with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)) as connection:
            connection.putrequest("GET", "/")
            for sent in ("mine-1", "a b"):
                connection.putheader("X-Request-Id", sent)
            connection.endheaders()
            new = connection.getresponse().headers.get_all("X-Request-Id")
        assert new is not None
        assert len(new) == 1
        assert new[0] not in ("mine-1", "a b", "none")


def test_an_operators_own_haproxy_is_wrapped(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text('#!/bin/sh\necho "own $@"\n')
    own.chmod(0o700)
    variables = haproxy.wrapped({haproxy.BINARY: str(own)}, tmp_path)
    assert variables[haproxy.WRAPPED_BINARY] == str(own)
    again = haproxy.wrapped(variables, tmp_path)
    assert haproxy.WRAPPED_BINARY not in again  # it stands in the environment already
    for one in (variables, variables | {haproxy.WRAPPED_BINARY: variables[haproxy.BINARY]}):
        done = subprocess.run(
            [one[haproxy.BINARY], "-v"], env=os.environ | one, capture_output=True, check=True, text=True
        )
        assert (done.stdout == "own -v\n") == (one is variables)


def test_a_directory_that_others_could_replace_is_refused(render: Render, tmp_path: Path) -> None:
    configuration = render()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs").chmod(0o777)
    shutil.move(configuration.parent, tmp_path / "theirs" / "node")
    moved = tmp_path / "theirs" / "node" / "haproxy.cfg"
    moved.write_text(moved.read_text().replace(str(tmp_path / "node"), str(moved.parent)))
    assert "others could steer HAProxy through it" in say_version(moved, tmp_path).stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells a process that its parent died")
def test_haproxy_ends_when_its_parent_is_killed(render: Render, tmp_path: Path) -> None:
    """As after a SIGKILL of the server, of which the actor that started HAProxy is a part."""
    configuration = render()
    script = haproxy.wrapped({}, tmp_path)[haproxy.BINARY]
    parent = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); input()"
    command = [sys.executable, "-c", parent, script, "-db", "-f", str(configuration), "-dR"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as actor:
        assert actor.stdout is not None
        process = psutil.Process(int(actor.stdout.readline()))
        wait_until((configuration.parent / "admin.sock").exists)
        actor.kill()
    wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
