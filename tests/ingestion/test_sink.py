"""What every sink promises: init, what a load leaves when it is killed, and loads side by side."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from ingestion.errors import SinkError
from ingestion.sources.crm import CLIENTS
from ingestion.sources.telemetry import EVENTS
from ingestion.tables import Column, Kind, RawTable
from tests.ingestion.scene import (
    DEC,
    PATIENCE_SECONDS,
    arrive,
    client,
    december,
    empty_load,
    event,
    having,
    noons,
    rows_by_day,
    sink_of,
    telemetry,
    wait_for,
)
from tests.support.vitrina import Vitrina

CATALOGUES = {
    "postgres": "select table_name, column_name, data_type as type, is_nullable"
    " from information_schema.columns where table_schema in"
    " ('raw', 'staging', 'ods', 'core', 'marts') order by 1, ordinal_position",
    "clickhouse": "select table as table_name, name as column_name, type from system.columns"
    " where database in ('raw', 'staging', 'ods', 'core', 'marts') order by 1, position",
}
# A day without rows in the sink's bulk format.
EMPTY = {
    "postgres": b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\xff\xff",
    "clickhouse": b"",
}
ASIDE = {
    "postgres": "select relname as name from pg_class where relname like '%\\_\\_new'",
    "clickhouse": "select name from system.tables"
    " where database = 'raw_work' and name not like 'lock%' and name <> 'intents'",
}


def catalogue(vitrina: Vitrina) -> list[dict[str, Any]]:
    return vitrina.query(CATALOGUES[vitrina.engine])


def left_aside(vitrina: Vitrina) -> list[str]:
    """The tables of loads in progress."""
    return [row["name"] for row in vitrina.query(ASIDE[vitrina.engine])]


# --- init -------------------------------------------------------------------------------------------


def test_before_init_the_message_says_what_to_do(bare: Vitrina) -> None:
    for arguments in (("crm",), ("telemetry", "--date", "2024-12-05"), ("status",)):
        answer = bare.run(*arguments)
        assert answer.status == 1
        assert "python -m ingestion init" in answer.log


def test_init_again_changes_nothing(vitrina: Vitrina) -> None:
    before = catalogue(vitrina)
    tables = {row["table_name"] for row in before}
    ledger = {"builds", "loads", "outbox", "quarantine", "schema_versions", "settings"}
    assert tables >= {*ledger, EVENTS.name, CLIENTS.name}
    arrive(vitrina, noons(5))
    telemetry(vitrina, DEC[5])
    vitrina.ingest("init")
    assert catalogue(vitrina) == before
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
    found = [row for row in catalogue(vitrina) if row["column_name"] == "extra"]
    of_type = {"postgres": "bigint", "clickhouse": "Nullable(Int64)"}[vitrina.engine]
    assert [(row["table_name"], row["type"]) for row in found] == [
        ("crm_clients", of_type),
        ("telemetry_events", of_type),
    ]
    telemetry(vitrina, DEC[6])  # an older Vitrina goes on landing into it
    assert rows_by_day(vitrina) == {str(DEC[5]): 1}


def test_init_refuses_a_column_of_another_type(vitrina: Vitrina) -> None:
    more = replace(CLIENTS, columns=(*CLIENTS.columns, Column("extra", Kind.BIGINT)))
    other = replace(EVENTS, columns=(Column("event_ts", Kind.TEXT),))
    before = catalogue(vitrina)
    with (
        sink_of(vitrina) as sink,
        pytest.raises(SinkError, match=r"event_ts is (timestamp|DateTime).* is wanted"),
    ):
        sink.init([more, other])
    assert catalogue(vitrina) == before


def test_init_refuses_what_a_newer_vitrina_made(vitrina: Vitrina) -> None:
    vitrina.query("insert into raw.schema_versions (version) values (99)")
    answer = vitrina.run("init")
    assert answer.status == 1
    assert "version 99" in answer.log


# --- crashes ----------------------------------------------------------------------------------------

# Runs a command and kills itself, as kill -9 does, when it gets to the moment.
DOOMED = """
import os, signal, sys
from ingestion.cli import main
from ingestion.sinks.clickhouse import ClickhouseLoad, ClickhouseSink
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

