"""Tables are partitioned by day for real, and whoever asks for days reads their leaves alone."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import date, timedelta

import pytest

from tests.models.raw import Warehouse

DAYS = [date(2024, 11, 20) + timedelta(days=n) for n in range(20)]
D1, D2 = DAYS[10], DAYS[12]
PARTITIONED = (
    "raw.telemetry_events",
    "ods.ods_telemetry",
    "marts.dm_client_telemetry",
    "raw.user_order_log",
    "ods.ods_orders",
    "core.f_sales",
)


@pytest.fixture(scope="module")
def landed(warehouse: Warehouse) -> Warehouse:
    """Twenty days, all built."""
    for day in DAYS:
        warehouse.land_day(day, [{"client_id": "a", "event_id": n} for n in range(3)])
    warehouse.deliver(None, [{"ds": day, "order_id": str(day)} for day in DAYS])
    warehouse.build()
    warehouse.build(domain="orders")
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


def test_a_run_of_orders_reads_its_days_and_those_of_their_periods(landed: Warehouse) -> None:
    """D1 is 30 November: of the week from the 25th, and the last day of its month."""
    periods = [day for day in DAYS if day <= date(2024, 12, 1)]
    tables = {
        "ods_orders": ("user_order_log", [D1]),
        "f_sales": ("ods_orders", [D1]),
        "f_customer_retention": ("f_sales", periods),
        "f_customer_retention_by_item": ("f_sales", periods),
        "assert_customer_retention_revenue_is_that_of_the_sales": ("f_sales", periods),
        "unique_grain_f_sales_order_id": ("f_sales", [D1]),
        "assert_orders_have_a_customer": ("f_sales", [D1]),
    }
    found = compiled(landed, tables, D1)
    for name, (table, days) in tables.items():
        assert days_read(landed, found[name]) == {table: written(*days)}, name


def test_the_lines_test_reads_the_days_of_both_sides(landed: Warehouse) -> None:
    name = "assert_order_lines_are_counted_once"
    read = days_read(landed, compiled(landed, [name], D1, D2)[name])
    assert read == {"user_order_log": written(D1, D2), "f_sales": written(D1, D2)}


def test_copies_are_looked_up_by_their_index(landed: Warehouse) -> None:
    """A window's orders, whatever the planner thinks of their number; not all of the history."""
    statement = compiled(landed, ["ods_orders"], D1)["ods_orders"]
    plan = landed.vitrina.query(f"explain (costs off) {statement}")
    lines = [line["QUERY PLAN"] for line in plan]
    assert any(re.search(r"Index Cond: \(order_id = ", line) for line in lines)
    assert not any("Seq Scan on order_copies" in line for line in lines)


def test_the_volume_test_reads_the_same_weekdays_before(landed: Warehouse) -> None:
    name = "assert_telemetry_volume_is_usual"
    read = days_read(landed, compiled(landed, [name], D1, D2)[name])
    week = timedelta(days=7)
    assert read == {"dm_client_telemetry": written(D1, D2, D1 - week, D2 - week)}
