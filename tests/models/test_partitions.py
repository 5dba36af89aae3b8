"""Tables are partitioned by day for real, and whoever asks for days reads their leaves alone."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import date, timedelta

import pytest

from tests.models.raw import Warehouse

DAYS = [date(2024, 11, 20) + timedelta(days=n) for n in range(20)]
D1, D2 = DAYS[10], DAYS[12]
PARTITIONED = ("raw.telemetry_events", "ods.ods_telemetry", "marts.dm_client_telemetry")


@pytest.fixture(scope="module")
def landed(warehouse: Warehouse) -> Warehouse:
    """Twenty days, all built."""
    for day in DAYS:
        warehouse.land_day(day, [{"client_id": "a", "event_id": n} for n in range(3)])
    warehouse.build()
    return warehouse


def days_read(landed: Warehouse, statement: str) -> dict[str, set[str]]:
    """The days of the leaves that the plan of a statement scans, by table."""
    plan = landed.vitrina.query(f"explain (costs off) {statement}")
    lines = "\n".join(line["QUERY PLAN"] for line in plan)
    found: dict[str, set[str]] = {}
    for table, day in re.findall(r"Scan .*?on (\w+?)_(\d{8})\b", lines):
        found.setdefault(table, set()).add(day)
    return found


def compiled(landed: Warehouse, names: Collection[str], *days: date) -> dict[str, str]:
    done = landed.vitrina.dbt("compile", "--select", *names, days=days or None)
    assert done.success, done.failures()
    return {node.name: node.compiled for node in done.nodes}


def written(*days: date) -> set[str]:
    return {f"{day:%Y%m%d}" for day in days}


def test_mistake_t12_tables_are_partitioned_and_plans_are_pruned(landed: Warehouse) -> None:
    """T12: partitioning promised and not there."""
    for table in PARTITIONED:
        found = landed.vitrina.query(
            "select pg_get_partkeydef(%s::regclass) as by, count(*) as leaves from pg_inherits"
            " where inhparent = %s::regclass",
            table,
            table,
        )
        assert found == [{"by": "LIST (ds)", "leaves": len(DAYS)}]
        name = table.partition(".")[2]
        for condition, days in {
            f"ds = '{D1}'": [D1],
            f"ds >= '{D1}' and ds < '{D2}'": DAYS[10:12],
            f"(ds >= '{D1}' and ds <= '{D1}' or ds >= '{D2}' and ds <= '{D2}')": [D1, D2],
        }.items():
            statement = f"select count(*) from {table} where {condition}"
            assert days_read(landed, statement) == {name: written(*days)}


def test_the_staging_view_passes_the_days_on(landed: Warehouse) -> None:
    read = days_read(landed, f"select * from staging.stg_telemetry where ds = '{D1}'")
    assert read == {"telemetry_events": written(D1)}


def test_a_run_reads_the_leaves_of_its_window(landed: Warehouse) -> None:
    """Of models, and of data tests by `get_where_subquery`."""
    tables = {
        "ods_telemetry": "telemetry_events",
        "dm_client_telemetry": "ods_telemetry",
        "unique_grain_ods_telemetry_ds__event_id": "ods_telemetry",
        "at_least_dm_client_telemetry_errors_cnt__0": "dm_client_telemetry",
        "assert_telemetry_clients_are_known": "dm_client_telemetry",
        "assert_telemetry_events_have_a_client": "ods_telemetry",
    }
    for days in [D1, D2], []:
        found = compiled(landed, tables, *days)
        for name, table in tables.items():
            read = days_read(landed, found[name])
            assert read == {table: written(*(days or DAYS))}, name


def test_the_volume_test_reads_the_same_weekdays_before(landed: Warehouse) -> None:
    name = "assert_telemetry_volume_is_usual"
    read = days_read(landed, compiled(landed, [name], D1, D2)[name])
    week = timedelta(days=7)
    assert read == {"dm_client_telemetry": written(D1, D2, D1 - week, D2 - week)}
