"""The benchmark's parts; its figures are for idle machines, by hand."""

from __future__ import annotations

import asyncio

import pytest
from typer.testing import CliRunner

from serve import benchmark
from tests.serve.conftest import StartServer


def test_all_pairs_are_different_and_the_same_each_time() -> None:
    lists = benchmark.make_lists(20)
    pairs = [(one.query, document) for one in lists for document in one.documents]
    assert len(set(pairs)) == len(pairs) == 20 * benchmark.DOCUMENTS_PER_LIST
    assert lists == benchmark.make_lists(20)


def test_loops_count_every_answer(start_server: StartServer) -> None:
    server = start_server()
    lists = benchmark.make_lists(4, documents=3)
    closed = asyncio.run(benchmark.closed_loop(server.base_url, lists, clients=2, seconds=0.5))
    opened = asyncio.run(benchmark.open_loop(server.base_url, lists, rate=20, seconds=0.5))
    assert closed.codes["200"] == len(closed.latencies) > 0
    assert opened.codes == {"200": 10}
    assert opened.figures(3)["pairs_per_second"] > 0


def test_a_server_that_is_not_there_is_counted_too() -> None:
    url = f"http://127.0.0.1:{benchmark.free_port()}"
    load = asyncio.run(benchmark.open_loop(url, benchmark.make_lists(1), rate=10, seconds=0.3))
    assert sum(load.codes.values()) == 3
    assert load.latencies == []


@pytest.mark.parametrize("url", ["http://example.org", "http://10.0.0.1:8000"])
def test_no_other_machine_is_loaded(url: str) -> None:
    result = CliRunner().invoke(benchmark.app, ["load", url])
    assert result.exit_code == 2
    assert "only servers on this machine" in result.output
