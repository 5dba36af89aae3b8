"""The ClickHouse sink: partitions, the steps of a load, leases, and bytes that arrive as they were.

What every sink promises: test_sink.py.
"""

from __future__ import annotations

import math
import random
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from ingestion.clickhouse_http import Clickhouse, ClickhouseError, literal, named, quoted
from ingestion.errors import SinkError
from ingestion.sinks import DeliveredFile, Slot
from ingestion.sinks._clickhouse_lock import _Lease, lock
from ingestion.sinks._clickhouse_tables import REPLICATED
from ingestion.sinks.clickhouse import ClickhouseSink, _row_hash
from ingestion.sources.crm import CLIENTS
from ingestion.sources.orders import PRICE_LOG
from ingestion.sources.telemetry import EVENTS
from ingestion.tables import Column, Kind
from sandbox.clickhouse import ClickhouseServer
from sandbox.telemetry import insert_events
from tests.ingestion.orders_scene import Shop, file_of, increment, line, report
from tests.ingestion.scene import (
    DEC,
    PATIENCE_SECONDS,
    arrive,
    at,
    at_source,
    client,
    december,
    empty_load,
    event,
    having,
    noons,
    recreate_source,
    rows_by_day,
    sink_of,
    telemetry,
)
from tests.ingestion.test_sink import left_aside
from tests.support.vitrina import Vitrina

pytestmark = pytest.mark.parametrize("engine", ["clickhouse"], indirect=True)

LANDED = "select * from raw.telemetry_events order by event_ts, event_id"


@pytest.fixture
def served(vitrina: Vitrina) -> ClickhouseServer:
    """The server behind the warehouse."""
    assert vitrina.clickhouse is not None
    return vitrina.clickhouse


@pytest.fixture
def clickhouse_client(served: ClickhouseServer) -> Clickhouse:
    """A client as the sink has one."""
    return Clickhouse(served.host, served.port, served.user, served.password).connected()


def event_row(event_id: str, minute: int) -> bytes:
    """A row of telemetry in the sink's bulk format, of the 5th."""
    return f"{event_id}\tc-1\tview\t1.5\tok\ts-1\t2024-12-05 12:{minute:02d}:00\n".encode()


# --- partitions -------------------------------------------------------------------------------------


def test_mistake_t12_partitions_are_real(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(4, 5))
    for _ in range(2):
        telemetry(vitrina, DEC[6])
    parts = (
        "select distinct partition from system.parts where active and database = 'raw'"
        " and table = 'telemetry_events' order by partition"
    )
    assert [row["partition"] for row in vitrina.query(parts)] == december(4, 5)
    assert left_aside(vitrina) == []
    plan = vitrina.query(
        "explain indexes = 1 select * from raw.telemetry_events where ds = '2024-12-05'"
    )
    text = "\n".join(row["explain"] for row in plan)
    assert "Parts: 1/2" in text
    at_source(vitrina, "delete from telemetry_events where event_id = 'e-4'")
    telemetry(vitrina, DEC[6])
    assert [row["partition"] for row in vitrina.query(parts)] == december(5)


def test_a_reader_never_sees_half_a_day(vitrina: Vitrina) -> None:
    """A day of many parts is replaced by others again and again, while someone counts."""
    done, seen = threading.Event(), set()

    def read() -> None:
        while not done.is_set():
            found = vitrina.query(
                "select count() as n, uniqExact(event_id) as generations, min(event_id) as id"
                " from raw.telemetry_events"
            )
            seen.add((found[0]["n"], found[0]["generations"]))

    def land(generation: int) -> None:
        with sink_of(vitrina) as sink, sink.load("telemetry") as load:
            rows = (event_row(f"g-{generation}", n % 60) * 100 for n in range(60))
            load.replace_day(EVENTS, DEC[5], rows, None)
            load.record(empty_load("telemetry"))

    land(0)
    # Parts of a hundred rows: with one part there would be no half.
    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for generation in range(1, 6):
            land(generation)
        done.set()
        for reader in readers:
            reader.result(PATIENCE_SECONDS)
    assert seen == {(6_000, 1)}


