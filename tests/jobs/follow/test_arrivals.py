"""Which files a follower takes, and in which order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobs.follow.arrivals import Arrivals
from jobs.records import InputFile

POLL = 5.0
SIZES = st.lists(st.none() | st.integers(1, 3), min_size=1, max_size=12)
"""Of one file in one listing after the other; None where it is not there."""


def listing(size: int | None) -> list[InputFile]:
    return [] if size is None else [InputFile("/in/a.parquet", size, str(size))]


@given(SIZES)
def test_a_file_is_whole_once_two_listings_in_a_row_show_it_alike(sizes: list[int | None]) -> None:
    arrivals = Arrivals(settle_seconds=POLL)
    for poll, size in enumerate(sizes):
        arrivals.note(listing(size), now=poll * POLL)
        stood_still = size is not None and poll > 0 and sizes[poll - 1] == size
        assert arrivals.whole(poll * POLL, most=9) == (listing(size) if stood_still else [])


def test_an_object_is_whole_when_it_is_seen() -> None:
    arrivals = Arrivals(settle_seconds=0.0)
    arrivals.note(listing(1), now=0.0)
    assert arrivals.whole(0.0, most=9) == listing(1)


def test_the_files_that_are_known_longest_come_first() -> None:
    files = {name: InputFile(f"/in/{name}", 1, "1") for name in "abc"}
    arrivals = Arrivals(settle_seconds=POLL)
    arrivals.note([files["c"]], now=0.0)
    arrivals.note(files.values(), now=1.0)
    assert arrivals.whole(9.0, most=2) == [files["c"], files["a"]]


def test_a_file_is_known_from_its_first_byte_on() -> None:
    """Its lag counts from there, not from the last change."""
    arrivals = Arrivals(settle_seconds=POLL)
    arrivals.note(listing(1), now=3.0)
    arrivals.note(listing(2), now=8.0)
    assert arrivals.sightings["/in/a.parquet"].first_seen == 3.0
