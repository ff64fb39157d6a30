"""TokenLists: candidate lists with labels and teacher scores as token ids in one compressed file; no texts, no model.

Each text is stored once, however many lists it stands in. torch and numpy suffice to train from the file.
"""

from __future__ import annotations

import zipfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

CORRUPT = (zipfile.BadZipFile, KeyError, ValueError, EOFError)


class TokenList(NamedTuple):
    """One list on its way into the file: texts as token ids without special tokens."""

    query: Sequence[int]
    passages: Sequence[Sequence[int]]
    labels: Sequence[float]
    """Grade of each passage, 0 for irrelevant, NaN for unknown."""
    teacher: Sequence[float]
    """Score that a teacher gave to each passage, on the teacher's own scale; NaN for none."""
    held_back: bool = False


class TokenListsError(ValueError):
    """A file or a list that cannot be trained from; the message says which and why."""


@dataclass(frozen=True, slots=True)
class TokenLists:
    """Lists laid end to end: list i owns the passages list_starts[i]:list_starts[i + 1]."""

    tokens: np.ndarray
    """uint16 [tokens of all texts]; uint32 where an id is too large."""
    text_starts: np.ndarray
    """int64 [texts + 1]: text t owns the tokens text_starts[t]:text_starts[t + 1]."""
    queries: np.ndarray
    """int32 [lists]: the text that each list asks for."""
    list_starts: np.ndarray
    """int64 [lists + 1]"""
    passages: np.ndarray
    """int32 [passages of all lists]: a text each."""
    labels: np.ndarray
    """float16 [passages of all lists]; NaN where unknown."""
    teacher: np.ndarray
    """float16 [passages of all lists]; NaN where no teacher scored."""
    held_back: np.ndarray
    """bool [lists]: not to be trained on, for validation and calibration."""

    def __len__(self) -> int:
        return len(self.queries)

    def text(self, number: int) -> np.ndarray:
        """The token ids of one text."""
        return self.tokens[self.text_starts[number] : self.text_starts[number + 1]]

    def measurable(self) -> np.ndarray:
        """Numbers of the held-back lists that tell how good an order is: those with a positive and another label."""
        return self._held_back_where(self.labels, lambda labels: labels.max() > 0 and labels.min() < labels.max())

    def taught(self) -> np.ndarray:
        """Numbers of the held-back lists that tell whether an order is the teacher's: it scored two apart at least."""
        return self._held_back_where(self.teacher, lambda scores: scores.min() < scores.max())

    def _held_back_where(self, values: np.ndarray, says_something: Callable[[np.ndarray], bool]) -> np.ndarray:
        """Numbers of the held-back lists whose known labels or scores say something, int64."""
        numbers = []
        for number in np.flatnonzero(self.held_back):
            of_list = np.asarray(values[self.list_starts[number] : self.list_starts[number + 1]], np.float32)
            known = of_list[~np.isnan(of_list)]
            if len(known) and says_something(known):
                numbers.append(number)
        return np.array(numbers, dtype=np.int64)

    def __iter__(self) -> Iterator[TokenList]:
        """The lists, as `of` takes them."""
        for i, query in enumerate(self.queries):
            of_list = slice(self.list_starts[i], self.list_starts[i + 1])
            yield TokenList(
                self.text(query).tolist(),
                [self.text(passage).tolist() for passage in self.passages[of_list]],
                self.labels[of_list].tolist(),
                self.teacher[of_list].tolist(),
                bool(self.held_back[i]),
            )

    @classmethod
    def of(cls, lists: Iterable[TokenList]) -> TokenLists:
        """Collects lists; equal texts are stored once.

        Raises TokenListsError for a list without passages, and for one whose labels or teacher scores are not one per
        passage.
        """
        numbers: dict[bytes, int] = {}  # by token ids, which as integers take nine times as much
        queries: list[int] = []
        passages: list[int] = []
        labels: list[float] = []
        teacher: list[float] = []
        held_back: list[bool] = []
        sizes: list[int] = []
        for i, one in enumerate(lists):
            if not len(one.passages) == len(one.labels) == len(one.teacher) > 0:
                raise TokenListsError(
                    f"list {i} has {len(one.passages)} passages, {len(one.labels)} labels and {len(one.teacher)} "
                    "teacher scores; give one of each for every passage, and at least one passage"
                )
            queries.append(numbers.setdefault(int64_bytes(one.query), len(numbers)))
            passages += [numbers.setdefault(int64_bytes(passage), len(numbers)) for passage in one.passages]
            labels += one.labels
            teacher += one.teacher
            held_back.append(one.held_back)
            sizes.append(len(one.passages))
        tokens = np.frombuffer(b"".join(numbers), dtype=np.int64)
        if tokens.size and tokens.min() < 0:
            raise TokenListsError(f"token id {tokens.min()} is below 0")
        fits = not tokens.size or tokens.max() <= np.iinfo(np.uint16).max
        return cls(
            tokens=tokens.astype(np.uint16 if fits else np.uint32),
            text_starts=starts_of([len(text) // 8 for text in numbers]),
            queries=np.array(queries, dtype=np.int32),
            list_starts=starts_of(sizes),
            passages=np.array(passages, dtype=np.int32),
            labels=np.array(labels, dtype=np.float16),
            teacher=np.array(teacher, dtype=np.float16),
            held_back=np.array(held_back, dtype=bool),
        )

    def save(self, file: Path | BinaryIO, compression: int = zipfile.ZIP_LZMA) -> None:
        """Writes one file, which `numpy.load` reads too; LZMA makes it half as large as savez_compressed's zlib."""
        with zipfile.ZipFile(file, "w", compression) as archive:
            for field in fields(self):
                with archive.open(f"{field.name}.npy", "w") as entry:
                    np.lib.format.write_array(entry, getattr(self, field.name), allow_pickle=False)

    @classmethod
    def load(cls, file: Path | BinaryIO) -> TokenLists:
        """Reads what `save` wrote; raises TokenListsError for another file. Nothing in it is unpickled."""
        try:
            with ExitStack() as opened:
                stream = opened.enter_context(file.open("rb")) if isinstance(file, Path) else file
                arrays = opened.enter_context(np.load(stream, allow_pickle=False))
                return cls(**{field.name: arrays[field.name] for field in fields(cls)})
        except CORRUPT as error:
            raise TokenListsError(f"{file} holds no token lists ({error}); make it again") from None


def int64_bytes(text: Sequence[int]) -> bytes:
    """Token ids as the bytes of an int64 array."""
    return array("q", text).tobytes()


def starts_of(sizes: Sequence[int]) -> np.ndarray:
    """Where each of several neighbours begins, and where the last one ends: int64 [len(sizes) + 1]."""
    starts = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=starts[1:])
    return starts
