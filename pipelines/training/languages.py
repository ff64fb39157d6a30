"""Finds the directions in which a multilingual bi-encoder's vectors say in which language a text is.

Such vectors are nearest to those of other texts in their own language: asked in German, a list in five languages has
its German passages first, right or wrong. Most of that lies in few directions, which can be left out of a similarity:
those in which the mean vectors of languages differ most (Xie et al. 2022, "Discovering Low-rank Subspaces for
Language-agnostic Multilingual Representations").

Means are compared within a file alone, whose texts are of one kind in all of its languages. So what tells news from
manuals is no part of it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer

from ..errors import ModelRefusedError
from .similarity import means_of
from .vocabulary import files_that_match

COLUMNS = {"query": "query_lang", "positive": "doc_lang"}
"""The columns with texts, and those that say in which language these are."""
FEWEST, EACH = 20, 25
"""Texts of a language in a file: with fewer it is left aside, and more are not read."""

Languages = Mapping[str, Sequence[str]]
"""The texts of a file by their language."""


def texts_by_language(patterns: Sequence[str]) -> list[dict[str, list[str]]]:
    """The texts of each file that tells the languages of its columns and has several, in the order of their paths.

    Raises FileNotFoundError for patterns without files, and ValueError for a file that cannot be read.
    """
    files = []
    for path in files_that_match(patterns):
        try:
            names = pq.read_schema(path).names
            if not {*COLUMNS, *COLUMNS.values()} <= set(names):
                continue
            table = pq.read_table(path, columns=[*COLUMNS, *COLUMNS.values()])
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        found: dict[str, dict[str, None]] = {}  # a dict, as a set has no order
        for text_column, language_column in COLUMNS.items():
            rows = zip(table[text_column].to_pylist(), table[language_column].to_pylist(), strict=True)
            for text, language in rows:
                if text and language:
                    found.setdefault(language, {})[text] = None
        texts = {
            language: random.Random(0).sample(list(some), min(len(some), EACH))
            for language, some in sorted(found.items())
            if len(some) >= FEWEST
        }
        if len(texts) > 1:
            files.append(texts)
    return files


def language_directions(
    model: torch.nn.Module, tokenizer: Tokenizer, files: Sequence[Languages], count: int
) -> torch.Tensor:
    """The `count` directions in which the means of languages differ most: float32 [D, count], orthonormal.

    Raises ModelRefusedError where the files do not tell so many.
    """
    independent = sum(len(texts) - 1 for texts in files)  # of n languages n - 1 differences are
    if count > independent:
        raise ModelRefusedError(
            f"{count} directions of languages are wanted, and the texts tell {independent}: give files with `query`, "
            f"`query_lang`, `positive` and `doc_lang` in which {count + 1} languages or more have {FEWEST} texts each"
        )
    differences = []
    for texts in files:
        ids = [encoding.ids for some in texts.values() for encoding in tokenizer.encode_batch(list(some))]
        means = means_of(model, ids).split([len(some) for some in texts.values()])
        of_languages = torch.stack([one.mean(0) for one in means])
        differences.append(of_languages - of_languages.mean(0))
    directions: torch.Tensor = torch.linalg.svd(torch.cat(differences).double(), full_matrices=False).Vh
    return directions[:count].T.float().contiguous()
