"""Load counts whatever happens to a request."""

from __future__ import annotations

import asyncio

from serve.load import DOCUMENTS_PER_LIST, closed_loop, make_lists, open_loop
from serve.private_ray import reserve_port
from tests.serve.conftest import StartServer


def test_all_pairs_are_different_and_the_same_each_time() -> None:
    lists = make_lists(20)
    pairs = [(one.query, document) for one in lists for document in one.documents]
    assert len(set(pairs)) == len(pairs) == 20 * DOCUMENTS_PER_LIST
    assert lists == make_lists(20)


def test_loops_count_every_answer(start_server: StartServer) -> None:
    server = start_server()
    lists = make_lists(4, documents=3)
    closed = asyncio.run(closed_loop(server.base_url, lists, clients=2, seconds=0.5))
    opened = asyncio.run(open_loop(server.base_url, lists, rate=20, seconds=0.5))
    assert closed.codes["200"] == len(closed.latencies) > 0
    assert opened.codes == {"200": 10}
    assert opened.figures(3)["pairs_per_second"] > 0


def test_a_server_that_is_not_there_is_counted_too() -> None:
    url = f"http://127.0.0.1:{reserve_port(18_000)}"
    load = asyncio.run(open_loop(url, make_lists(1), rate=10, seconds=0.3))
    assert sum(load.codes.values()) == 3
    assert load.latencies == []
