"""One page of the pages of all nodes: only what is ours, each family once, whatever an agent says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from serve.metrics_page import merge, page_of_agent

NODE = """# HELP ray_crossray_tokens Tokens ranked.
# TYPE ray_crossray_tokens counter
ray_crossray_tokens{{WorkerId="{0}"}} 5.0
# HELP ray_object_store_memory Not ours.
# TYPE ray_object_store_memory gauge
ray_object_store_memory{{a="b"}} 1.0
# HELP ray_crossray_seconds Time.
# TYPE ray_crossray_seconds histogram
ray_crossray_seconds_bucket{{le="1",WorkerId="{0}"}} 1
ray_crossray_seconds_count{{WorkerId="{0}"}} 1
"""


def test_families_of_several_nodes_stand_once_with_all_their_samples() -> None:
    page = merge([NODE.format("x"), "", NODE.format("y")])
    assert page.splitlines() == [
        "# HELP crossray_tokens Tokens ranked.",
        "# TYPE crossray_tokens counter",
        'crossray_tokens{WorkerId="x"} 5.0',
        'crossray_tokens{WorkerId="y"} 5.0',
        "# HELP crossray_seconds Time.",
        "# TYPE crossray_seconds histogram",
        'crossray_seconds_bucket{le="1",WorkerId="x"} 1',
        'crossray_seconds_count{WorkerId="x"} 1',
        'crossray_seconds_bucket{le="1",WorkerId="y"} 1',
        'crossray_seconds_count{WorkerId="y"} 1',
    ]


def test_nothing_counted_is_an_empty_page() -> None:
    assert merge(["", ""]) == ""


@pytest.mark.parametrize(
    "odd",
    [
        "# EOF",
        "#",
        "# HELP",
        "# TYPE ray_crossray_odd",
        'ray_crossray_tokens{WorkerId="z"}',
        'ray_crossray_tokens{WorkerId="z"} five',
        "ray_crossray_of_no_family 1.0",
        "\x00\ufffd",
        "<html>",
    ],
)
def test_an_odd_line_costs_itself_alone(odd: str) -> None:
    lines = NODE.format("x").splitlines()
    for place in range(len(lines) + 1):
        assert merge(["\n".join([*lines[:place], odd, *lines[place:]])]) == merge([NODE.format("x")])


@contextmanager
def agent(answer: bytes) -> Iterator[str]:
    """A server that says this to one request and hangs up; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    ],
    ids=repr,
)
def test_an_agent_without_a_whole_page_is_left_out(answer: bytes) -> None:
    with agent(answer) as address:
        assert page_of_agent(address) == ""


def test_nodes_are_not_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    page = NODE.format("x").encode() + b"\xff"
    with agent(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page)) as address:
        assert page_of_agent(address) == NODE.format("x") + "\ufffd"
