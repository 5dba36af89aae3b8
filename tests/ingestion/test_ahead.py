"""Items made ahead of their reader: the same ones, and nobody is left behind."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator

import pytest

from ingestion.ahead import made_ahead


def test_the_same_items_in_the_same_order() -> None:
    assert list(made_ahead((n for n in range(1000)), 3)) == list(range(1000))
    assert list(made_ahead((n for n in range(0)), 3)) == []


def test_what_the_maker_raises_comes_after_its_items() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("cut short")

    for count in (1, 5):
        read = made_ahead((n for n in broken()), count)
        assert [next(read), next(read)] == [1, 2]
        with pytest.raises(OSError, match="cut short"):
            next(read)


@pytest.mark.parametrize("count", [1, 4])
def test_a_reader_that_leaves_closes_the_maker(count: int) -> None:
    closed = threading.Event()

    def endless() -> Generator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = threading.active_count()
    read = made_ahead(endless(), count)
    assert next(read) == 1
    read.close()
    assert closed.is_set()
    assert threading.active_count() == before


def test_so_many_are_made_and_no_more() -> None:
    made: list[int] = []
    several = threading.Event()

    def counted() -> Generator[int]:
        for number in range(100):
            made.append(number)
            if number == 4:
                several.set()
            yield number

    read = made_ahead(counted(), 3)
    assert next(read) == 0
    # One is read, three wait, and one is in the maker's hand.
    assert several.wait(10)
    assert len(made) <= 5
    read.close()