for Load, Sink in ((ClickhouseLoad, ClickhouseSink), (PostgresLoad, PostgresSink)):
    match moment:
        case "in the stream":
            TelemetryDatabase.events = first_chunk_then_die(TelemetryDatabase.events)
        case "after the rows":
            Load.quarantine = die
        case "after the versions":
            Load.append_versions = then_die(Load.append_versions)
        case "before the ledger":
            Load.record = die
        case "before the commit":
            Load.record = then_die(Load.record)
        case "after the commit":
            Sink.close = die
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
    landed = "select * from raw.telemetry_events order by event_ts"
    old = vitrina.query(landed)
    for moment in ("in the stream", "after the rows", "before the ledger", "before the commit"):
        killed(vitrina, moment, "telemetry", "--date", "2024-12-06")
        assert vitrina.query(landed) == old, moment
        assert vitrina.query("select * from raw.loads") == loads, moment
    answer = telemetry(vitrina, DEC[6])
    assert answer["days_changed"] == december(5, 6)
    assert rows_by_day(vitrina) == dict(zip(december(4, 5, 6), (1, 2, 1), strict=True))
    assert left_aside(vitrina) == []


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


def says_that_it_waits(process: subprocess.Popen[bytes]) -> bytes:
    """Read what a command says until it says that it waits."""
    assert process.stdout is not None
    said = b""
    for line in process.stdout:
        said += line
        if b"waiting for another run" in line:
            return said
    raise AssertionError(said.decode())


def test_ctrl_c_leaves_the_old_days(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(5))
    with sink_of(vitrina) as sink, sink.load("telemetry"):
        process = vitrina.process("-m", "ingestion", "telemetry", "--date", "2024-12-05")
        says_that_it_waits(process)
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
    assert left_aside(vitrina) == []


def test_a_load_that_fails_leaves_nothing(vitrina: Vitrina) -> None:
    def stream() -> Iterator[bytes]:
        yield EMPTY[vitrina.engine][:-2]
        raise RuntimeError("the source is gone")

    with sink_of(vitrina) as sink:
        with pytest.raises(RuntimeError), sink.load("telemetry") as load:
            load.replace_day(EVENTS, DEC[5], stream(), None)
        assert sink.loads(["telemetry"]) == []  # and the connection is of use still
    assert left_aside(vitrina) == []


def test_a_load_that_was_not_recorded_did_not_happen(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(5))
    telemetry(vitrina, DEC[5])
    with sink_of(vitrina) as sink:
        with sink.load("telemetry") as load:
            load.replace_day(EVENTS, DEC[5], [EMPTY[vitrina.engine]], None)
        assert len(sink.loads(["telemetry"])) == 1
    assert rows_by_day(vitrina) == {str(DEC[5]): 1}


# --- side by side -----------------------------------------------------------------------------------


def test_two_loads_of_one_day_wait_for_each_other(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(5, 5, 6))
    command = ("-m", "ingestion", "telemetry", "--date", "2024-12-06")
    with sink_of(vitrina) as sink, sink.load("telemetry"):
        both = [vitrina.process(*command) for _ in range(2)]
        for process in both:
            says_that_it_waits(process)
    for process in both:
        output = process.communicate(timeout=PATIENCE_SECONDS)[0].decode()
        assert process.returncode == 0, output
    assert rows_by_day(vitrina) == {str(DEC[5]): 2, str(DEC[6]): 1}
    changed = [row["changed"] for row in vitrina.query("select * from raw.loads order by load_id")]
    assert changed == ['[["2024-12-05", "2024-12-07"]]', "[]"]


def test_a_load_that_began_first_and_ends_last_has_the_greater_number(vitrina: Vitrina) -> None:
    with sink_of(vitrina) as one, sink_of(vitrina) as other:
        with one.load("first") as load:
            with other.load("second") as short:
                short.record(empty_load("second"))
            load.record(empty_load("first"))
        loads = one.loads(["first", "second"])
    assert [load.source for load in loads] == ["second", "first"]


def test_loads_of_many_sources_at_once_have_numbers_of_their_own(vitrina: Vitrina) -> None:
    def land(source: str) -> None:
        with sink_of(vitrina) as sink, sink.load(source) as load:
            load.record(empty_load(source))

    sources = [f"source-{number}" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(land, source) for source in sources]:
            done.result(PATIENCE_SECONDS)
    numbers = [row["load_id"] for row in vitrina.query("select * from raw.loads order by load_id")]
    assert numbers == list(range(1, 7))


def test_a_warehouse_that_does_not_answer(vitrina: Vitrina) -> None:
    prefix = vitrina.engine.upper()
    for setting, value in (("PORT", "9"), ("PASSWORD", "wr0ng-pass")):
        answer = having(vitrina, **{f"{prefix}_{setting}": value}).run("status")
        assert answer.status == 1
        assert "does not answer" in answer.log or "Authentication failed" in answer.log
        assert "wr0ng-pass" not in answer.log
        secret = (vitrina.clickhouse or vitrina.outside.postgres).password
        assert secret not in answer.log
