"""macros/incremental on PostgreSQL alone: leaves, locks, grants, hooks, and who works at the same time.

What a run replaces, on every engine, is in test_replacement.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import date
from threading import Event, Thread
from typing import Any

import psycopg
import pytest

from sandbox.postgres import PostgresServer
from tests.models.scratch import Scratch, model, reading, scratch

D1, D2, D3, D4 = (date(2024, 12, n) for n in (2, 3, 4, 5))
# 54 characters: what is derived from it passes PostgreSQL's 63, and the two differ at the end only.
LONG = "a_name_as_long_as_a_name_of_a_model_may_be_and_longer"
READERS = "{'select': ['readers']}"
BOTH = "{'relation': true, 'columns': true}"
MODELS = {
    "basic": reading("basic"),
    "days": reading("days"),
    "leaky": reading("leaky", where="true"),
    "other_kind": reading("other_kind"),
    "contract": model(
        "select late, note, ds, id from hand.contract where {{ in_window('ds') }}",
        extra="contract={'enforced': true}, on_schema_change='append_new_columns'",
    ),
    "granted": reading("basic", extra=f"grants={READERS}"),
    "granted_whole": reading("basic", "whole", f"grants={READERS}", "true"),
    "documented": reading("basic", extra=f"persist_docs={BOTH}"),
    "indexed": reading("basic", extra="indexes=[{'columns': ['id']}, {'columns': ['ds', 'id']}]"),
    "hooked": reading(
        "basic",
        extra="pre_hook=\"insert into hand.hooks values ('pre')\", "
        'post_hook=["insert into hand.hooks values (\'post\')", "select 1 / (select n from hand.divisor)", '
        "{'sql': \"insert into hand.hooks values ('after')\", 'transaction': false}]",
    ),
    "headed": model(
        "select ds, cast(current_setting('vitrina.n') as int) as n from hand.basic",
        extra="sql_header=\"set local vitrina.n = '7'\"",
    ),
    LONG + "_1": reading("basic"),
    LONG + "_2": reading("basic"),
    "slow": model(
        "select slow.ds, slow.id from hand.slow, lateral (select pg_sleep(hand.pause()), slow.id) as nap"
        " where {{ in_window('slow.ds') }}"
    ),
    "base_view": "{{ config(materialized='view') }} select * from hand.base_view",
    "made_first": reading("basic"),
}
for unit, where in ("day", "{{ in_window('ds') }}"), ("whole", "true"):
    sync = "on_schema_change='sync_all_columns'"
    MODELS[f"synced_{unit}"] = reading(f"synced_{unit}", unit, sync, where)
YML = """
version: 2
models:
  - name: contract
    columns:
      - {name: ds, data_type: date}
      - {name: id, data_type: integer, constraints: [{type: not_null}, {type: check, expression: id > 0}]}
      - {name: note, data_type: text}
      - {name: late, data_type: bigint}
  - name: documented
    description: What it's "about".
    columns:
      - {name: id, description: A 'number'.}
"""
HAND = """
create schema hand;
create table hand.pauses (s float8);
create function hand.pause() returns float8 volatile language sql as 'select s from hand.pauses';
insert into hand.pauses values (0);
create table hand.hooks (name text);
create table hand.divisor (n int);
insert into hand.divisor values (1);
create table hand.basic (ds date, id int, note text);
insert into hand.basic values
    ('2024-12-02', 1, 'a'), ('2024-12-03', 2, 'b'), ('2024-12-03', 3, null), ('2024-12-05', 4, 'd');
"""


@pytest.fixture(scope="module")
def dbt(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scratch]:
    files = {f"{name}.sql": text for name, text in MODELS.items()} | {"models.yml": YML}
    folder = tmp_path_factory.mktemp("materialization")
    with scratch(server, folder, "materialization", files) as made:
        made.sql(HAND)
        made.sql("do $$ begin create role readers; exception when duplicate_object then end $$")
        made.sql("create role somebody; grant readers to somebody")
        yield made
        made.sql(
            "drop owned by somebody; drop role somebody; drop owned by readers; drop role readers"
        )


def hand(dbt: Scratch, name: str, rows: str, columns: str = "ds date, id int, note text") -> None:
    """Make the table that a model reads."""
    dbt.sql(f"create table hand.{name} ({columns}); insert into hand.{name} values {rows}")


def leaves(dbt: Scratch, name: str, schema: str = "marts") -> dict[str, int]:
    """The oids of the leaves by their bounds' days."""
    found = dbt.sql(
        "select substring(pg_get_expr(relpartbound, oid) from '\\d{4}-\\d\\d-\\d\\d'), oid::int"
        " from pg_inherits join pg_class on oid = inhrelid"
        f" where inhparent = '{schema}.\"{name}\"'::regclass and relnamespace = '{schema}_days'::regnamespace"
    )
    return dict(found)


