"""What is ClickHouse's own of the contract of models: crashes and company without transactions, types
without enforced contracts, nulls without SQL's rules."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date
from multiprocessing.process import BaseProcess
from threading import Event, Thread

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from sandbox.clickhouse import ClickhouseServer
from tests.models.scratch import ClickhouseScratch, clickhouse_scratch, model, reading

D1, D2 = date(2024, 12, 2), date(2024, 12, 3)
ROWS = "('2024-12-02', 1), ('2024-12-03', 2), ('2024-12-03', 3)"
OLD = "20010101000000000000_0123abcd"
NEWER = "29990101000000000000_0123abcd"
MODELS = {
    "days": reading("days"),
    "whole": reading("days", "whole", where="1 = 1"),
    "slow": model(
        "select ds, id from hand.days"
        " where {{ in_window('ds') }} and sleepEachRow((select max(s) from hand.pauses)) = 0",
        # However many rows are in a block: it may not sleep longer than three seconds otherwise.
        extra="sql_header='set max_block_size = 1,"
        " function_sleep_max_microseconds_per_block = 3600000000'",
    ),
    "contract": model(
        "select ds, id, amount, note from hand.contract where {{ in_window('ds') }}",
        extra="on_schema_change='append_new_columns'",
    ),
    "joined": "{{ config(materialized='view') }} select a.id as id, b.id as twin"
    " from hand.days as a left join (select id from hand.days where id > 2) as b on a.id = b.id",
    "emptied": "{{ config(materialized='view') }} select max(id) as newest from hand.days where id > 9",
    "documented": reading("days", extra="persist_docs={'relation': true, 'columns': true}"),
}
YML = """
version: 2
models:
  - name: contract
    data_tests: [types_as_declared, {unique_grain: {arguments: {columns: [ds, id]}}}]
    columns:
      - {name: ds, data_type: date}
      - {name: id, data_type: integer, constraints: [{type: not_null}]}
      - {name: amount, data_type: "numeric(18,2)"}
      - {name: note, data_type: text, config: {meta: {low_cardinality: true}}}
  - name: documented
    description: What it's "about"; and more.
    columns:
      - {name: id, description: A 'number'.}
"""


@pytest.fixture(scope="module")
def dbt(
    clickhouse: ClickhouseServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClickhouseScratch]:
    files = {f"{name}.sql": text for name, text in MODELS.items()} | {"models.yml": YML}
    with clickhouse_scratch(clickhouse, tmp_path_factory.mktemp("models"), files) as made:
        made.hand("days", ROWS, "ds date, id int")
        made.sql("create table hand.pauses (s Float64) engine = MergeTree order by ()")
        pause(made, 0)
        yield made


@pytest.fixture
def days(dbt: ClickhouseScratch) -> ClickhouseScratch:
    """The models over the days, built once; then the days' rows have changed."""
    dbt.hand("days", ROWS, "ds date, id int")
    dbt.run("days", "whole", "slow", "--full-refresh")
    dbt.hand("days", "('2024-12-02', 10), ('2024-12-03', 20)", "ds date, id int")
    return dbt


def pause(dbt: ClickhouseScratch, seconds: float) -> None:
    """Set how long a row of `slow` takes."""
    dbt.sql("truncate table hand.pauses")
    dbt.sql(f"insert into hand.pauses values ({seconds})")


def litter(dbt: ClickhouseScratch) -> list[str]:
    """What a run should have taken away."""
    found = dbt.sql(
        "select name from system.tables where database = 'marts' and name like '%__new_%'"
    )
    return [name for (name,) in found]


@pytest.mark.parametrize("step", ["begun", "filled", "half replaced", "not taken away"])
def test_a_run_that_was_killed_at_any_step_is_repeated(days: ClickhouseScratch, step: str) -> None:
    """What kill -9 leaves behind, made by hand: the next run does all of it again."""
    days.sql(f"create table marts.days__new_{OLD}_begun (begun UInt8) engine = Memory")
    if step != "begun":
        days.sql(f"create table marts.days__new_{OLD} as marts.days")
        days.sql(f"insert into marts.days__new_{OLD} select * from hand.days")
    if step == "half replaced":
        days.sql(
            f"alter table marts.days replace partition '2024-12-02' from marts.days__new_{OLD}"
        )
        assert days.rows("marts.days") == [(D1, 10), (D2, 2), (D2, 3)], "each day is whole"
    if step == "not taken away":
        days.sql(f"exchange tables marts.days and marts.days__new_{OLD}")
    days.run("days", days=[D1, D2])
    assert days.rows("marts.days") == [(D1, 10), (D2, 20)]
    assert litter(days) == []