def test_a_day_aside_is_seen_by_nobody(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(5))
    telemetry(vitrina, DEC[5])
    seen: list[dict[str, int]] = []

    def stream() -> Iterator[bytes]:
        yield event_row("new", 1)
        seen.append(rows_by_day(vitrina))
        yield event_row("new", 2)

    with sink_of(vitrina) as sink, sink.load("telemetry") as load:
        assert load.replace_day(EVENTS, DEC[5], stream(), None).rows == 2
        seen.append(rows_by_day(vitrina))
        load.record(empty_load("telemetry"))
        seen.append(rows_by_day(vitrina))
    assert seen == [{str(DEC[5]): 1}] * 3
    assert rows_by_day(vitrina) == {str(DEC[5]): 2}


# --- mistakes ---------------------------------------------------------------------------------------


def test_mistake_a01_a_retry_replaces_the_day(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(4, 5, 5))
    telemetry(vitrina, DEC[5])
    once = vitrina.query(LANDED)
    for _ in range(2):
        assert telemetry(vitrina, DEC[5])["days_changed"] == []
    assert vitrina.query(LANDED) == once


def test_mistake_a05_a_join_without_a_match_gives_null(clickhouse_client: Clickhouse) -> None:
    query = (
        "select r.s, r.n, r.d from (select 1 as k) as l left join"
        " (select 2 as k, 'x' as s, 7 as n, toDate32('2024-12-05') as d) as r using (k)"
    )
    assert clickhouse_client.row(query) == [None, None, None]


def test_mistake_a15_an_identical_block_is_landed_twice(
    served: ClickhouseServer, clickhouse_client: Clickhouse
) -> None:
    """On a table that drops blocks which it has seen, as every replicated one does by default."""
    served.ask(
        "create table raw.blocks (n Int64) engine = MergeTree order by n"
        " settings non_replicated_deduplication_window = 100"
    )
    for _ in range(2):
        served.ask("insert into raw.blocks format TSV", b"1\n2\n")
    assert served.ask("select count() from raw.blocks") == b"2\n"  # the engine's way
    for _ in range(2):
        clickhouse_client.insert("insert into raw.blocks format TSV", [b"1\n2\n"])
    assert served.ask("select count() from raw.blocks") == b"6\n"
    for _ in range(2):
        clickhouse_client.run("insert into raw.blocks select number from numbers(3) order by all")
    assert served.ask("select count() from raw.blocks") == b"12\n"


def test_identical_rows_of_one_day_are_all_landed(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(5) * 3)
    assert telemetry(vitrina, DEC[5])["rows_landed"] == 3
    assert rows_by_day(vitrina) == {str(DEC[5]): 3}


def test_to_the_digest_a_null_is_no_default(clickhouse_client: Clickhouse) -> None:
    """The engine's hash of a row with a null is null, and a filled in one is that of the default."""
    hashed = _row_hash([Column("a", Kind.TEXT), Column("b", Kind.BIGINT)])
    rows = ["(null, 0)", "('', null)", "('', 0)", "(null, null)"]
    (found,) = clickhouse_client.row(
        f"select uniqExact({hashed}) from values('a Nullable(String), b Nullable(Int64)',"
        f" {', '.join(rows)})"
    )
    assert found == len(rows)


# --- crashes between the steps ----------------------------------------------------------------------

# Kills itself before or after a step, by the name of the method.
DOOMED_IN_STEPS = """
import os, signal, sys
from ingestion.cli import main
from ingestion.sinks._clickhouse_commit import Commit

when, step, *arguments = sys.argv[1:]
done = getattr(Commit, step)

def die(*args, **kwargs):
    if when == "after":
        done(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(Commit, step, die)
main(arguments)
"""


def killed_in(vitrina: Vitrina, when: str, step: str, *arguments: str) -> None:
    process = vitrina.process("-c", DOOMED_IN_STEPS, when, step, *arguments)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == -9, output


STEPS = [
    ("before", "write_intent", False),
    ("after", "write_intent", True),
    ("after", "add_versions", True),
    ("before", "renumber", True),
    ("after", "swap", True),
    ("after", "set_aside", True),
    ("before", "write_ledger", True),
    ("after", "write_ledger", True),
    ("before", "clean", True),
]


