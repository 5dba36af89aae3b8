"""The PostgreSQL sink: partitions, locks and readers. What every sink promises: test_sink.py."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest

from ingestion.errors import SinkError
from ingestion.s3 import S3, Version
from ingestion.sinks import DeliveredFile, Slot, _postgres_files, postgres
from ingestion.sources.orders import COPIES, FILE_TABLES, FILES, ORDER_LOG
from ingestion.sources.telemetry import EVENTS
from sandbox.postgres import postgres_server
from tests.ingestion.orders_scene import Shop, file_of, line, report, text_of
from tests.ingestion.scene import (
    DEC,
    PATIENCE_SECONDS,
    arrive,
    empty_load,
    noons,
    rows_by_day,
    sink_of,
    telemetry,
    wait_for,
)
from tests.support.vitrina import Vitrina

pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)

EMPTY_COPY = b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\xff\xff"


def waiting_for_locks(vitrina: Vitrina) -> int:
    found = vitrina.query("select count(*) as n from pg_locks where not granted")
    return int(found[0]["n"])


# --- partitions -------------------------------------------------------------------------------------


def leaves(vitrina: Vitrina) -> dict[str, str]:
    """The leaves of the events' table with their bounds, from the catalogue."""
    found = vitrina.query(
        "select inhrelid::regclass::text as leaf, pg_get_expr(relpartbound, inhrelid) as bound"
        " from pg_inherits join pg_class on pg_class.oid = inhrelid"
        " where inhparent = 'raw.telemetry_events'::regclass"
    )
    return {row["leaf"]: row["bound"] for row in found}


def test_mistake_t12_partitions_are_real(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(4, 5))
    for _ in range(2):
        telemetry(vitrina, DEC[6])
    assert leaves(vitrina) == {
        "raw_days.telemetry_events_20241204": "FOR VALUES IN ('2024-12-04')",
        "raw_days.telemetry_events_20241205": "FOR VALUES IN ('2024-12-05')",
    }
    tables = vitrina.query(
        "select relname from pg_class where relnamespace = 'raw_days'::regnamespace"
    )
    assert len(tables) == 2  # and nothing was left behind
    plan = vitrina.query("explain select * from raw.telemetry_events where ds = '2024-12-05'")
    text = "\n".join(row["QUERY PLAN"] for row in plan)
    assert "telemetry_events_20241205" in text
    assert "telemetry_events_20241204" not in text


def test_a_reader_is_not_blocked_while_a_day_streams_in(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(5))
    telemetry(vitrina, DEC[5])
    seen: list[int] = []

    def stream() -> Iterator[bytes]:
        yield EMPTY_COPY[:-2]
        with psycopg.connect(vitrina.outside.postgres.url(vitrina.outside.warehouse)) as reader:
            reader.execute("set statement_timeout = '3s'")
            for _ in range(2):
                rows = reader.execute("select * from raw.telemetry_events").fetchall()
                seen.append(len(rows))
        yield EMPTY_COPY[-2:]

    with sink_of(vitrina) as sink, sink.load("telemetry") as load:
        assert load.replace_day(EVENTS, DEC[5], stream(), None).rows == 0
        seen.append(rows_by_day(vitrina)[str(DEC[5])])  # nor between the stream and the end
        load.record(empty_load("telemetry"))
    assert seen == [1, 1, 1]
    assert rows_by_day(vitrina) == {}


# --- side by side -----------------------------------------------------------------------------------


def test_load_numbers_grow_in_the_order_of_the_commits(vitrina: Vitrina) -> None:
    """Sources of different names don't wait for each other until they write the ledger."""
    recorded, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        with sink_of(vitrina) as sink, sink.load("slow") as load:
            load.record(empty_load("slow"))
            recorded.set()
            assert go_on.wait(PATIENCE_SECONDS)

    def quick() -> None:
        with sink_of(vitrina) as sink, sink.load("quick") as load:
            load.record(empty_load("quick"))

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(slow)
        assert recorded.wait(PATIENCE_SECONDS)
        second = pool.submit(quick)
        wait_for(lambda: waiting_for_locks(vitrina) == 1)
        # The one that has its number is not committed: nobody may see a greater one.
        assert vitrina.query("select * from raw.loads") == []
        go_on.set()
        first.result(PATIENCE_SECONDS)
        second.result(PATIENCE_SECONDS)
    rows = vitrina.query("select source from raw.loads order by load_id")
    assert [row["source"] for row in rows] == ["slow", "quick"]


# --- more days than locks ---------------------------------------------------------------------------