def test_kill_9_while_rows_are_computed(days: ClickhouseScratch) -> None:
    """The old rows stay; the next run does not wait for what the killed one had asked for."""
    before = days.rows("marts.slow")
    pause(days, 2.9)
    days.hand("days", ", ".join(f"('2024-12-02', {n})" for n in range(50)), "ds date, id int")
    process = days.beside("slow", [D1, D2])
    try:
        wait_for(days, process)
    finally:
        process.kill()
        process.join()
    assert days.rows("marts.slow") == before
    assert litter(days) != []
    pause(days, 0)
    days.hand("days", "('2024-12-03', 7)", "ds date, id int")
    started = time.monotonic()
    days.run("slow", days=[D1, D2])
    assert time.monotonic() - started < 100, "of the 145 seconds that the killed run had to go"
    assert days.rows("marts.slow") == [(D2, 7)]
    assert litter(days) == []


def wait_for(dbt: ClickhouseScratch, process: BaseProcess) -> None:
    """Until the model's rows are being computed."""
    deadline = time.monotonic() + 240  # a busy machine takes its time to start dbt
    inserting = "match(query, '(?s)^.{0,400}insert into .{1,20}slow__new_')"
    others = "query not like '%system.processes%'"
    while dbt.sql(f"select 1 from system.processes where {inserting} and {others}") == []:
        assert process.is_alive(), "it ended without a pause"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_run_that_begins_later_takes_over(days: ClickhouseScratch) -> None:
    """Of two runs of a model the earlier one fails, and puts no older rows over newer ones."""
    pause(days, 2.9)
    days.hand("days", ", ".join(f"('2024-12-02', {n})" for n in range(50)), "ds date, id int")
    earlier = days.beside("slow", [D1])
    wait_for(days, earlier)
    pause(days, 0)
    days.hand("days", "('2024-12-02', 7)", "ds date, id int")
    days.run("slow", days=[D1])
    earlier.join()
    assert earlier.exitcode != 0
    assert days.rows("marts.slow") == [(D1, 7), (D2, 2), (D2, 3)]
    assert litter(days) == []


def test_a_run_gives_way_to_one_that_began_later(days: ClickhouseScratch) -> None:
    days.sql(f"create table marts.days__new_{NEWER}_begun (begun UInt8) engine = Memory")
    before = days.rows("marts.days")
    try:
        assert "began after this one and took over" in days.refuse("days", days=[D1])
    finally:
        assert litter(days) == [f"days__new_{NEWER}_begun"]
        days.sql(f"drop table marts.days__new_{NEWER}_begun")
    assert days.rows("marts.days") == before


@pytest.mark.parametrize("name", ["days", "whole"])
def test_readers_see_whole_days_all_the_time(days: ClickhouseScratch, name: str) -> None:
    seen: set[tuple[date, int]] = set()
    counts: set[int] = set()
    failures: list[DatabaseError] = []
    stop = Event()

    def read() -> None:
        reader = clickhouse_connect.get_client(
            host=days.server.host, port=days.server.port, username=days.server.user,
            password=days.server.password, autogenerate_session_id=False,
        )  # fmt: skip
        while not stop.is_set():
            try:
                rows = reader.query(f"select ds, sum(id) from marts.{name} group by ds").result_rows
            except DatabaseError as error:
                failures.append(error)
                return
            seen.update((row[0], row[1]) for row in rows)
            counts.add(len(rows))

    days.run(name, days=[D1, D2])
    thread = Thread(target=read)
    thread.start()
    try:
        for n in range(1, 4):
            rows = f"('2024-12-02', {n}), ('2024-12-02', {n}), ('2024-12-03', {n * 10})"
            days.hand("days", rows, "ds date, id int")
            days.run(name, *([] if n < 3 else ["--full-refresh"]), days=[D1, D2])
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert counts == {2}
    assert seen <= {
        (D1, 10),
        (D2, 20),
        *((D1, 2 * n) for n in range(4)),
        *((D2, 10 * n) for n in range(4)),
    }