def kind(dbt: Scratch, name: str) -> Any:
    return dbt.sql("select relkind from pg_class where oid = to_regclass(%s)", f"marts.{name}")


def columns(dbt: Scratch, name: str) -> str:
    (found,) = dbt.sql(
        "select string_agg(attname, ',' order by attnum) from pg_attribute"
        f" where attrelid = 'marts.{name}'::regclass and attnum > 0 and not attisdropped"
    )
    return str(found[0])


def litter(dbt: Scratch) -> list[Any]:
    """What a run should have taken away."""
    return dbt.sql(
        "select relname from pg_class where relkind in ('r', 'p', 'v')"
        " and relname ~ '__(new|stage|shape|rows)$'"
    )


# Days


def test_exactly_the_windows_days_are_replaced(dbt: Scratch) -> None:
    hand(dbt, "days", "('2024-12-02', 1), ('2024-12-03', 2), ('2024-12-04', 3), ('2024-12-05', 4)")
    dbt.run("days")
    before = leaves(dbt, "days")
    untouched = "select tableoid, ctid, * from marts.days where ds in (%s, %s)"
    places = dbt.sql(untouched, D1, D4)
    assert set(before) == {str(d) for d in (D1, D2, D3, D4)}
    dbt.sql("update hand.days set id = id * 10; delete from hand.days where ds = '2024-12-04'")
    dbt.run("days", days=[D3, D2])
    assert dbt.rows("marts.days", "ds, id") == [(D1, 1), (D2, 20), (D4, 4)]
    after = leaves(dbt, "days")
    assert set(after) == {str(d) for d in (D1, D2, D4)}, "an emptied day keeps no leaf"
    assert {d for d in after if after[d] == before[d]} == {str(D1), str(D4)}
    assert dbt.sql(untouched, D1, D4) == places
    dbt.run("days", "--full-refresh", days=[D3])
    assert dbt.rows("marts.days", "ds, id") == [(D1, 10), (D2, 20), (D4, 40)]
    dbt.sql("delete from hand.days")
    dbt.run("days", days=[])
    assert len(dbt.rows("marts.days")) == 3
    dbt.run("days")
    assert leaves(dbt, "days") == {}


def test_a_row_of_another_day_fails_and_leaves_everything(dbt: Scratch) -> None:
    hand(dbt, "leaky", "('2024-12-02', 1), ('2024-12-03', 2)")
    dbt.run("leaky")
    before = dbt.sql("select tableoid, ctid, * from marts.leaky")
    dbt.sql("update hand.leaky set id = 0")
    message = dbt.refuse("leaky", days=[D1])
    assert "no partition" in message
    assert "2024-12-03" in message
    assert dbt.sql("select tableoid, ctid, * from marts.leaky") == before
    dbt.sql("insert into hand.leaky values (null, 9)")
    assert "rows without a ds" in dbt.refuse("leaky")
    assert "(ds) = (null)" in dbt.refuse("leaky", days=[D1, D2])
    assert dbt.sql("select tableoid, ctid, * from marts.leaky") == before
    assert litter(dbt) == []


def test_a_materialized_view_is_rebuilt_but_not_for_a_window(dbt: Scratch) -> None:
    hand(dbt, "other_kind", "('2024-12-02', 1), ('2024-12-03', 2)")
    dbt.run("made_first", "--full-refresh")
    dbt.sql("create materialized view marts.other_kind as select * from hand.other_kind")
    assert "--full-refresh" in dbt.refuse("other_kind", days=[D1])
    assert len(dbt.rows("marts.other_kind")) == 2
    dbt.run("other_kind")
    assert kind(dbt, "other_kind") == [("p",)]
    assert dbt.rows("marts.other_kind") == dbt.rows("hand.other_kind")


