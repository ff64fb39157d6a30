"""What a job was asked for, as its manifest keeps it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import RefusedError
from jobs.input.conditions import parse_condition
from jobs.input.shards import parse_shard
from jobs.output.manifest import Manifest, check_same_job
from jobs.output.options import JobOptions
from jobs.records import InputFile
from jobs.settings import RerankSettings
from jobs.table.columns import ColumnMapping, GroupBy, Layout
from pipelines.config import RerankerConfig

NAMES = st.text(max_size=3)
CORPORA = st.none() | st.fixed_dictionaries({"path": NAMES, "bytes": st.integers(0)})


@st.composite
def options_of_jobs(draw: st.DrawFn) -> JobOptions:
    """Options as settings make them: files are grouped where groups are asked for, and ids are those of a corpus."""
    corpus, group_by = draw(CORPORA), draw(st.none() | st.builds(GroupBy, NAMES, st.none() | NAMES))
    mapping = st.builds(
        ColumnMapping,
        *[NAMES] * 8,
        drop=st.lists(NAMES, max_size=2).map(tuple),
        strict_documents=st.booleans(),
        by_id=st.just(corpus is not None),
    )
    files = st.lists(st.builds(InputFile, NAMES, st.integers(0), NAMES), max_size=2).map(tuple)
    return JobOptions(
        mapping=draw(mapping),
        layout=draw(st.sampled_from(Layout)),
        top_n=draw(st.none() | st.integers(1)),
        score_threshold=draw(st.none() | st.floats(0, 1)),
        raw_scores=draw(st.booleans()),
        limit=draw(st.none() | st.integers(1)),
        shard=draw(st.none() | NAMES),
        where=draw(st.lists(NAMES, max_size=2).map(tuple)),
        group_by=group_by,
        corpus=corpus,
        partitions=draw(st.dictionaries(NAMES, NAMES, max_size=2)),
        grouped_files=() if group_by is None else draw(files),
    )


OPTIONS = options_of_jobs()

ON_DISK: dict[str, Any] = {
    "query_id": "query_id",
    "query": "q",
    "documents": "documents",
    "text_field": "text",
    "id_field": "id",
    "document_id": "document_id",
    "document": "document",
    "output_prefix": "our_",
    "drop": ["padding"],
    "strict_documents": False,
    "layout": "lists",
    "top_n": 2,
    "raw_scores": True,
    "limit": 80,
    "shard": "1/2",
    "where": ["a = 1", "b != 2"],
    "group_by": {"column": "query_id", "rank_column": None},
    "corpus": None,
    "partitions": {"lang": "string"},
    "grouped_files": [["/in/a.parquet", 9853, "1795857237550722129"]],
}
"""Options of a manifest as it has always been written, in this order."""


@given(OPTIONS)
def test_options_come_back_from_disk_as_they_were(options: JobOptions) -> None:
    assert JobOptions.from_dict(json.loads(json.dumps(options.as_dict()))) == options


def test_options_are_on_disk_as_they_have_always_been() -> None:
    """What the settings ask for and what a manifest holds are the same, to the order of the keys."""
    asked = RerankSettings(
        "in",
        "out",
        mapping=ColumnMapping(query="q", output_prefix="our_", drop=("padding",)),
        top_n=2,
        reranker=RerankerConfig(raw_scores=True),
        limit=80,
        shard=parse_shard("1/2"),
        where=(parse_condition("b != 2"), parse_condition("a = 1")),
        group_by=GroupBy("query_id"),
    ).result_options(Layout.LISTS, {"lang": "string"})
    read = JobOptions.from_dict(ON_DISK)
    assert read.grouped_files == (InputFile("/in/a.parquet", 9853, "1795857237550722129"),)
    assert json.dumps(read.as_dict()) == json.dumps(ON_DISK)
    assert json.dumps(asked.as_dict()) == json.dumps(ON_DISK | {"grouped_files": []})


def test_what_an_earlier_version_did_not_write_is_what_it_did() -> None:
    earlier = {name: ON_DISK[name] for name in ("query", "drop", "layout", "top_n", "raw_scores")}
    mapping = ColumnMapping(query="q", drop=("padding",), strict_documents=True)
    assert JobOptions.from_dict(earlier) == JobOptions(mapping, Layout.LISTS, top_n=2, raw_scores=True)


def test_a_threshold_is_on_disk_where_there_is_one() -> None:
    """So that jobs without one have the options that they have always had."""
    asked = RerankSettings("in", "out", score_threshold=0.25).result_options(Layout.LISTS, {})
    without = RerankSettings("in", "out").result_options(Layout.LISTS, {})
    assert asked.as_dict() == without.as_dict() | {"score_threshold": 0.25}
    assert "score_threshold" not in without.as_dict()


def test_what_only_another_version_knows_is_refused_with_its_value() -> None:
    options = JobOptions.from_dict(ON_DISK)
    manifest = Manifest({}, JobOptions.from_dict(ON_DISK | {"fusion": 3}), 1, (), "", {})
    with pytest.raises(RefusedError, match="other settings: fusion was 3, is None; give the same settings"):
        check_same_job(manifest, {}, options)


@pytest.mark.parametrize(
    "changes", [{"layout": "rows"}, {"group_by": {"by": "x"}}, {"grouped_files": [["only a path"]]}]
)
def test_what_no_version_wrote_is_no_manifest(changes: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        JobOptions.from_dict(ON_DISK | changes)
