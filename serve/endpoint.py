"""Endpoint: a process that speaks HTTP. Candidate lists in, rankings out; the weights are in the scorers.

What happens to a request on its way is here, in order: it is checked, tokenized, admitted, scored by a replica within
its deadline (by another one where the first died), and ranked. The JSON is in `schemas`, the routes are in `routes`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.util import metrics

from pipelines.calibration import Calibration
from pipelines.errors import CrossrayError
from pipelines.fingerprint import ServedModel
from pipelines.lengths import Lengths
from pipelines.packing import TokenPair, cut_by_size
from pipelines.pair_block import PairBlock
from pipelines.preparation import Preparation, TokenizedList
from pipelines.ranking import rank
from pipelines.records import Ranking, Usage
from serve.admission import Admission, Limits
from serve.auth import ApiKeys
from serve.bodies import BodyReader, Room
from serve.error_answers import not_ranked
from serve.errors import (
    DeadlineError,
    NoReplicaError,
    OtherModelError,
    PayloadTooLargeError,
    TooLongError,
    TooManyTokensError,
    UnavailableError,
    UnbrokenTextError,
    UncalibratedError,
    UnknownModelError,
    UnsupportedParameterError,
)
from serve.keys_file import KeysFile
from serve.lanes import Lane
from serve.pinning import check_pinned, files_on_this_node
from serve.recent import Recent
from serve.schemas.unsupported import NO_INSTRUCTIONS
from serve.scorer import SECOND_BOUNDS, Scored, Scorer
from serve.settings import ServeArgs
from serve.speed import LiveSpeeds
from serve.turns import Turns

if TYPE_CHECKING:
    from serve.schemas import RerankTask, TokenizeRequest

T = TypeVar("T")
logger = logging.getLogger("ray.serve.crossray")
"""A child of Serve's own logger, so that lines reach the log files that Serve keeps for each replica."""

BLOCK_TOKENS = 32_768
"""A larger request is sent in several blocks: to several replicas, and less is lost with one that dies."""
BODIES_HELD = 4
"""Bodies of the largest size that are held until they are answered, or many more smaller ones; and of which the texts
may wait to be tokenized."""
PAIR_TOKENS = 1 << 24
"""Of all pairs of a request, or more where its body may be so large: each takes 8 bytes, twice for a moment."""
BYTES_PER_PAIR_TOKEN = 2
"""Of the largest body: texts have some four for each token, and the query is repeated for each chunk."""
PAIR_WEIGHT = 32
"""Tokens that a pair counts for beside its own: it consists of two arrays, of which each is an object."""
TOKENIZE_CHARACTERS = 1 << 18
"""Of a request to `/tokenize`: each may become a token, and a token is 100 bytes of the answer."""
TOKENIZE_BYTES = 16 * TOKENIZE_CHARACTERS
"""Of the body of such a request: a character takes 12 of them at most, as two escapes."""
OBJECTS_WEIGHT = 20
"""A request to `/tokenize` counts as so many times its text: each of its tokens is an object for a while."""
UNBROKEN_CHARACTERS = 1_000_000
"""Of a text that the tokenizer takes in one piece: each takes 200 bytes of memory."""
READY_SECONDS = 5.0
"""Time in which a replica must answer for the app to be ready."""
NOT_THERE = (RayActorError, DeploymentUnavailableError)
"""What a call raises whose replica died, or whose deployment has failed or is being deleted."""


@dataclass(slots=True)
class Timings:
    """Seconds of one request by phase, for its headers."""

    tokenize: float = 0.0
    score: float = 0.0
    """Waiting in the lanes included."""


class Reading(NamedTuple):
    """What decides how the texts of a task become tokens."""

    max_query_length: int | None
    max_length: int | None
    overlap_tokens: int | None
    max_chunks_per_doc: int | None
    max_tokens_per_doc: int | None
    instruction: str | None


@dataclass(frozen=True, slots=True)
class TokenizedTask:
    """A task with its texts as ids."""

    task: RerankTask
    ids: TokenizedList
    calibration: Calibration | None
    """That of its scores; None also where it asks otherwise than scores are calibrated for."""


