"""Puts load on a server that speaks /v1/rerank and notes what its clients see; bounded in count and time."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from pipelines.records import CandidateList

WORDS = [
    "river",
    "stone",
    "market",
    "light",
    "engine",
    "paper",
    "window",
    "garden",
    "signal",
    "metal",
    "cloud",
    "animal",
    "letter",
    "number",
    "music",
    "winter",
]
DOCUMENTS_PER_LIST = 20
DOCUMENT_WORDS = 70
MAX_REQUESTS = 20_000
"""Most requests of one measurement, whatever else is asked for."""


@dataclass
class Load:
    """What clients saw."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """Seconds of the requests that were answered with 200."""
    codes: Counter[str] = field(default_factory=Counter)
    """Answers by status; an error's class where there was none."""

    def figures(self, pairs_per_request: int) -> dict[str, Any]:
        """p50 and p99 in milliseconds, requests and pairs per second, answers by status."""
        ordered = sorted(self.latencies) or [float("nan")]
        return {
            "p50_ms": round(statistics.median(ordered) * 1000, 2),
            "p99_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000, 2),
            "pairs_per_second": round(len(self.latencies) * pairs_per_request / self.seconds, 1),
            "answers": dict(self.codes),
        }


def make_lists(count: int, documents: int = DOCUMENTS_PER_LIST) -> list[CandidateList]:
    """Candidate lists of real words; all different, so that no pair is scored once for two lists."""

    def text(words: int, seed: int) -> str:
        return " ".join(WORDS[(seed * 7 + i * (1 + seed % 5)) % len(WORDS)] + str(seed % 97) for i in range(words))

    return [
        CandidateList(text(8, i), [text(DOCUMENT_WORDS // 2, 1000 * i + j) for j in range(documents)])
        for i in range(count)
    ]


async def send_request(session: aiohttp.ClientSession, url: str, one: CandidateList, load: Load) -> None:
    """Sends one request and notes its answer in `load`."""
    began = time.perf_counter()
    body = {"query": one.query, "documents": one.documents, "return_documents": False}
    try:
        async with session.post(f"{url}/v1/rerank", json=body) as response:
            await response.read()
            load.codes[str(response.status)] += 1
            if response.status == 200:
                load.latencies.append(time.perf_counter() - began)
    except (TimeoutError, aiohttp.ClientError) as error:
        load.codes[type(error).__name__] += 1


async def closed_loop(url: str, lists: Sequence[CandidateList], clients: int, seconds: float) -> Load:
    """Clients that ask again as soon as they are answered."""
    load = Load()
    began = time.perf_counter()

    async def client(first: int) -> None:
        for i in range(first, MAX_REQUESTS, clients):
            if time.perf_counter() - began > seconds:
                return
            await send_request(session, url, lists[i % len(lists)], load)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(120)) as session:
        await asyncio.gather(*(client(i) for i in range(clients)))
    load.seconds = time.perf_counter() - began
    return load


async def open_loop(url: str, lists: Sequence[CandidateList], rate: float, seconds: float) -> Load:
    """Requests at a fixed rate per second, whether or not earlier ones are answered."""
    load = Load()
    began = time.perf_counter()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(120)
    ) as session:
        asking = []
        for i in range(min(MAX_REQUESTS, int(rate * seconds))):
            await asyncio.sleep(max(0.0, began + i / rate - time.perf_counter()))
            asking.append(asyncio.create_task(send_request(session, url, lists[i % len(lists)], load)))
        await asyncio.gather(*asking)
    load.seconds = time.perf_counter() - began
    return load
