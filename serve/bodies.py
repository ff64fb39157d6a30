"""Bodies -> requests: bounded before anything is made of them, and large ones beside the event loop.

How many bytes of large bodies are in memory at once is bounded here, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from pydantic import TypeAdapter

from serve.errors import OverloadedError, TooManyValuesError
from serve.schemas import MAX_DOCUMENTS, count_values, parse_json

LARGE_BYTES = 1 << 18
"""A body from this size on is dealt with beside the event loop. A smaller one takes it some milliseconds."""
VALUES_PER_DOCUMENT = 100
"""JSON values that a body may hold for each document that it may hold: a text and its metadata have far fewer.

Python's JSON reader holds all other threads up while it reads: a million values are a tenth of a second.
"""
FEWEST_VALUES = 10_000
"""JSON values that a body may hold however few its documents may be."""

RETRY_SECONDS = 5.0
"""When a request whose body found no room may come again."""

P = ParamSpec("P")
R = TypeVar("R")


class Room:
    """Room for large bodies; what has come of a body takes some of it, until its request is answered."""

    def __init__(self, size: int) -> None:
        """`size` is in bytes."""
        self.size = size
        self.taken = 0

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place for one body."""
        place = Place(self)
        try:
            yield place
        finally:
            self.taken -= place.taken


class Place:
    """The part of the room that a body takes; small ones take none, so that they never wait for large ones."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.taken = 0

    def expect(self, size: int) -> None:
        """Raises OverloadedError where there is no room now for a body of so many bytes; for a single one there is."""
        others = self._room.taken - self.taken
        if size > LARGE_BYTES and others and others + size > self._room.size:
            raise OverloadedError(RETRY_SECONDS)

    def grow(self, size: int) -> None:
        """Takes room for the bytes that the body has by now; raises as `expect` does."""
        self.expect(size)
        if size > LARGE_BYTES:
            self._room.taken += size - self.taken
            self.taken = size


class BodyReader:
    """Reads the bodies of one endpoint; large ones one after the other, in a thread of their own."""

    def __init__(self, max_documents: int) -> None:
        self.max_documents = max_documents
        self.max_values = max(FEWEST_VALUES, VALUES_PER_DOCUMENT * max_documents)
        self._large = ThreadPoolExecutor(1, "large-bodies")

    async def read(self, request: TypeAdapter[R], body: bytes) -> R:
        """The request in a body; raises TooManyValuesError, and ValidationError as the other two methods do."""
        # In one go: of many that come at once, values would all be there before the first of them is looked at.
        return await self._beside(len(body), lambda: self._validate(request, self._parse(body)))

    async def value(self, body: bytes) -> object:
        """The JSON value of a body; raises TooManyValuesError, and ValidationError where it is no JSON."""
        return await self._beside(len(body), self._parse, body)

    async def validated(self, request: TypeAdapter[R], value: object, size: int) -> R:
        """The request in the value of a body of `size` bytes; raises ValidationError, which names the fields."""
        return await self._beside(size, self._validate, request, value)

    def _validate(self, request: TypeAdapter[R], value: object) -> R:
        return request.validate_python(value, context={MAX_DOCUMENTS: self.max_documents})

    def _parse(self, body: bytes) -> object:
        if len(body) > LARGE_BYTES and count_values(body) > self.max_values:
            raise TooManyValuesError(self.max_values)
        return parse_json(body)

    async def _beside(self, size: int, work: Callable[P, R], *args: P.args, **settings: P.kwargs) -> R:
        """What `work` returns, which runs beside the event loop where it has to do with many bytes."""
        if size <= LARGE_BYTES:
            return work(*args, **settings)
        return await asyncio.get_running_loop().run_in_executor(self._large, lambda: work(*args, **settings))