# What dbt promises of its models


def test_contracts_are_enforced(dbt: Scratch) -> None:
    hand(dbt, "contract", "('2024-12-02', 1, 'a', 7), ('2024-12-03', 2, 'b', 8)",
         "ds date, id int, note text, late bigint")  # fmt: skip
    dbt.run("contract")
    # In the contract's order, though the query has another.
    expected = [(D1, 1, "a", 7), (D2, 2, "b", 8)]
    assert dbt.rows("marts.contract") == expected
    dbt.run("contract", days=[D1])
    assert dbt.rows("marts.contract") == expected
    dbt.sql("update hand.contract set id = null where ds = '2024-12-03'")
    for flags, days in ((), [D1, D2]), ((), None), (("--full-refresh",), None):
        assert "violates not-null constraint" in dbt.refuse("contract", *flags, days=days)
        assert dbt.rows("marts.contract") == expected
    dbt.sql("update hand.contract set id = -1 where ds = '2024-12-03'")
    assert "violates check constraint" in dbt.refuse("contract", days=[D2])
    dbt.sql("alter table hand.contract alter column late type text")
    assert "contract" in dbt.refuse("contract")
    assert dbt.rows("marts.contract") == expected
    assert litter(dbt) == []


@pytest.mark.parametrize("name", ["granted", "granted_whole"])
def test_grants_hold_from_the_first_build_on(dbt: Scratch, name: str) -> None:
    dbt.run("made_first")
    dbt.sql("grant usage on schema marts to readers")
    for flags, days in ((), [D1]), ((), [D1, D2]), (("--full-refresh",), None), ((), None):
        dbt.run(name, *flags, days=days)
        count = dbt.sql(f"set role somebody; select count(*) from marts.{name}")
        assert count == dbt.sql(f"select count(*) from marts.{name}") != [(0,)]
    # What the configuration does not grant is taken away, as dbt does everywhere.
    dbt.sql(f"grant select on marts.{name} to somebody")
    dbt.run(name, days=[D1])
    assert dbt.sql(f"select has_table_privilege('somebody', 'marts.{name}', 'insert')") == [
        (False,)
    ]
    grantees = dbt.sql(
        "select distinct grantee from information_schema.role_table_grants"
        " where table_name = %s and grantee in ('readers', 'somebody')",
        name,
    )
    assert grantees == [("readers",)]


def test_descriptions_are_comments(dbt: Scratch) -> None:
    for days in [D1], None:
        dbt.run("documented", days=days)
        comments = dbt.sql(
            "select obj_description('marts.documented'::regclass),"
            " col_description('marts.documented'::regclass, 2)"
        )
        assert comments == [('What it\'s "about".', "A 'number'.")]


@pytest.mark.parametrize("unit", ["day", "whole"])
def test_a_columns_new_type_is_synced(dbt: Scratch, unit: str) -> None:
    name = f"synced_{unit}"
    hand(dbt, name, "('2024-12-02', 1), ('2024-12-03', 2)")
    dbt.run(name)
    dbt.sql(f"alter table hand.{name} alter column id type bigint")
    dbt.run(name, days=[D2])
    assert dbt.sql(f"select pg_typeof(id)::text, id from marts.{name} order by id") == [
        ("bigint", 1),
        ("bigint", 2),
    ]


def test_indexes_are_on_every_leaf_and_made_before_anyone_waits(dbt: Scratch) -> None:
    for flags, days in ((), None), ((), [D1, D2]), (("--full-refresh",), None):
        dbt.run("indexed", *flags, days=days)
        found = dbt.sql(
            "select indrelid::regclass::text, count(*) from pg_index where indisvalid and indrelid in"
            " (select relid from pg_partition_tree('marts.indexed')) group by 1"
        )
        assert len(found) == 1 + 3
        assert {n for _, n in found} == {2}, "each once, and those of the leaves attached"


