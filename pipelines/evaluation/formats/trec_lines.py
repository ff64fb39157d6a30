"""Judgements and runs, as TREC writes them and as BEIR does."""

from __future__ import annotations

from pathlib import Path

from .reading import Source
from .writing import NewSet

BEIR_HEADER = ("query-id", "query_id", "qid")


def read_qrels(source: Source, path: Path, new: NewSet) -> None:
    """Query id, iteration, document id and grade, with spaces or tabs between (https://trec.nist.gov/data/qrels_eng);
    or BEIR's query id, document id and grade under a header.
    """
    for place, line in source.lines(path):
        fields = line.split("\t") if "\t" in line else line.split()
        if place.line == 1 and fields[0] in BEIR_HEADER:
            continue
        if len(fields) in (3, 4):
            new.judge(place, fields[0], fields[-2], fields[-1])
        else:
            source.note(place.problem(f"has {len(fields)} fields; give query id, document id and grade"))


def read_run(source: Source, path: Path, new: NewSet) -> None:
    """Query id, `Q0`, document id, rank, score and the run's name, as trec_eval reads them, which ignores the rank.

    https://github.com/usnistgov/trec_eval/blob/main/README
    """
    for place, line in source.lines(path):
        fields = line.split()
        if len(fields) == 6:
            new.rank(place, fields[0], fields[2], fields[4])
        else:
            source.note(place.problem(f"has {len(fields)} fields, and a line of a run has 6"))