@pytest.mark.parametrize(
    ("when", "step", "goes_through"),
    [case for case in STEPS if case[1] not in ("add_versions", "renumber")],
)
def test_a_load_killed_between_the_steps_of_a_replacement(
    vitrina: Vitrina, when: str, step: str, goes_through: bool
) -> None:
    arrive(vitrina, noons(4, 5))
    telemetry(vitrina, DEC[5])
    plan = vitrina.ingest("plan", "telemetry")
    vitrina.ingest("mark", "telemetry", "--build", str(plan["build_id"]))
    # Both days change, one is emptied, one comes, one can't be used.
    at_source(vitrina, "delete from telemetry_events where event_id = 'e-4'")
    arrive(vitrina, [event("2024-12-05T13:00:00", "new"), *noons(6), event(None, "timeless")])
    killed_in(vitrina, when, step, "telemetry", "--date", "2024-12-06")
    if goes_through:
        # The source changes again; what was ready for the first run is completed by the next.
        arrive(vitrina, [event("2024-12-06T13:00:00", "newer")])
    answer = telemetry(vitrina, DEC[6])
    assert answer["days_changed"] == (december(6) if goes_through else december(4, 5, 6))
    assert vitrina.ingest("plan", "telemetry")["pending"] == december(4, 5, 6)
    rows = {str(DEC[5]): 2, str(DEC[6]): 2 if goes_through else 1}
    assert rows_by_day(vitrina) == rows
    assert len(vitrina.query("select * from raw.quarantine")) == 1
    numbers = [row["load_id"] for row in vitrina.query("select * from raw.loads order by load_id")]
    assert numbers == list(range(1, len(numbers) + 1)) == ([1, 2, 3] if goes_through else [1, 2])
    assert left_aside(vitrina) == []
    assert vitrina.query("select * from raw_work.intents") == []


@pytest.mark.parametrize(
    ("when", "step", "goes_through"), [case for case in STEPS if case[1] != "swap"]
)
def test_a_crm_load_killed_between_its_steps(
    vitrina: Vitrina, when: str, step: str, goes_through: bool
) -> None:
    """Versions are never lost, nor added twice, nor the days that they change forgotten."""
    crm = vitrina.outside.crm
    arrive(vitrina, noons(4, 5))
    crm.serve([client("c-1", "2024-12-04T10:00:00Z", plan="a")])
    crm.serve([client("c-1", "2024-12-04T10:00:00Z", plan="b")])
    vitrina.ingest("crm")
    telemetry(vitrina, DEC[5])
    plan = vitrina.ingest("plan", "telemetry")
    vitrina.ingest("mark", "telemetry", "--build", str(plan["build_id"]))
    # One is served again and holds again, one is new, one can't be used.
    crm.serve([client("c-1", "2024-12-04T10:00:00Z", plan="a"), client("c-2"), client(None)])
    killed_in(vitrina, when, step, "crm")
    answer = vitrina.ingest("crm")
    assert (answer["rows_landed"], answer["quarantined"]) == (0 if goes_through else 1, 1)
    found = vitrina.query("select id, plan from raw.crm_clients order by _served_no")
    assert {(row["id"], row["plan"]) for row in found[1:]} == {("c-1", "a"), ("c-2", "free")}
    assert (found[0]["plan"], len(found)) == ("b", 3)
    numbers = vitrina.query("select uniqExact(_served_no) as n from raw.crm_clients")
    assert numbers == [{"n": 3}]
    assert vitrina.ingest("plan", "telemetry")["pending"] == december(4, 5)
    assert len(vitrina.query("select * from raw.quarantine")) == 1
    assert left_aside(vitrina) == []


@pytest.mark.parametrize(("when", "step", "goes_through"), STEPS[:2] + STEPS[4:7])
def test_mistake_o13_an_orders_load_killed_between_its_steps(
    shop: Shop, when: str, step: str, goes_through: bool
) -> None:
    """The next load leaves what a clean one would have, and no changed day is forgotten."""
    shop.deliver(
        report(4, 6, file_of(*(line(f"r-{n}", f"2024-12-0{4 + n % 3}") for n in range(9))))
    )
    shop.land_report()
    plan = shop.vitrina.ingest("plan", "orders")
    shop.vitrina.ingest("mark", "orders", "--build", str(plan["build_id"]))
    shop.deliver(
        increment(4, {**file_of(line("r-1", "2024-12-04")), "price_log": "Ручка,10".encode()}),
        increment(5, file_of(line("u-1"), line("u-2", "2024-12-06"), line("bad", quantity=-1))),
    )
    command = ("orders", "--start-date", "2024-12-04", "--end-date", "2024-12-06")
    killed_in(shop.vitrina, when, step, *command)
    assert shop.land(4, 5)["days_changed"] == ([] if goes_through else december(4, 5, 6))
    assert shop.vitrina.ingest("plan", "orders")["days"] == december(4, 5, 6)
    interrupted, reasons, winners = shop.state(), shop.reasons(), shop.winners()
    assert left_aside(shop.vitrina) == []
    shop.forget()
    shop.land_report()
    shop.land(4, 5)
    assert (shop.state(), shop.reasons(), shop.winners()) == (interrupted, reasons, winners)