def test_a_load_of_many_days_sets_old_leaves_aside(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are dropped when it has been committed, with what a killed one has left."""
    leaves = "select relname from pg_class where relnamespace = 'raw_days'::regnamespace and relkind = 'r'"
    monkeypatch.setattr(postgres, "MANY_DAYS", 3)
    shop.deliver(report(3, 8, file_of(*(line(f"a{d}", f"2024-12-0{d}") for d in range(3, 9)))))
    shop.land_report()
    shop.vitrina.query("create table raw_days.user_order_log_20240101__old_1 ()")
    shop.deliver(report(3, 8, file_of(*(line(f"b{d}", f"2024-12-0{d}") for d in range(3, 8))), 2))
    shop.land_report()
    assert [(row["order_id"], row["ds"]) for row in shop.rows()] == [
        (f"b{day}", DEC[day]) for day in range(3, 8)
    ]
    assert {row["relname"] for row in shop.vitrina.query(leaves)} == {
        f"user_order_log_2024120{day}" for day in range(3, 8)
    }


def test_a_report_that_lands_beside_a_reader_is_no_deadlock(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model's query locks the lines first, then the copies; a bulk load once had them the other way."""
    monkeypatch.setattr(_postgres_files, "MANY_COPIES", 1)
    shop.deliver(report(3, 4, file_of(line("a", "2024-12-03"))))
    shop.land_report()
    shop.deliver(report(3, 4, file_of(line("b", "2024-12-03"), line("c", "2024-12-04")), 2))
    world = shop.vitrina.outside
    with (
        psycopg.connect(world.postgres.url(world.warehouse)) as reader,
        ThreadPoolExecutor() as pool,
    ):
        reader.execute("select from raw.user_order_log")
        landing = pool.submit(shop.land_report)
        wait_for(lambda: waiting_for_locks(shop.vitrina) > 0)
        reader.execute("set local lock_timeout = '5s'")
        assert reader.execute("select count(*) from raw.order_copies").fetchone() == (1,)
        reader.commit()
        landing.result(PATIENCE_SECONDS)
    assert {row["order_id"] for row in shop.rows()} == {"b", "c"}
    assert {row["order_id"] for row in shop.vitrina.query("table raw.order_copies")} == {"b", "c"}
    # As when it has them alone: without statistics an index is not always used.
    (known,) = shop.vitrina.query(
        "select reltuples::int as n from pg_class where oid = 'raw.order_copies'::regclass"
    )
    assert known == {"n": 2}


def test_readers_do_not_wait_while_the_other_files_are_read(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bulk load locks the lines; it once did so before it read what else is in the delivery."""
    monkeypatch.setattr(_postgres_files, "MANY_COPIES", 1)
    world = shop.vitrina.outside
    read, seen = S3.read, []

    def watched(s3: S3, url: str, version: Version) -> Iterator[bytes]:
        with psycopg.connect(world.postgres.url(world.warehouse)) as reader:
            reader.execute("set lock_timeout = '1s'")
            reader.execute("select from raw.user_order_log, raw.order_copies")
        seen.append(url)
        return read(s3, url, version)

    monkeypatch.setattr(S3, "read", watched)
    files = {**file_of(line("a", "2024-12-03")), "price_log": "Ручка,10".encode()}
    shop.deliver(report(3, 4, files))
    shop.land_report()
    assert len(seen) >= len(files)


def test_more_days_than_there_are_locks_is_told(vitrina: Vitrina) -> None:
    """In PostgreSQL's words, with the setting to change; nothing of it is landed."""
    del vitrina
    lines = (line(f"u-{n}", str(date(2020, 1, 1) + timedelta(n))) for n in range(1500))
    content = text_of(list(lines)).encode()
    file = DeliveredFile("r-1", "s3://b/f", "e", len(content), lambda: iter([content]))
    few = {"max_connections": "10", "max_locks_per_transaction": "10"}
    with (
        postgres_server(settings=few) as small,
        psycopg.connect(small.url(small.create_database("few")), autocommit=True) as made,
    ):
        sink = postgres.PostgresSink(made)
        sink.init((*FILE_TABLES, COPIES, FILES))
        with (
            pytest.raises(SinkError, match=r"nothing of it was landed(.|\n)*locks_per_transaction"),
            sink.load("orders") as load,
        ):
            load.replace_slot(ORDER_LOG, Slot("report"), file, ZoneInfo("Europe/Moscow"))
        assert made.execute("select count(*) from raw.user_order_log").fetchone() == (0,)
        left = "select count(*) from pg_class where relnamespace = 'raw_days'::regnamespace"
        assert made.execute(left).fetchone() == (0,)
