"""What scoring cost adds up."""

from __future__ import annotations

from pipelines.records import Usage


def test_usage_adds_field_by_field() -> None:
    one = Usage(tokens=10, pairs=2, chunks=3, cut_queries=1, cut_documents=0)
    other = Usage(tokens=5, pairs=1, chunks=1, cut_queries=0, cut_documents=1)

    assert one + other == Usage(tokens=15, pairs=3, chunks=4, cut_queries=1, cut_documents=1)


def test_the_usage_of_nothing_is_neutral() -> None:
    one = Usage(tokens=10, pairs=2, chunks=3, cut_queries=1, cut_documents=2)

    assert sum([one], Usage()) == one