def test_types_come_from_the_contract(dbt: ClickhouseScratch) -> None:
    make = "create or replace table hand.contract engine = MergeTree order by () as"
    good = "select toDate32('2024-12-02') as ds, 1 as id, toDecimal64(1, 2) as amount, 'a' as note"
    dbt.sql(f"{make} {good}")
    dbt.run("contract")
    found = dbt.sql(
        "select name, type from system.columns where database = 'marts' and table = 'contract'"
    )
    assert found == [
        ("ds", "Date32"),
        ("id", "Int32"),
        ("amount", "Nullable(Decimal(18, 2))"),
        ("note", "LowCardinality(Nullable(String))"),
    ]
    key = dbt.sql(
        "select partition_key, sorting_key from system.tables where name = 'contract' and database = 'marts'"
    )
    assert key == [("ds", "id")]
    before = dbt.rows("marts.contract")
    for bad in "toDecimal64(1.005, 3)", "1.005", "'1'":
        dbt.sql(f"{make} {good.replace('toDecimal64(1, 2)', bad)}")
        for window in None, [D1]:
            assert "cast it" in dbt.refuse("contract", days=window), bad
    dbt.sql(f"{make} {good.replace('1 as id', 'cast(null as Nullable(Int32)) as id')}")
    assert "NULL" in dbt.refuse("contract", days=[D1]), "a null is no 0"
    assert dbt.rows("marts.contract") == before
    done = dbt.dbt("test", "--select", "types_as_declared_contract_")
    assert (done.success, len(done.nodes)) == (True, 1)
    dbt.sql("alter table marts.contract modify column amount Nullable(Float64)")
    done = dbt.dbt("test", "--select", "types_as_declared_contract_")
    assert "Got 1 result" in done.nodes[0].message
    dbt.sql("drop table marts.contract")


def test_mistake_a05_views_have_nulls_whoever_reads_them(dbt: ClickhouseScratch) -> None:
    """The client here has none of dbt's settings: ClickHouse's own answer would be 0."""
    dbt.hand("days", ROWS, "ds date, id int")
    dbt.run("joined", "emptied")
    assert dbt.rows("marts.joined") == [(1, None), (2, None), (3, 3)]
    assert dbt.rows("marts.emptied") == [(None,)]
    bare = dbt.sql(
        "select max(id) from (select assumeNotNull(id) as id from hand.days where id > 9)"
    )
    assert bare == [(0,)], "as the server does it by itself"


def test_mistake_a15_an_identical_block_is_there_twice(days: ClickhouseScratch) -> None:
    for name in "days", "whole":
        before = days.sql(f"select count() from marts.{name}")[0][0]
        for _ in range(2):
            days.sql(f"insert into marts.{name} values ('2024-12-02', 5), ('2024-12-02', 5)")
        assert days.sql(f"select count() from marts.{name}") == [(before + 4,)]


def test_descriptions_are_comments(dbt: ClickhouseScratch) -> None:
    dbt.hand("days", ROWS, "ds date, id int")
    for window in [D1], None:
        dbt.run("documented", days=window)
        # Sorted: the parts of a union come as they are ready.
        assert dbt.sql(
            "select * from ("
            "select comment from system.tables where database = 'marts' and name = 'documented'"
            " union all select comment from system.columns where database = 'marts'"
            " and table = 'documented' and name = 'id') order by comment"
        ) == [("A 'number'.",), ('What it\'s "about"; and more.',)]


def test_a_developers_copies_are_apart(
    clickhouse: ClickhouseServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = {
        "plain.sql": model("select {{ day_literal('2024-12-02') }} as ds"),
        "deep.sql": model("select ds from {{ ref('plain') }}", extra="schema='ods'"),
    }
    folder = tmp_path_factory.mktemp("alice")
    settings = {"VITRINA_SCHEMA": "alice"}
    with clickhouse_scratch(clickhouse, folder, files, settings=settings) as dbt:
        dbt.run("plain", "deep")
        dbt.run("plain", "deep", days=[D1])
        found = dbt.sql(
            "select database, name from system.tables where database like 'alice%' order by 1"
        )
        assert found == [("alice", "plain"), ("alice_ods", "deep")]
