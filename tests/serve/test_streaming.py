"""/v1/rerank/stream: answers while reading, one bad line costs one answer, a client that does not read is not read."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from pipelines.preparation import Preparation
from serve.errors import PayloadTooLargeError
from serve.lanes import Lane
from serve.streaming import DEFAULT_LIMITS, StreamLimits, answer_stream, lines_of
from tests.serve.conftest import Sizes, StartServer, duplex


def request(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": number, "query": "apple", "documents": ["bread", "apple", f"candle {number}"]} | fields


def test_an_answer_comes_before_the_next_line_is_sent(start_server: StartServer) -> None:
    with duplex(start_server()) as stream:
        for number in range(3):
            stream.send(request(number))
            answer = stream.read()
            assert answer is not None
            assert (answer["id"], answer["line"], len(answer["results"])) == (number, number + 1, 3)
        stream.end()
        assert stream.read() is None


def test_blank_lines_leave_others_their_turn(start_server: StartServer) -> None:
    endpoint = start_server().endpoint
    body = [{"type": "http.request", "body": b"\n" * 100_000, "more_body": False}]
    turns = 0

    async def receive() -> Any:
        return body.pop() if body else await asyncio.get_running_loop().create_future()

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def answers() -> list[bytes]:
        others = asyncio.create_task(other())
        try:
            return [line async for line in answer_stream(endpoint, receive, "id")]
        finally:
            others.cancel()

    assert asyncio.run(answers()) == []
    assert turns > 100


def test_every_line_is_answered_as_the_route_for_one_would(start_server: StartServer) -> None:
    """Many lines at once, in any order out; the last without a line end."""
    server = start_server()
    with duplex(server) as stream:
        stream.send(*(request(number) for number in range(100)))
        stream.send(b"\n  \n", json.dumps(request(100)).encode())
        stream.end()
        answers = {answer["id"]: answer for answer in iter(stream.read, None)}
    assert sorted(answers) == list(range(101))
    for number in (0, 57, 100):
        alone = server.post("/v1/rerank", request(number)).json()
        assert answers[number]["usage"] == alone["usage"]
        for ours, theirs in zip(answers[number]["results"], alone["results"], strict=True):
            assert ours["index"] == theirs["index"]
            assert ours["relevance_score"] == pytest.approx(theirs["relevance_score"], abs=1e-4)


def test_a_bad_line_is_answered_as_an_error_and_costs_no_other(start_server: StartServer) -> None:
    with duplex(start_server(max_body_bytes=2000)) as stream:
        stream.send(b"{not json\n", request(1), request(2, documents=[None]), b"\xff\n", b"[]\n")
        stream.send(request(3, query="x" * 3000), request(4))
        stream.end()
        answers = {answer["line"]: answer for answer in iter(stream.read, None)}
    statuses = {line: answer["error"]["status"] for line, answer in answers.items() if "error" in answer}
    assert statuses == {1: 400, 3: 422, 4: 400, 5: 422, 6: 413}
    assert answers[3]["id"] == 2
    assert {line for line in answers if "results" in answers[line]} == {2, 7}


def test_lines_wait_where_requests_would_be_refused(start_server: StartServer) -> None:
    """More text at once than may wait to be tokenized online."""
    with duplex(start_server(max_body_bytes=2000)) as stream:
        stream.send(*(request(number, documents=["bread " * 300]) for number in range(40)))
        stream.end()
        answers = list(iter(stream.read, None))
    assert len(answers) == 40
    assert all("results" in answer for answer in answers), answers


class Held:
    """A preparation that does not get on with the texts of a stream until it is told to."""

    def __init__(self, preparation: Preparation) -> None:
        self.preparation = preparation
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.preparation, name)

    def tokenized(self, lists: Any, *arguments: Any) -> Any:
        if lists[0].query == "stream":
            self.begun.set()
            assert self.go_on.wait(30)
        return self.preparation.tokenized(lists, *arguments)


def test_nobody_online_waits_while_lines_are_tokenized(start_server: StartServer) -> None:
    server = start_server()
    server.endpoint.preparation = held = Held(server.endpoint.preparation)  # type: ignore[assignment]
    with duplex(server) as stream:
        stream.send(*(request(number, query="stream") for number in range(10)))
        assert held.begun.wait(10)
        try:
            assert server.post("/v1/rerank", request(10)).status_code == 200
        finally:
            held.go_on.set()
        stream.end()
        assert len(list(iter(stream.read, None))) == 10


def test_lines_that_end_in_the_same_moment_make_room_for_the_next(start_server: StartServer) -> None:
    """A pass brings the scores of all lines in work at once, while the reader waits for one to end."""
    server = start_server()
    target = server.handle.target
    waiting: list[asyncio.Event] = []

    class AllAtOnce:
        async def logits(self, block: Any, lane: Lane) -> np.ndarray:
            logits: np.ndarray = await target.logits(block, lane)
            waiting.append(asyncio.Event())
            if len(waiting) == DEFAULT_LIMITS.lines_in_work:
                for one in waiting:
                    one.set()
                waiting.clear()
            else:
                await waiting[-1].wait()
            return logits

    server.handle.target = AllAtOnce()
    with duplex(server) as stream:
        stream.send(*(request(number) for number in range(3 * DEFAULT_LIMITS.lines_in_work)))
        stream.end()
        assert len(list(iter(stream.read, None))) == 3 * DEFAULT_LIMITS.lines_in_work


def test_lines_go_in_the_bulk_lane(start_server: StartServer) -> None:
    server = start_server()
    lanes: list[Lane] = []
    target = server.handle.target

    class Spy:
        async def logits(self, block: Any, lane: Lane) -> np.ndarray:
            lanes.append(lane)
            return await target.logits(block, lane)

    server.handle.target = Spy()
    with duplex(server) as stream:
        stream.send(request(1))
        stream.end()
        stream.read()
    assert lanes == [Lane.BULK]


def test_a_client_that_leaves_leaves_no_work_behind(start_server: StartServer) -> None:
    server = start_server()
    started, cancelled = threading.Event(), threading.Event()

    class Stalled:
        async def logits(self, block: Any, lane: Lane) -> np.ndarray:
            started.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise
            raise AssertionError

    server.handle.target = Stalled()
    with duplex(server) as stream:
        stream.send(request(1))
        assert started.wait(5)
    assert cancelled.wait(5)


def test_where_the_lane_is_full_lines_wait_and_none_is_refused(start_server: StartServer) -> None:
    """Room for one line at a time; an online request would be told to come again."""
    server = start_server(max_queued_tokens=1)
    with duplex(server) as stream:
        stream.send(*(request(number) for number in range(50)))
        stream.end()
        answers = list(iter(stream.read, None))
    assert sorted(answer["id"] for answer in answers if "results" in answer) == list(range(50))
    assert server.endpoint.admission.waiting_tokens(Lane.BULK) == 0


def test_a_line_of_the_answer_is_a_line_for_every_reader(start_server: StartServer) -> None:
    """Also for those who end lines at U+0085, U+2028 and U+2029, as str.splitlines does; what is echoed is the same."""
    document = "one\x85two\u2028three\u2029four"
    with duplex(start_server()) as stream:
        stream.send(request(1, documents=[document], id=document))
        stream.end()
        answer = stream.connection.getresponse().read().decode()
    assert len(answer.splitlines()) == 1
    assert json.loads(answer)["id"] == json.loads(answer)["results"][0]["document"]["text"] == document


def test_a_client_that_does_not_read_is_not_read_from(start_server: StartServer) -> None:
    """The answers that wait, the lines in work, and what is read ahead of them are bounded."""
    endpoint = start_server().endpoint
    limits = StreamLimits(lines_in_work=32, unread_bytes=2000, ahead_bytes=1000)
    sent: list[int] = []

    async def receive() -> dict[str, Any]:
        sent.append(len(sent))
        return {"type": "http.request", "body": json.dumps(request(len(sent))).encode() + b"\n", "more_body": True}

    async def read_one_answer() -> None:
        answers = answer_stream(endpoint, receive, "id", limits)
        await anext(answers)
        for _ in range(100):
            await asyncio.sleep(0.01)
        await answers.aclose()

    asyncio.run(read_one_answer())
    assert len(sent) <= 32 + 2000 // 200 + 1000 // 50 + 2


def test_long_lines_are_not_all_in_work_at_once(start_server: StartServer) -> None:
    """Two lines of 1,500 bytes are in work together, since 2,000 are not reached by the first alone; then one ends."""
    server = start_server(sizes=Sizes(stream=StreamLimits(bytes_in_work=2000)))
    target = server.handle.target
    now: list[int] = [0, 0]

    class Counted:
        async def logits(self, block: Any, lane: Lane) -> np.ndarray:
            now[0] += 1
            now[1] = max(now)
            await asyncio.sleep(0.05)
            now[0] -= 1
            return await target.logits(block, lane)

    server.handle.target = Counted()
    with duplex(server) as stream:
        stream.send(*(request(number, ignored="x" * 1500) for number in range(8)))
        stream.end()
        assert len(list(iter(stream.read, None))) == 8
    assert now[1] == 2


def test_a_silent_client_is_told_and_the_stream_ends(start_server: StartServer) -> None:
    with duplex(start_server(sizes=Sizes(stream=StreamLimits(silent_seconds=0.2)))) as stream:
        stream.send(request(1))
        answers = list(iter(stream.read, None))
    assert [answer.get("error", {}).get("status") for answer in answers] == [None, 408]


def test_a_line_that_comes_slowly_is_no_silence(start_server: StartServer) -> None:
    with duplex(start_server(sizes=Sizes(stream=StreamLimits(silent_seconds=0.5)))) as stream:
        line = json.dumps(request(1)).encode() + b"\n"
        for start in range(0, len(line), 10):
            stream.send(line[start : start + 10])
            time.sleep(0.1)
        answer = stream.read()
    assert answer is not None
    assert answer["id"] == 1


def test_a_long_wait_is_no_silence_and_what_fills_it_belongs_to_the_next_line(start_server: StartServer) -> None:
    """Spaces before the answer: proxies on the way see that the stream lives, readers of lines see a line."""
    server = start_server(sizes=Sizes(stream=StreamLimits(silent_seconds=0.2, pause_seconds=0.1)))
    target = server.handle.target

    class Slow:
        async def logits(self, block: Any, lane: Lane) -> np.ndarray:
            await asyncio.sleep(1)
            return await target.logits(block, lane)

    server.handle.target = Slow()
    with duplex(server) as stream:
        stream.send(request(1))
        stream.end()
        lines = stream.connection.getresponse().read().decode().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(" ")
    assert json.loads(lines[0])["id"] == 1


def test_a_client_that_leaves_is_noticed_though_much_of_its_body_waits(start_server: StartServer) -> None:
    """It has sent more than is read ahead, and its lines in work bring no answer."""
    server = start_server(sizes=Sizes(stream=StreamLimits(lines_in_work=1, ahead_bytes=1000, pause_seconds=0.1)))
    started, cancelled = threading.Event(), threading.Event()

    class Stalled:
        async def logits(self, block: Any, lane: Lane) -> np.ndarray:
            started.set()
            try:
                return await asyncio.sleep(60, np.empty(0))
            except asyncio.CancelledError:
                cancelled.set()
                raise

    server.handle.target = Stalled()
    with duplex(server) as stream:
        stream.send(*(request(number) for number in range(100)))
        assert started.wait(5)
    assert cancelled.wait(5)


async def in_chunks(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b"a\nb\nc"], ["a", "b", "c"]),
        ([b"a", b"b\n", b"c\n"], ["ab", "c"]),
        ([b"\n\n"], ["", ""]),
        ([b"123456\nok\n"], [None, "ok"]),
        ([b"1234", b"56", b"78\nok"], [None, "ok"]),
        ([b"123456"], [None]),
        ([], []),
    ],
)
def test_lines_are_cut_from_chunks_and_long_ones_refused(chunks: list[bytes], expected: list[str | None]) -> None:
    async def collect() -> list[bytes | PayloadTooLargeError]:
        return [line async for line in lines_of(in_chunks(chunks), limit=5)]

    lines = asyncio.run(collect())
    assert [line.decode() if isinstance(line, bytes) else None for line in lines] == expected