def test_tables_aside_that_somebody_dropped(vitrina: Vitrina) -> None:
    """The load can't be completed: its days are built again, and it can be run again."""
    arrive(vitrina, noons(4, 5))
    killed_in(vitrina, "after", "write_intent", "telemetry", "--date", "2024-12-05")
    for name in left_aside(vitrina):
        vitrina.query(f"drop table raw_work.`{name}` sync")
    telemetry(vitrina, DEC[5])
    assert rows_by_day(vitrina) == dict.fromkeys(december(4, 5), 1)
    assert vitrina.ingest("plan", "telemetry")["days"] == december(4, 5)


def test_a_column_added_between_a_crash_and_the_next_load(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(5))
    killed_in(vitrina, "after", "write_intent", "telemetry", "--date", "2024-12-05")
    vitrina.query("alter table raw.telemetry_events add column extra Nullable(Int64)")
    telemetry(vitrina, DEC[5])
    assert rows_by_day(vitrina) == {str(DEC[5]): 1}


# --- leases -----------------------------------------------------------------------------------------


def test_a_lock_is_held_by_one(clickhouse_client: Clickhouse) -> None:
    inside, most, entered = 0, 0, []
    guard = threading.Lock()

    def work(number: int) -> None:
        nonlocal inside, most
        with lock(clickhouse_client, "raw_work", "it's one", 5):
            with guard:
                inside += 1
                most = max(most, inside)
                entered.append(number)
            time.sleep(0.02)
            with guard:
                inside -= 1

    with ThreadPoolExecutor(5) as pool:
        for done in [pool.submit(work, number) for number in range(10)]:
            done.result(60)
    assert (most, sorted(entered)) == (1, list(range(10)))


def test_locks_of_other_names_do_not_wait(clickhouse_client: Clickhouse) -> None:
    with (
        lock(clickhouse_client, "raw_work", "a b", 30),
        lock(clickhouse_client, "raw_work", "a_b", 30),
    ):
        names = clickhouse_client.rows(
            "select name from system.tables where database = 'raw_work' and name like 'lock_a_b%'"
        )
        assert len(list(names)) == 2


def test_a_lease_is_renewed_while_it_is_held(clickhouse_client: Clickhouse) -> None:
    order: list[str] = []

    def wait() -> None:
        with lock(clickhouse_client, "raw_work", "long", 1):
            order.append("second")

    with ThreadPoolExecutor(1) as pool:
        with lock(clickhouse_client, "raw_work", "long", 1) as still_held:
            waiting = pool.submit(wait)
            time.sleep(2.5)
            still_held()
            order.append("first")
        waiting.result(PATIENCE_SECONDS)
    assert order == ["first", "second"]


