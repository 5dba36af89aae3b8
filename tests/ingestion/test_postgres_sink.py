"""The PostgreSQL sink: what a load leaves when it ends, when it is killed, and beside another one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from ingestion.days import DayRanges
from ingestion.errors import SinkError
from ingestion.ledger import LoadRecord
from ingestion.sources.crm import CLIENTS
from ingestion.sources.telemetry import EVENTS
from ingestion.tables import Column, Kind, RawTable
from sandbox.dbt import Project
from sandbox.outside import Outside
from tests.ingestion.scene import (
    DEC,
    arrive,
    client,
    december,
    event,
    having,
    noons,
    rows_by_day,
    sink_of,
    telemetry,
)
from tests.support.vitrina import Vitrina

PATIENCE_SECONDS = 20.0
CATALOGUE = (
    "select table_schema, table_name, column_name, data_type, is_nullable"
    " from information_schema.columns where table_schema in"
    " ('raw', 'raw_days', 'staging', 'ods', 'core', 'marts') order by 1, 2, ordinal_position"
)
EMPTY_COPY = b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\xff\xff"


def empty_load(source: str) -> LoadRecord:
    return LoadRecord(source, None, 0, 0, DayRanges(), started_at=datetime.now(UTC))


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def waiting_for_locks(vitrina: Vitrina) -> int:
    found = vitrina.query("select count(*) as n from pg_locks where not granted")
    return int(found[0]["n"])


# --- init -------------------------------------------------------------------------------------------


@pytest.fixture
def bare(sources: Outside, project: Project) -> Vitrina:
    """A Vitrina before `init`."""
    return Vitrina(sources, project)


def test_before_init_the_message_says_what_to_do(bare: Vitrina) -> None:
    for arguments in (("crm",), ("telemetry", "--date", "2024-12-05"), ("status",)):
        answer = bare.run(*arguments)
        assert answer.status == 1
        assert "python -m ingestion init" in answer.log


def test_init_again_changes_nothing(vitrina: Vitrina) -> None:
    before = vitrina.query(CATALOGUE)
    assert {row["table_schema"] for row in before} == {"raw"}
    arrive(vitrina, noons(5))
    telemetry(vitrina, DEC[5])
    vitrina.ingest("init")
    assert [row for row in vitrina.query(CATALOGUE) if row["table_schema"] == "raw"] == before
    assert rows_by_day(vitrina) == {str(DEC[5]): 1}


def test_init_by_several_at_once(bare: Vitrina) -> None:
    tables: list[RawTable] = [EVENTS, CLIENTS]
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        sinks = [stack.enter_context(sink_of(bare)) for _ in range(4)]
        for done in [pool.submit(sink.init, tables) for sink in sinks]:
            done.result(PATIENCE_SECONDS)
    versions = bare.query("select version from raw.schema_versions")
    assert [row["version"] for row in versions] == [1]


def test_init_adds_new_columns(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(5))
    telemetry(vitrina, DEC[5])
    more = [
        replace(table, columns=(*table.columns, Column("extra", Kind.BIGINT)))
        for table in (EVENTS, CLIENTS)
    ]
    with sink_of(vitrina) as sink:
        for _ in range(2):
            sink.init(more)
    found = [row for row in vitrina.query(CATALOGUE) if row["column_name"] == "extra"]
    where = [(row["table_schema"], row["table_name"], row["data_type"]) for row in found]
    assert where == [
        ("raw", "crm_clients", "bigint"),
        ("raw", "telemetry_events", "bigint"),
        ("raw_days", "telemetry_events_20241205", "bigint"),
    ]
    telemetry(vitrina, DEC[6])  # an older Vitrina goes on landing into it
    assert rows_by_day(vitrina) == {str(DEC[5]): 1}


def test_init_refuses_a_column_of_another_type(vitrina: Vitrina) -> None:
    other = replace(EVENTS, columns=(Column("event_ts", Kind.TEXT),))
    before = vitrina.query(CATALOGUE)
    with (
        sink_of(vitrina) as sink,
        pytest.raises(SinkError, match=r"event_ts is timestamp .*text is"),
    ):
        sink.init([other])
    assert vitrina.query(CATALOGUE) == before


def test_init_refuses_what_a_newer_vitrina_made(vitrina: Vitrina) -> None:
    vitrina.query("insert into raw.schema_versions values (99)")
    answer = vitrina.run("init")
    assert answer.status == 1
    assert "version 99" in answer.log


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


# --- crashes ----------------------------------------------------------------------------------------

# Runs a command and kills itself, as kill -9 does, when it gets to the moment.
DOOMED = """
import os, signal, sys
from ingestion.cli import main
from ingestion.sinks.postgres import PostgresLoad, PostgresSink
from ingestion.sources.telemetry import TelemetryDatabase

