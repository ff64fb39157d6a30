"""Many small readings at once."""

from __future__ import annotations

import pytest

from jobs.runtime.threads import in_threads, read_ahead


def test_results_come_in_the_order_of_the_items() -> None:
    assert in_threads(lambda number: number * number, range(100)) == [number * number for number in range(100)]
    assert list(read_ahead(str, range(10), 3)) == [str(number) for number in range(10)]
    assert in_threads(str, []) == list(read_ahead(str, [], 3)) == []


def test_what_one_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda number: 1 // number, [1, 0, 1])
    with pytest.raises(ZeroDivisionError):
        list(read_ahead(lambda number: 1 // number, [1, 0, 1], 2))


def test_no_more_is_read_than_so_much_ahead() -> None:
    read: list[int] = []
    results = read_ahead(read.append, range(10), 3)
    assert read == []
    for _ in range(3):
        next(results)
    assert sorted(read) == [0, 1, 2]
