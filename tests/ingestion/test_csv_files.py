"""CSV as bytes: blocks of whole records, and bad lines told from good ones, however it is cut."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion import csv_files
from ingestion.csv_files import IrregularError, open_csv, told_apart, whole_records
from ingestion.csv_usual import UnusualError, day_runs
from ingestion.errors import DeliveryError
from ingestion.sources.orders import ORDER_LOG, PRICE_LOG

CELL = st.text(alphabet='ab,"\n\r яй', max_size=6).filter(lambda cell: cell.strip("\r") == cell)
ROWS = st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=12)
NEEDED = "date_time,city_id,customer_id,item_id,quantity,payment_amount"


def cut(content: bytes, size: int) -> Iterator[bytes]:
    """The bytes in pieces."""
    return (content[at : at + size] for at in range(0, len(content), size))


def encoded(rows: list[list[str]], end: str) -> bytes:
    made = io.StringIO()
    csv.writer(made, quoting=csv.QUOTE_MINIMAL, lineterminator=end).writerows(rows)
    return made.getvalue().encode()


@settings(max_examples=150, deadline=None)
@given(ROWS, st.sampled_from(["\n", "\r\n"]), st.integers(1, 40))
def test_well_formed_files_pass_both_ways(rows: list[list[str]], end: str, size: int) -> None:
    content = encoded(rows, end)
    blocks = list(whole_records(cut(content, size)))
    assert b"".join(blocks) == content
    for block in blocks:
        assert block.count(b'"') % 2 == 0
        assert block.endswith(b"\n")
    records = list(told_apart("f", cut(content, size), 3))
    assert [record.problem for record in records] == [None] * len(rows)
    read = csv.reader(io.StringIO("\n".join(r.line.decode() for r in records), newline=""))
    assert list(read) == rows


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    "content",
    [
        b'a,12" nail,c\n',
        b'a,"b"c,d\n',
        b'a,"b" ,d\n',
        b'a,12" nail,c\nd,14" nail,f\n',  # to a lenient reader one record of three cells
        b'a,"b",c\na,b,c"\n',
        b'a,b,"c',
    ],
)
def test_a_stray_quote_is_seen_wherever_the_file_is_cut(content: bytes, size: int) -> None:
    with pytest.raises(IrregularError):
        list(whole_records(cut(content, size)))


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"a,b", "2 cells where the file has 3 columns"),
        (b"", "1 cells where the file has 3 columns"),
        (b'a,"b,b",c,d', "4 cells where the file has 3 columns"),
        (b'a,12" nail,c', "a quote that is neither around a cell nor doubled"),
        (b'a,"b" x,c', "a quote that is neither around a cell nor doubled"),
        (b'a,"never closed,c', "a quote that is neither around a cell nor doubled"),
        (b"a,b\0,c", "text with U+0000"),
        (b"a,b\xff,c", "text that is not UTF-8"),
    ],
)
def test_a_bad_line_takes_no_neighbour_with_it(line: bytes, problem: str, size: int) -> None:
    content = b'1,"x\ny",2\r\n' + line + b'\n3,"""q""",4\n5,6,7'
    records = list(told_apart("f", cut(content, size), 3))
    assert [(record.content, record.problem) for record in records] == [
        (b'1,"x\ny",2', None),
        (line, problem),
        (b'3,"""q""",4', None),
        (b"5,6,7", None),
    ]


def test_what_is_no_text_is_kept_in_base64() -> None:
    records = list(told_apart("f", [b"a,\xff\na,\0\na,b,c\n"], 2))
    assert [record.payload for record in records] == [
        ("YSz/", "base64"),
        ("YSwA", "base64"),
        ("a,b,c", "text"),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a,b,c\nd,e", "cut off in line 2"),
        (b'a,b,c\nd,"e', "a quote is open at the end, since line 2"),
        (b'a,b,c\nd,"e,f\ng,h,i\n', "a quote is open at the end, since line 2"),
    ],
)
def test_a_file_that_is_cut_off_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(DeliveryError, match=f"^f: {says}"):
        list(told_apart("f", [content], 3))


def test_a_quote_that_stays_open_costs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "LONGEST_RECORD", 1000)
    served = 0

    def endless() -> Iterator[bytes]:
        nonlocal served
        while True:
            served += 100
            yield b'a,"' if served == 100 else b"x" * 99 + b"\n"

    with pytest.raises(IrregularError):
        list(whole_records(endless()))
    served = 0
    with pytest.raises(DeliveryError, match="a quote is open"):
        list(told_apart("f", endless(), 3))
    assert served < 5000


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_the_header(size: int) -> None:
    content = f'\ufeffnew,"status",{NEEDED}\r\nrest\n'.encode()
    file = open_csv(ORDER_LOG, "f", cut(content, size))
    assert file.columns == ("new", "status", *NEEDED.split(","))
    assert file.unknown(ORDER_LOG.fields) == ["new"]
    assert b"".join(file.body) == b"rest\n"
    bare = open_csv(PRICE_LOG, "f", cut("\ufeffМолоко,1\n".encode(), size))
    assert bare.columns == ("item_name", "price")
    assert b"".join(bare.body) == "Молоко,1\n".encode()
    alone = open_csv(ORDER_LOG, "f", cut(NEEDED.encode(), size))
    assert list(alone.body) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no header"),
        (b"\n", "no header"),
        ("1,u-1,Ярославль\n".encode(), "no header"),
        (b"date_time,\xff\n", "no header"),
        (b"x" * 100_000, "no header"),
        (b"date_time,city_id,customer_id,quantity\n", "no column item_id, payment_amount; it has"),
        (f"{NEEDED},status,status\n".encode(), "status is in its header twice"),
    ],
)
def test_a_file_without_its_header_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(DeliveryError, match=f"^f: {says}"):
        open_csv(ORDER_LOG, "f", [content])


def test_unknown_columns_may_share_a_name() -> None:
    assert open_csv(ORDER_LOG, "f", [f"{NEEDED},x,x\n".encode()]).columns[-2:] == ("x", "x")


def test_random_bytes_end_in_records_or_a_refusal() -> None:
    chance = random.Random(4)
    for _ in range(300):
        content = bytes(chance.choices(b'ab,"\n\r\xff', k=chance.randrange(60)))
        try:
            records = list(told_apart("f", cut(content, 7), 2))
        except DeliveryError:
            continue
        # Nothing is lost: the records are the file, line ends aside.
        kept = b"".join(record.content for record in records)
        assert kept.translate(None, b"\r\n") == content.translate(None, b"\r\n")


def test_a_line_without_end_is_not_gathered() -> None:
    """It once was, in memory without a bound."""
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        for _ in range(200):
            read += 1 << 18
            yield b"x" * (1 << 18)

    with pytest.raises(DeliveryError, match=r"f: a line is longer than"):
        list(told_apart("f", endless(), 3))
    assert read <= csv_files.LONGEST_LINE + (1 << 19)
    read = 0
    runs = day_runs(ORDER_LOG, ("uniq_id", *NEEDED.split(",")))
    assert runs is not None
    with pytest.raises(UnusualError):
        list(runs.of(endless()))
    assert read <= csv_files.LONGEST_RECORD + (1 << 19)


@pytest.mark.parametrize("place", [0, 1 << 16, 1 << 20])
def test_a_long_line_with_an_end_is_a_record(place: int) -> None:
    """It was once refused with its file, where it lay across the chunks in a certain way."""
    content = b"a,b,%b\nd,e,%b\ng\n" % (b"x" * place, b"y" * ((1 << 20) + (1 << 16)))
    chunks = [content[n : n + (1 << 17)] for n in range(0, len(content), 1 << 17)]
    assert [(len(r.content), r.problem) for r in told_apart("f", chunks, 3)] == [
        (place + 4, None),
        ((1 << 20) + (1 << 16) + 4, None),
        (1, "1 cells where the file has 3 columns"),
    ]
