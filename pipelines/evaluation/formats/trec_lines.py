"""Judgements and runs, as TREC writes them and as BEIR does."""

from __future__ import annotations

from pathlib import Path

from .reading import Source
from .writing import NewSet

BEIR_HEADER = ("query-id", "query_id", "qid")


def read_qrels(source: Source, path: Path, new: NewSet) -> None:
    """Query id, iteration, document id and grade, with spaces or tabs between (https://trec.nist.gov/data/qrels_eng);
    or BEIR's query id, document id and grade under a header, as `read_beirs` reads them.
    """
    if has_beirs_header(source, path):
        read_beirs(source, path, new)
        return
    for place, line in source.lines(path):
        fields = line.split("\t") if "\t" in line else line.split()
        if place.line == 1 and fields[0] in BEIR_HEADER:
            continue
        if len(fields) in (3, 4):
            new.judge(place, fields[0], fields[-2], fields[-1])
        else:
            source.note(place.problem(f"has {len(fields)} fields; give query id, document id and grade"))


def has_beirs_header(source: Source, path: Path) -> bool:
    """Whether the first line names the three columns of BEIR's table."""
    _, line = next(source.raw_lines(path), (None, b""))
    fields = line.decode("utf-8-sig", "replace").split("\t")
    return len(fields) == 3 and fields[0] in BEIR_HEADER


def read_beirs(source: Source, path: Path, new: NewSet) -> None:
    """As BEIR does, with the csv module: ids may stand in quotes, and of a judgement that comes again the last counts.

    https://github.com/beir-cellar/beir/blob/main/beir/datasets/data_loader.py, `_load_qrels`
    """
    for place, (query, document, grade) in source.table(path, 3):
        if place.line > 1:
            new.judge(place, query, document, grade, last_counts=True)


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