def test_hooks_run_in_and_after_the_transaction(dbt: Scratch) -> None:
    dbt.run("hooked", days=[D1])
    assert dbt.rows("hand.hooks") == [("after",), ("post",), ("pre",)]
    dbt.sql("truncate hand.hooks; update hand.divisor set n = 0")
    before = leaves(dbt, "hooked")
    try:
        assert "division by zero" in dbt.refuse("hooked", days=[D1, D2])
        assert "division by zero" in dbt.refuse("hooked", "--full-refresh")
    finally:
        dbt.sql("update hand.divisor set n = 1")
    assert (leaves(dbt, "hooked"), dbt.rows("hand.hooks"), litter(dbt)) == (before, [], [])


def test_the_header_holds_for_every_statement(dbt: Scratch) -> None:
    dbt.run("headed")
    assert {n for _, n in dbt.rows("marts.headed")} == {7}


def test_long_names_do_not_meet(dbt: Scratch) -> None:
    """The table, its leaves and what a run makes beside it are cut at 63, never to one name."""
    for _ in range(2):
        dbt.run(f"{LONG}_1", f"{LONG}_2", days=[D1, D2])
    dbt.run(f"{LONG}_1", f"{LONG}_2")
    for n in 1, 2:
        found = dbt.sql(f"select * from marts.{LONG}_{n} order by id")
        assert found == dbt.sql("select * from hand.basic order by id")
        assert len(leaves(dbt, f"{LONG}_{n}")) == 3


def test_a_developers_copies_are_apart(
    server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = {
        "plain.sql": model("select date '2024-12-02' as ds"),
        "deep.sql": model("select ds from {{ ref('plain') }}", extra="schema='ods'"),
    }
    folder = tmp_path_factory.mktemp("alice")
    with scratch(server, folder, "alice", files, settings={"VITRINA_SCHEMA": "alice"}) as dbt:
        dbt.run("plain", "deep")
        found = dbt.sql("select oid::regclass::text from pg_class where relkind in ('p', 'r')"
                        " and relnamespace::regnamespace::text like 'alice%' order by 1")  # fmt: skip
        assert [name for (name,) in found] == [
            "alice.plain", "alice_days.plain_20241202",
            "alice_ods.deep", "alice_ods_days.deep_20241202",
        ]  # fmt: skip
        dbt.run("plain", "deep", days=[D1])


# Crashes and company


@pytest.fixture
def slow(dbt: Scratch) -> Iterator[Callable[[float], None]]:
    """The model `slow` over two days, built once; sets how long a row of it takes."""
    dbt.sql("drop table if exists hand.slow; create table hand.slow (ds date, id int)")
    dbt.sql("insert into hand.slow values ('2024-12-02', 1), ('2024-12-03', 2), ('2024-12-03', 3)")

    def pause(seconds: float) -> None:
        dbt.sql("update hand.pauses set s = %s", seconds)

    pause(0)
    dbt.run("slow", "--full-refresh")
    yield pause
    pause(0)


def wait_for(dbt: Scratch, condition: str, *values: object) -> None:
    deadline = time.monotonic() + 240  # a busy machine takes its time to start dbt
    while dbt.sql(f"select 1 where {condition}", *values) == []:
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)


INSERTING = (
    "exists (select from pg_stat_activity where datname = current_database()"
    " and wait_event = 'PgSleep' and query ~ 'insert into')"
)
WAITING = "exists (select from pg_locks where locktype = 'advisory' and not granted)"


def test_kill_leaves_the_old_days_and_no_ghost(dbt: Scratch, slow: Callable[[float], None]) -> None:
    before = dbt.sql("select tableoid, ctid, * from marts.slow")
    dbt.sql("update hand.slow set id = id * 10")
    slow(300)
    process = dbt.beside("slow", [D1, D2])
    try:
        wait_for(dbt, INSERTING)
    finally:
        process.kill()
        process.join()
    assert dbt.sql("select tableoid, ctid, * from marts.slow") == before
    # The server notices that nobody is there any more; without that the rerun would wait 15 minutes.
    slow(0)
    dbt.run("slow", days=[D1, D2])
    assert dbt.rows("marts.slow") == [(D1, 10), (D2, 20), (D2, 30)]
    assert litter(dbt) == []