def test_a_lease_that_is_over_passes_on_and_its_holder_is_told(
    clickhouse_client: Clickhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the machine slept: nothing was renewed, and another run has begun."""
    monkeypatch.setattr("ingestion.sinks._clickhouse_lock._Lease._keep_renewing", lambda _: None)
    with lock(clickhouse_client, "raw_work", "slept", 1) as still_held:
        still_held()
        with lock(clickhouse_client, "raw_work", "slept", 30) as others:
            others()
            with pytest.raises(SinkError, match="is over"):
                still_held()
    # Its end did not take the other's away: that one is given back by now, too.
    with lock(clickhouse_client, "raw_work", "slept", 30) as again:
        again()


def test_who_makes_an_old_number_again_does_not_hold_it(
    clickhouse_client: Clickhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked, was stopped, and goes on when its number was in use and is gone again."""
    for _ in range(3):
        with lock(clickhouse_client, "raw_work", "race", 30):
            pass
    late = _Lease(clickhouse_client, "raw_work", "lock_race_", 30)
    prefix = next(
        name.rpartition("_")[0] + "_"
        for (name,) in clickhouse_client.rows(
            "select name from system.tables where name like 'lock_race%'"
        )
    )
    late._prefix = prefix
    looked = late._found
    looked()  # knows the clock
    answers: list[dict[int, float]] = [{}]
    monkeypatch.setattr(late, "_found", lambda: answers.pop() if answers else looked())
    assert not late._tried()
    with lock(clickhouse_client, "raw_work", "race", 30) as still_held:
        still_held()


# --- bytes ------------------------------------------------------------------------------------------


def test_doubles_arrive_to_their_last_bit(vitrina: Vitrina) -> None:
    chance = random.Random(5)
    doubles = [
        found
        for _ in range(20_000)
        if math.isfinite(found := struct.unpack("<d", chance.randbytes(8))[0])
    ]
    doubles += [chance.random() * 10.0 ** chance.randint(-8, 8) for _ in range(20_000)]
    doubles += [0.1, 1e300, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, -0.0]
    stamp = "2024-12-05T12:00:00"
    recreate_source(vitrina, types={"duration_ms": "double precision"})
    insert_events(
        vitrina.outside.telemetry_url,
        [event(stamp, str(n), duration_ms=double) for n, double in enumerate(doubles)],
    )
    telemetry(vitrina, DEC[5])
    assert vitrina.clickhouse is not None
    found = vitrina.clickhouse.ask(
        "select assumeNotNull(duration_ms) from raw.telemetry_events order by toInt64(event_id)"
        " format RowBinary"
    )
    assert list(struct.unpack(f"<{len(doubles)}d", found)) == doubles


def test_every_character_arrives(vitrina: Vitrina) -> None:
    texts = [
        "".join(map(chr, range(1, 0x250))),
        "\\N",
        "\\",
        "\\t",
        "",
        "\r\n\t\b\f\v\\'\"`",
        "\u2028\ufeff\U0001f600",
        "null",
        None,
    ]
    arrive(
        vitrina,
        [event("2024-12-05T12:00:00", str(n), session_id=text) for n, text in enumerate(texts)],
    )
    telemetry(vitrina, DEC[5])
    landed = vitrina.query("select session_id from raw.telemetry_events order by event_id")
    assert [row["session_id"] for row in landed] == texts


@pytest.mark.parametrize("style", ["SQL, DMY", "German", "Postgres, MDY"])
def test_instants_whatever_the_source_s_style(vitrina: Vitrina, style: str) -> None:
    database = vitrina.outside.telemetry
    at_source(
        vitrina,
        f"alter database {database} set datestyle to '{style}'",
        f"alter database {database} set timezone to 'America/St_Johns'",
    )
    instants = [
        datetime(2024, 12, 5, 1, 2, 3, 4, tzinfo=UTC),
        datetime(2024, 12, 5, 1, 2, 3, 500_000, tzinfo=UTC),
        datetime(2024, 12, 5, 20, 59, 59, 999_999, tzinfo=UTC),
    ]
    try:
        arrive(vitrina, [event(str(instant), str(n)) for n, instant in enumerate(instants)])
        telemetry(vitrina, DEC[5])
    finally:
        at_source(vitrina, f"alter database {database} reset all")
    landed = vitrina.query(LANDED)
    assert [row["event_ts"] for row in landed] == instants


@pytest.mark.parametrize(
    "day", [date(1, 1, 5), date(1850, 2, 3), date(2400, 2, 29), date(9999, 12, 29)]
)
def test_days_at_the_ends_of_the_calendar(vitrina: Vitrina, day: date) -> None:
    arrive(vitrina, [event(f"{day}T12:00:00", "far")])
    far = having(vitrina, TELEMETRY_LOOKBACK_DAYS="0")
    assert telemetry(far, day)["rows_landed"] == 1
    found = vitrina.query("select ds, event_ts from raw.telemetry_events")
    assert found == [{"ds": day, "event_ts": datetime(*day.timetuple()[:3], 12, tzinfo=UTC)}]


# --- on a cluster -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clustered(Clickhouse):
    """A cluster as far as the engine here allows: every statement is parsed as it is, those of a
    cluster are run without what only a cluster has."""

    seen: list[str] = field(default_factory=list)

    def run(self, statement: str, **values: object) -> None:
        self.seen.append(statement)
        super().run(f"explain ast {statement}", **values)
        alone = statement.replace(self.on_cluster, "").replace(REPLICATED, "MergeTree")
        super().run(alone, **values)


def test_on_a_cluster_every_server_has_the_raw_tables(vitrina: Vitrina) -> None:
    assert vitrina.clickhouse is not None
    server = vitrina.clickhouse
    server.empty()
    alone = Clickhouse(server.host, server.port, server.user, server.password).connected()
    clustered = Clustered(
        alone.host, alone.port, alone.user, alone.password, "default", "all o'them", alone.settings
    )
    sink = ClickhouseSink(clustered, 5)
    sink.init([EVENTS, CLIENTS])
    made = [statement for statement in clustered.seen if statement.startswith("create")]
    assert len(made) > 12
    for statement in made:
        if "lock_" not in statement:
            assert "on cluster 'all o\\'them'" in statement
            assert ("MergeTree" in statement) == (REPLICATED in statement)
    clustered.seen.clear()
    with sink.load("telemetry") as load:
        load.replace_day(EVENTS, DEC[5], [event_row("e", 1)], None)
        row = ("c", None, None, None, None, at("2024-12-05"), "hash", "{}")
        assert load.append_versions(CLIENTS, [row])[0] == 1
        load.record(empty_load("telemetry"))
    # What is aside is one server's: it must not be made twice, nor swapped by those who have it not.
    assert not [statement for statement in clustered.seen if "on cluster" in statement]
    assert rows_by_day(vitrina) == {str(DEC[5]): 1}
    sink.init([EVENTS, CLIENTS])


# --- the client -------------------------------------------------------------------------------------


def test_parameters_arrive_as_they_are(clickhouse_client: Clickhouse) -> None:
    texts = ["it's", "a\\b", "tab\tline\nend\r", "", "\\N", "\u044e"]
    for text in texts:
        assert clickhouse_client.row("select {s:String}", s=text) == [text]
        assert clickhouse_client.row(f"select {quoted(text)}") == [text]
    assert clickhouse_client.row("select {s:Array(String)}", s=texts) == [texts]
    assert clickhouse_client.row(f"select 1 as {named('a`b')}") == [1]
    assert (literal(True), literal(None), literal(date(2024, 12, 5))) == ("1", "\\N", "2024-12-05")


def test_an_error_in_the_middle_of_a_stream_is_told(clickhouse_client: Clickhouse) -> None:
    clickhouse_client.run("create table raw.n (n Int64) engine = MergeTree order by n")

    def rows() -> Iterator[bytes]:
        yield b"1\n" * 1_000
        yield b"not a number\n"
        for _ in range(100):
            yield b"2\n" * 10_000

    with pytest.raises(ClickhouseError, match="CANNOT_PARSE") as raised:
        clickhouse_client.insert("insert into raw.n format TSV", rows())
    assert raised.value.code == 27
    assert clickhouse_client.row("select count() from raw.n") == [0]


def test_an_error_of_the_source_stays_the_source_s(clickhouse_client: Clickhouse) -> None:
    clickhouse_client.run("create table raw.n (n Int64) engine = MergeTree order by n")

    def rows() -> Iterator[bytes]:
        yield b"1\n"
        raise ConnectionResetError("the source's own")

    with pytest.raises(ConnectionResetError, match="the source's own"):
        clickhouse_client.insert("insert into raw.n format TSV", rows())
    assert clickhouse_client.row("select count() from raw.n") == [0]


def test_lines_are_numbered_over_all_blocks_of_a_file(vitrina: Vitrina) -> None:
    """The engine cuts a large file into blocks of about a million rows."""
    lines = 2_500_000

    def read() -> Iterator[bytes]:
        for first in range(1, lines + 1, 50_000):
            yield "".join(f"{n},1\n" for n in range(first, first + 50_000)).encode()

    file = DeliveredFile("id", "s3://b/price_log", "etag", 1, read)
    with sink_of(vitrina) as sink, sink.load("orders") as load:
        landed, _ = load.replace_slot(PRICE_LOG, Slot("report"), file, ZoneInfo("Europe/Moscow"))
        load.record(empty_load("orders"))
    assert landed is not None
    assert landed.rows_landed == lines
    found = vitrina.query(
        "select count() as n, countIf(item_name = toString(line_no)) as in_place from raw.price_log"
    )
    assert found == [{"n": lines, "in_place": lines}]