moment, *arguments = sys.argv[1:]

def die(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def then_die(done):
    return lambda *args, **kwargs: die(done(*args, **kwargs))

def first_chunk_then_die(done):
    def events(*args, **kwargs):
        for chunk in done(*args, **kwargs):
            yield chunk[: len(chunk) // 2]
            die()
    return events

match moment:
    case "in the stream":
        TelemetryDatabase.events = first_chunk_then_die(TelemetryDatabase.events)
    case "after the rows":
        PostgresLoad.quarantine = die
    case "after the versions":
        PostgresLoad.append_versions = then_die(PostgresLoad.append_versions)
    case "before the ledger":
        PostgresLoad.record = die
    case "before the commit":
        PostgresLoad.record = then_die(PostgresLoad.record)
    case "after the commit":
        PostgresSink.close = die
main(arguments)
"""


def killed(vitrina: Vitrina, moment: str, *arguments: str) -> None:
    process = vitrina.process("-c", DOOMED, moment, *arguments)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == -signal.SIGKILL, output


def test_a_killed_telemetry_load_leaves_the_old_days(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(4, 5))
    telemetry(vitrina, DEC[5])
    arrive(vitrina, [event("2024-12-05T13:00:00", "new"), *noons(6)])
    loads = vitrina.query("select * from raw.loads")
    old = vitrina.query("select * from raw.telemetry_events")
    for moment in ("in the stream", "after the rows", "before the ledger", "before the commit"):
        killed(vitrina, moment, "telemetry", "--date", "2024-12-06")
        assert vitrina.query("select * from raw.telemetry_events") == old, moment
        assert vitrina.query("select * from raw.loads") == loads, moment
    answer = telemetry(vitrina, DEC[6])
    assert answer["days_changed"] == december(5, 6)
    assert rows_by_day(vitrina) == dict(zip(december(4, 5, 6), (1, 2, 1), strict=True))
    assert len(leaves(vitrina)) == 3
    left = vitrina.query("select relname from pg_class where relname like '%\\_\\_new'")
    assert left == []


def test_a_load_killed_after_the_commit_is_landed(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(5))
    killed(vitrina, "after the commit", "telemetry", "--date", "2024-12-05")
    assert rows_by_day(vitrina) == {str(DEC[5]): 1}
    assert vitrina.ingest("plan", "telemetry")["days"] == december(5)
    assert telemetry(vitrina, DEC[5])["days_changed"] == []


def test_a_killed_crm_load_leaves_the_old_versions_and_the_watermark(vitrina: Vitrina) -> None:
    crm = vitrina.outside.crm
    crm.serve([client("c-1")])
    vitrina.ingest("crm")
    crm.serve([client("c-2"), client(None)])
    for moment in ("after the versions", "before the commit"):
        killed(vitrina, moment, "crm")
        assert len(vitrina.query("select * from raw.crm_clients")) == 1, moment
        assert len(vitrina.query("select * from raw.loads")) == 1, moment
        assert vitrina.query("select * from raw.quarantine") == [], moment
    answer = vitrina.ingest("crm")
    assert (answer["rows_landed"], answer["quarantined"]) == (1, 1)


def test_ctrl_c_leaves_the_old_days(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(5))
    with sink_of(vitrina) as sink, sink.load("telemetry"):
        process = vitrina.process("-m", "ingestion", "telemetry", "--date", "2024-12-05")
        wait_for(lambda: waiting_for_locks(vitrina) == 1)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=PATIENCE_SECONDS)[0].decode()
    assert process.returncode == 1
    assert "interrupted" in output
    assert "Traceback" not in output
    assert vitrina.query("select * from raw.loads") == []


def test_ctrl_c_in_the_stream(vitrina: Vitrina) -> None:
    """The source hangs in the middle of a day."""
    sleeping = "select from pg_stat_activity where wait_event = 'PgSleep'"
    arrive(vitrina, noons(5))
    with psycopg.connect(vitrina.outside.telemetry_url, autocommit=True) as source:
        source.execute("alter table telemetry_events rename to stored")
        source.execute(
            "create view telemetry_events as select * from stored where pg_sleep(60) is not null"
        )
        process = vitrina.process("-m", "ingestion", "telemetry", "--date", "2024-12-05")
        wait_for(lambda: bool(source.execute(sleeping).fetchall()))
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=PATIENCE_SECONDS)[0].decode()
        # Nor does it leave its query running there.
        wait_for(lambda: not source.execute(sleeping).fetchall())
    assert (process.returncode, "Traceback" in output) == (1, False), output
    assert vitrina.query("select * from raw.loads") == []


# --- side by side -----------------------------------------------------------------------------------


def test_two_loads_of_one_day_wait_for_each_other(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(5, 5, 6))
    command = ("-m", "ingestion", "telemetry", "--date", "2024-12-06")
    with sink_of(vitrina) as sink, sink.load("telemetry"):
        both = [vitrina.process(*command) for _ in range(2)]
        wait_for(lambda: waiting_for_locks(vitrina) == 2)
    for process in both:
        output = process.communicate(timeout=PATIENCE_SECONDS)[0].decode()
        assert process.returncode == 0, output
        assert "waiting for another run" in output
    assert rows_by_day(vitrina) == {str(DEC[5]): 2, str(DEC[6]): 1}
    changed = [row["changed"] for row in vitrina.query("select * from raw.loads order by load_id")]
    assert changed == ['[["2024-12-05", "2024-12-07"]]', "[]"]


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


def test_a_load_that_began_first_and_ends_last_has_the_greater_number(vitrina: Vitrina) -> None:
    with sink_of(vitrina) as one, sink_of(vitrina) as other:
        with one.load("first") as load:
            with other.load("second") as short:
                short.record(empty_load("second"))
            load.record(empty_load("first"))
        loads = one.loads(["first", "second"])
    assert [load.source for load in loads] == ["second", "first"]


def test_a_load_that_fails_leaves_nothing(vitrina: Vitrina) -> None:
    def stream() -> Iterator[bytes]:
        yield EMPTY_COPY[:-2]
        raise RuntimeError("the source is gone")

    with sink_of(vitrina) as sink:
        with pytest.raises(RuntimeError), sink.load("telemetry") as load:
            load.replace_day(EVENTS, DEC[5], stream(), None)
        assert sink.loads(["telemetry"]) == []  # and the connection is of use still
    assert leaves(vitrina) == {}


def test_a_warehouse_that_does_not_answer(vitrina: Vitrina) -> None:
    for settings in ({"POSTGRES_PORT": "9"}, {"POSTGRES_PASSWORD": "wr0ng-pass"}):
        answer = having(vitrina, **settings).run("status")
        assert answer.status == 1
        assert "does not answer" in answer.log
        assert "wr0ng-pass" not in answer.log
        assert vitrina.outside.postgres.password not in answer.log