def test_two_runs_of_one_day_wait_for_each_other(
    dbt: Scratch, slow: Callable[[float], None]
) -> None:
    slow(0.5)
    first = dbt.beside("slow", [D2])
    second = dbt.beside("slow", [D1, D2])
    wait_for(dbt, WAITING)
    slow(0)
    for process in first, second:
        process.join()
    assert [first.exitcode, second.exitcode] == [0, 0]
    assert dbt.rows("marts.slow") == [(D1, 1), (D2, 2), (D2, 3)]
    assert litter(dbt) == []


def test_two_first_builds_at_once(dbt: Scratch, slow: Callable[[float], None]) -> None:
    """Neither the table nor the schemas are there."""
    dbt.sql("drop schema marts, marts_days cascade")
    slow(0.5)
    first = dbt.beside("slow", [D1])
    second = dbt.beside("slow", [D2])
    for process in first, second:
        process.join()
    assert [first.exitcode, second.exitcode] == [0, 0]
    assert dbt.rows("marts.slow") == [(D1, 1), (D2, 2), (D2, 3)]
    assert set(leaves(dbt, "slow")) == {str(D1), str(D2)}


def test_schemas_that_another_run_has_made_meanwhile(
    dbt: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dbt commits what it believes to have begun; a first build beside another one failed now and then."""
    monkeypatch.setattr("dbt.adapters.postgres.PostgresAdapter.list_schemas", lambda *_: [])
    dbt.hand("basic", f"('{D1}', 1, 'a')")
    for _ in range(2):
        dbt.run("basic", days=[D1])
    assert dbt.rows("marts.basic", "ds, id") == [(D1, 1)]


@pytest.mark.parametrize("flags", [(), ("--full-refresh",)])
def test_readers_see_a_full_table_all_the_time(
    dbt: Scratch, slow: Callable[[float], None], flags: tuple[str, ...]
) -> None:
    seen: set[tuple[int, int]] = set()
    polls = 0
    stop = Event()

    def read() -> None:
        nonlocal polls
        with psycopg.connect(dbt.server.url(dbt.database), autocommit=True) as connection:
            while not stop.is_set():
                row = connection.execute("select count(*), sum(id) from marts.slow").fetchone()
                assert row is not None
                seen.add((row[0], row[1]))
                polls += 1

    slow(0.05)
    reader = Thread(target=read)
    reader.start()
    try:
        for n in range(3):
            dbt.sql("update hand.slow set id = id + 100")
            dbt.run("slow", *flags, days=None if flags else [D1, D2])
            assert dbt.sql("select sum(id) from marts.slow") == [(6 + 300 * (n + 1),)]
    finally:
        stop.set()
        reader.join()
    assert seen <= {(3, 6 + 300 * n) for n in range(4)}
    assert polls > 100


# Views


def test_views_are_replaced_in_place_unless_their_columns_change(dbt: Scratch) -> None:
    hand(dbt, "base_view", "(1, 'a')", "id int, note text")
    dbt.run("made_first")
    dbt.sql("create table marts.base_view (n int)")
    dbt.run("base_view")
    assert kind(dbt, "base_view") == [("v",)]
    dbt.sql("create view marts.dependent as select id from marts.base_view")
    oid = dbt.sql("select 'marts.base_view'::regclass::oid")
    dbt.sql("alter table hand.base_view add column extra int default 3")
    dbt.run("base_view")
    assert dbt.sql("select 'marts.base_view'::regclass::oid") == oid, "a column more at the end"
    assert dbt.rows("marts.base_view") == [(1, "a", 3)]
    assert dbt.rows("marts.dependent") == [(1,)]
    dbt.sql("drop view marts.dependent; drop view marts.base_view;"
            "alter table hand.base_view alter column id type bigint")  # fmt: skip
    dbt.sql("create view marts.base_view as select 1 as id, 'x' as note")
    dbt.run("base_view")
    assert dbt.rows("marts.base_view") == [(1, "a", 3)]
    assert columns(dbt, "base_view") == "id,note,extra"


def test_two_runs_of_a_view_at_once(dbt: Scratch) -> None:
    dbt.sql("create table if not exists hand.base_view (id int, note text)")
    dbt.run("base_view")
    both = [dbt.beside("base_view") for _ in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