@dataclass(frozen=True, slots=True)
class PreparedTask:
    """A task whose pairs are made."""

    task: RerankTask
    chunks_per_document: list[int]
    usage: Usage
    calibration: Calibration | None


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """All that an answer is made of but the logits."""

    tasks: list[PreparedTask | CrossrayError]
    """An error stands in the place of the task that it ends."""
    blocks: list[PairBlock]
    """The pairs of all tasks, one after the other."""

    @property
    def tokens(self) -> int:
        """Tokens of all pairs."""
        return sum(len(block.input_ids) for block in self.blocks)

    @property
    def usage(self) -> Usage:
        """The sum of the tasks' usage."""
        return sum((one.usage for one in self.tasks if isinstance(one, PreparedTask)), Usage())


class Endpoint:
    """The deployment behind the routes."""

    def __init__(
        self,
        args: ServeArgs,
        keys: ApiKeys | None,
        scorer: DeploymentHandle[Scorer],
        files: str | None = None,
        calibration: Calibration | None = None,
        block_tokens: int = BLOCK_TOKENS,
    ) -> None:
        """Loads the tokenizer. `keys` are those that nobody watches; `args.api_keys_file` is read here, and watched.

        `calibration` is that of the replicas' model.

        Raises ModelError, also where the model's files do not have the SHA-256 `files`, and ConfigError for a file
        without keys: those that the app was deployed with may have been revoked since.
        """
        self.args = args
        self._keys = keys
        self.keys_file: KeysFile | None = None
        if args.api_keys_file is not None:
            self.keys_file = KeysFile(Path(args.api_keys_file), logger.warning)
            self.keys_file.watch()
        self.scorer = scorer
        self.calibration = calibration
        self.block_tokens = block_tokens
        self.preparation = Preparation.load(args.reranker())
        self.files = files_on_this_node(args.reranker())
        check_pinned(args.model, self.files, files)
        self.bodies = BodyReader(args.max_documents)
        self.room = Room(BODIES_HELD * args.max_body_bytes)
        self.turns = Turns(BODIES_HELD * args.max_body_bytes)
        self.pair_tokens = max(PAIR_TOKENS, args.max_body_bytes // BYTES_PER_PAIR_TOKEN)
        self.speeds = LiveSpeeds()
        self.first_speed = Recent(self._ask_first_speed, seconds=1.0)
        limits = Limits(args.max_wait_seconds, args.max_queued_tokens, args.max_documents)
        self.admission = Admission(limits, self._share_of_speed)
        self.description: ServedModel | None = None
        self.requests = metrics.Counter("crossray_requests", "Requests answered.", ("route", "code"))
        self.request_seconds = metrics.Histogram(
            "crossray_request_seconds",
            "Seconds from a request's first byte to its answer's last.",
            SECOND_BOUNDS,
            ("route",),
        )
        self.documents = metrics.Counter("crossray_documents", "Documents ranked.")
        self.tokens = metrics.Counter("crossray_tokens", "Tokens ranked, by the rule of `usage`.")
        self.extra_chunks = metrics.Counter("crossray_extra_chunks", "Chunks beyond the first of a document.")
        self.cut_texts = metrics.Counter("crossray_cut_texts", "Queries and documents that lost tokens.", ("what",))
        self.tokenize_seconds = metrics.Histogram("crossray_tokenize_seconds", "Seconds of tokenizing.", SECOND_BOUNDS)

    @property
    def keys(self) -> ApiKeys | None:
        """The keys that are let in now; None lets everybody in."""
        return self._keys if self.keys_file is None else self.keys_file.keys

    async def reload_keys(self) -> str:
        """Reads the keys' file now; returns what came of it, in words."""
        assert self.keys_file is not None  # who has no file does not ask
        return await asyncio.to_thread(self.keys_file.reload)

    async def rank(
        self, tasks: Sequence[RerankTask], lane: Lane = Lane.ONLINE, timings: Timings | None = None
    ) -> list[Ranking]:
        """The ranking of each task, all of one request. Raises AppError, and ConfigError for lengths.

        Where the lane is full, online requests are refused and bulk ones wait.
        """
        timings = timings or Timings()
        for task in tasks:
            self.check_model(task.model)
        prepared = await self._prepared(tasks, lane, timings)
        all_sound(prepared.tasks)
        return all_sound(await self._scored(prepared, lane, timings))

    async def rank_each(
        self,
        tasks: Sequence[RerankTask | CrossrayError],
        lane: Lane = Lane.ONLINE,
        timings: Timings | None = None,
    ) -> list[Ranking | CrossrayError]:
        """The same for tasks that do not stand or fall together: the error of one stands in its place.

        What is an error among `tasks` already stays where it is. Raises AppError for what concerns all of them.
        """
        timings = timings or Timings()
        return await self._scored(await self._prepared(tasks, lane, timings), lane, timings)

    async def _scored(self, prepared: PreparedRequest, lane: Lane, timings: Timings) -> list[Ranking | CrossrayError]:
        """The ranking of each task, or in its place the error that it is or that it ends with."""
        usage = prepared.usage
        if lane is Lane.BULK:
            await self.admission.room(lane)  # others may have filled it meanwhile
        with self.admission.admit(prepared.tokens, usage.pairs, lane):
            began = time.perf_counter()
            try:
                async with asyncio.timeout(self.args.deadline_seconds):
                    logits = await self._logits(prepared.blocks, lane)
            except TimeoutError:
                raise DeadlineError(self.args.deadline_seconds) from None
            timings.score = time.perf_counter() - began
        self._count(usage, timings)
        outcomes: list[Ranking | CrossrayError] = []
        start = 0
        for one in prepared.tasks:
            if isinstance(one, CrossrayError):
                outcomes.append(one)
                continue
            part, start = logits[start : start + one.usage.chunks], start + one.usage.chunks
            ranking = rank(
                one.task.candidates,
                part,
                one.chunks_per_document,
                one.usage,
                one.task.top_n,
                one.task.raw_scores,
                one.task.score_threshold,
                one.calibration,
            )
            outcomes.append(ranking if ranking.error is None else not_ranked(ranking.error))
        return outcomes

    async def tokenize(self, request: TokenizeRequest) -> bytes:
        """The answer, as JSON already: as objects it would take ten times the memory. Raises AppError."""
        self.check_model(request.model_name)
        if sum(map(len, request.texts)) > TOKENIZE_CHARACTERS:
            raise PayloadTooLargeError(TOKENIZE_CHARACTERS, "characters of text")
        async with self.turns.turn(OBJECTS_WEIGHT * sum(map(len, request.texts))) as threads:
            return await asyncio.get_running_loop().run_in_executor(threads, self._encoded, request)

    async def describe(self) -> ServedModel:
        """What the replicas run; raises UnavailableError when none answers."""
        if self.description is None:
            self.description = await self._asked()
        return self.description

    async def check_ready(self) -> None:
        """Raises UnavailableError unless a replica answers now."""
        await self._asked()

    async def _asked(self) -> ServedModel:
        try:
            async with asyncio.timeout(READY_SECONDS):
                described: ServedModel = await self.scorer.describe.remote()
        except (TimeoutError, *NOT_THERE):
            raise UnavailableError("no replica has loaded its model yet; try again in a few seconds") from None
        if described.fingerprint.files != self.files:
            raise OtherModelError(described.fingerprint.files, self.files)
        return described

    def check_model(self, model: str | None) -> None:
        """Raises UnknownModelError for the name of another model, where the server is strict."""
        if self.args.strict_model and model not in (None, self.args.name):
            raise UnknownModelError(model or "", [self.args.name])

    async def _prepared(
        self, tasks: Sequence[RerankTask | CrossrayError], lane: Lane, timings: Timings
    ) -> PreparedRequest:
        """The pairs of each task, made when it is its turn; raises AppError where there is no room for them."""
        documents = documents_of(tasks)
        if self.speeds.tokens_per_second() is None:
            await self.first_speed.get()
        if lane is Lane.BULK:
            await self.admission.room(lane)
        self.admission.check(documents, lane)
        async with self.turns.turn(characters_of(tasks), lane) as threads:
            if lane is Lane.ONLINE:
                self.admission.check(documents, lane)  # others may have been admitted meanwhile
            began = time.perf_counter()
            prepared = await asyncio.get_running_loop().run_in_executor(threads, self._prepare, tasks)
            timings.tokenize = time.perf_counter() - began
        return prepared

    async def _ask_first_speed(self) -> None:
        """Asks a replica how fast it is, before any has answered a request; the others are taken to be like it."""
        with suppress(TimeoutError, *NOT_THERE):
            async with asyncio.timeout(READY_SECONDS):
                speed = await self.scorer.tokens_per_second.remote()
            self.speeds.expect(None if speed is None else speed * self.args.min_replicas)

    def _share_of_speed(self) -> float | None:
        """Tokens per second for this endpoint, since HAProxy gives equally many requests to all of them."""
        speed = self.speeds.tokens_per_second()
        return None if speed is None else speed / self.args.endpoints

    def _encoded(self, request: TokenizeRequest) -> bytes:
        tokenizer = self.preparation.tokenizer.tokenizer
        encodings = tokenizer.encode_batch(request.texts, add_special_tokens=request.add_special_tokens is not False)
        answer = request.with_warnings(request.answer(encodings, self.preparation.lengths.max_length))
        return json.dumps(answer, ensure_ascii=False).encode()

    def _prepare(self, tasks: Sequence[RerankTask | CrossrayError]) -> PreparedRequest:
        """The pairs of each task, or what is wrong with it; raises TooManyTokensError before it makes the first."""
        tokenized = self._tokenized(tasks)
        self._check_pair_tokens([one.ids for one in tokenized if isinstance(one, TokenizedTask)])
        outcomes: list[PreparedTask | CrossrayError] = []
        pairs: list[TokenPair] = []
        for one in tokenized:
            if isinstance(one, CrossrayError):
                outcomes.append(one)
                continue
            made = one.ids.prepared()
            if not one.task.truncate and (made.usage.cut_queries or made.usage.cut_documents):
                outcomes.append(TooLongError(made.usage))
                continue
            outcomes.append(PreparedTask(one.task, made.chunks_per_document, made.usage, one.calibration))
            pairs += made.pairs
        return PreparedRequest(outcomes, blocks_of(pairs, self.block_tokens))

    def _tokenized(self, tasks: Sequence[RerankTask | CrossrayError]) -> list[TokenizedTask | CrossrayError]:
        """The ids of each task, or what is wrong with it; those that are read alike are tokenized together."""
        outcomes: dict[int, TokenizedTask | CrossrayError] = {}
        for place, task in enumerate(tasks):
            if isinstance(task, CrossrayError):
                outcomes[place] = task
        for places in by_reading(tasks):
            sound: dict[int, RerankTask] = {}
            for place in places:
                checked = self._checked(tasks[place])
                if isinstance(checked, CrossrayError):
                    outcomes[place] = checked
                else:
                    sound[place] = checked
            outcomes.update(zip(sound, self._tokenized_alike(list(sound.values())), strict=True))
        return [outcomes[place] for place in range(len(tasks))]

    def _tokenized_alike(self, tasks: Sequence[RerankTask]) -> list[TokenizedTask]:
        if not tasks:
            return []
        first = tasks[0]
        calibration = self._calibration_of(first)
        candidates = [task.candidates for task in tasks]
        tokenized = self.preparation.tokenized(
            candidates, self._lengths_of(first), first.max_tokens_per_doc, first.instruction
        )
        return [TokenizedTask(task, ids, calibration) for task, ids in zip(tasks, tokenized, strict=True)]

    def _check_pair_tokens(self, lists: Sequence[TokenizedList]) -> None:
        """Raises TooManyTokensError for more than all pairs of a request may have."""
        pairs, tokens = map(sum, zip((0, 0), *(one.size() for one in lists), strict=True))
        counted = tokens + PAIR_WEIGHT * pairs
        if counted > self.pair_tokens:
            raise TooManyTokensError(pairs, counted, self.pair_tokens)

    def _checked(self, task: RerankTask | CrossrayError) -> RerankTask | CrossrayError:
        """The task, or what is wrong with it that can be told before it is tokenized."""
        if isinstance(task, CrossrayError):
            return task
        try:
            self.check_model(task.model)
            self._check_instruction(task)
            self._lengths_of(task)
            self._check_threshold(task)
            self._check_pieces(task)
        except CrossrayError as error:
            return error
        return task

    def _check_instruction(self, task: RerankTask) -> None:
        """Raises UnsupportedParameterError for an instruction that the model would not read."""
        if task.instruction is not None and not self.preparation.takes_instructions:
            raise UnsupportedParameterError("instruction", NO_INSTRUCTIONS)

    def _lengths_of(self, task: RerankTask) -> Lengths:
        return self.preparation.lengths_of_call(
            task.max_query_length, task.max_length, task.overlap_tokens, task.max_chunks_per_doc, task.instruction
        )

    def _check_threshold(self, task: RerankTask) -> None:
        """Raises UncalibratedError for a threshold of scores that are not calibrated, unless that is allowed."""
        if task.score_threshold is None or task.allow_uncalibrated:
            return
        if self.calibration is None:
            raise UncalibratedError(f"the scores of {self.args.name} are not calibrated")
        if self._calibration_of(task) is None:
            raise UncalibratedError(f"the scores of {self.args.name} are calibrated for another instruction")

    def _calibration_of(self, task: RerankTask) -> Calibration | None:
        """The calibration, unless the request asks otherwise than it was fitted for."""
        return None if self.preparation.is_told_otherwise(task.instruction) else self.calibration

    def _check_pieces(self, task: RerankTask) -> None:
        """Raises UnbrokenTextError for a text that would take too much memory."""
        for text in (task.query, *task.documents):
            if len(text) > UNBROKEN_CHARACTERS:
                tokenizer = self.preparation.tokenizer
                longest = max(map(len, tokenizer.pieces(text)))
                if longest > UNBROKEN_CHARACTERS:
                    raise UnbrokenTextError(longest, UNBROKEN_CHARACTERS, tokenizer.cuts_at_spaces)

    async def _logits(self, blocks: Sequence[PairBlock], lane: Lane) -> np.ndarray:
        answers = [asyncio.ensure_future(self._ask(block, lane)) for block in blocks]
        try:
            return np.concatenate([np.empty(0, np.float32), *await asyncio.gather(*answers)])
        finally:
            for answer in answers:  # those that are not done: another one failed, or the caller is gone
                answer.cancel()

    async def _ask(self, block: PairBlock, lane: Lane) -> np.ndarray:
        """The logits of a block from one replica, or from another where that one dies: scoring has no side effects.

        Nor is one with other model files than ours of any use: its logits belong to other tokens.
        """
        failure: UnavailableError = NoReplicaError()
        for _ in range(2):
            response = self.scorer.logits.remote(block, lane)
            try:
                scored: Scored = await response
            except NOT_THERE:
                continue
            except asyncio.CancelledError:
                response.cancel()  # type: ignore[no-untyped-call]
                raise
            if scored.files == self.files:
                self.speeds.hear(scored.replica, scored.tokens_per_second)
                return scored.logits
            failure = OtherModelError(scored.files, self.files)
        raise failure

    def _count(self, usage: Usage, timings: Timings) -> None:
        self.tokenize_seconds.observe(timings.tokenize)
        for counter, value, tags in (
            (self.documents, usage.pairs, {}),
            (self.tokens, usage.tokens, {}),
            (self.extra_chunks, usage.chunks - usage.pairs, {}),
            (self.cut_texts, usage.cut_queries, {"what": "query"}),
            (self.cut_texts, usage.cut_documents, {"what": "document"}),
        ):
            if value > 0:  # Ray's counters refuse to count nothing
                counter.inc(value, tags)


def characters_of(tasks: Sequence[RerankTask | CrossrayError]) -> int:
    """Characters of all that is tokenized: each instruction once, however many tasks have it."""
    sound = [task for task in tasks if not isinstance(task, CrossrayError)]
    texts = sum(len(task.query) + sum(map(len, task.documents)) for task in sound)
    return texts + sum(map(len, {task.instruction for task in sound if task.instruction is not None}))


def documents_of(tasks: Sequence[RerankTask | CrossrayError]) -> int:
    """Documents of all tasks that may be ranked."""
    return sum(len(task.documents) for task in tasks if not isinstance(task, CrossrayError))


def reading_of(task: RerankTask) -> Reading:
    """How a task is read."""
    lengths = (task.max_query_length, task.max_length, task.overlap_tokens, task.max_chunks_per_doc)
    return Reading(*lengths, task.max_tokens_per_doc, task.instruction)


def by_reading(tasks: Sequence[RerankTask | CrossrayError]) -> list[list[int]]:
    """The places of the tasks that are read alike; those with the same instruction one after the other.

    So each is tokenized once, however few the preparation keeps.
    """
    places: dict[Reading, list[int]] = {}
    for place, task in enumerate(tasks):
        if not isinstance(task, CrossrayError):
            places.setdefault(reading_of(task), []).append(place)
    return [places[reading] for reading in sorted(places, key=lambda reading: reading.instruction or "")]


def all_sound(outcomes: Sequence[T | CrossrayError]) -> list[T]:
    """The outcomes themselves; raises the first error among them."""
    for one in outcomes:
        if isinstance(one, CrossrayError):
            raise one
    return [one for one in outcomes if not isinstance(one, CrossrayError)]


def blocks_of(pairs: Sequence[TokenPair], most_tokens: int) -> list[PairBlock]:
    """Neighbouring pairs in blocks of at most `most_tokens`; a longer pair is a block of its own."""
    ranges = cut_by_size((len(pair.input_ids) for pair in pairs), most_tokens)
    return [PairBlock.of(pairs[start:end]) for start, end in ranges]
