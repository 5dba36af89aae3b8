"""The mistakes of MISTAKES.md that a model can make, on the real models over hand-made raw tables."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from tests.models.raw import Warehouse

D1, D2, D3 = (date(2024, 12, n) for n in (2, 3, 4))


@pytest.fixture
def raw(warehouse: Warehouse) -> Warehouse:
    """No rows in any table."""
    warehouse.clear()
    return warehouse


def mart(raw: Warehouse, columns: str) -> list[tuple[Any, ...]]:
    found = raw.vitrina.query(
        f"select {columns} from marts.dm_client_telemetry order by ds, client_id"
    )
    return [tuple(row.values()) for row in found]


def clients(raw: Warehouse, table: str = "ods_crm_clients") -> list[tuple[Any, ...]]:
    found = raw.vitrina.query(
        f"select client_id, plan from ods.{table} order by client_id, valid_from"
    )
    return [tuple(row.values()) for row in found]


def test_mistake_t03_a_retry_does_not_double_the_day(raw: Warehouse) -> None:
    """T03: plain INSERT into ODS."""
    raw.land_day(D1, [{"client_id": "a"}, {"client_id": "a"}])
    raw.land_day(D2, [{"client_id": "a", "event_id": "x"}])
    for days in (D1, D2), (D1,), ():
        raw.build(*days)
        assert mart(raw, "ds, events_cnt") == [(D1, 2), (D2, 1)]
        assert raw.vitrina.query("select count(*) as n from ods.ods_telemetry") == [{"n": 3}]


def test_mistake_t04_clients_that_the_crm_does_not_know_keep_their_events(raw: Warehouse) -> None:
    """T04: INNER JOIN to the CRM."""
    raw.serve("known", plan="pro", updated_at="2024-01-01Z")
    raw.serve("later", plan="pro", updated_at="2024-12-03T00:00Z")
    raw.land_day(D1, [{"client_id": c} for c in ("known", "later", "stranger")])
    raw.build(D1)
    assert mart(raw, "client_id, plan, events_cnt") == [
        ("known", "pro", 1),
        ("later", None, 1),
        ("stranger", None, 1),
    ]


def test_mistake_t06_an_older_version_that_comes_later_does_not_win(raw: Warehouse) -> None:
    """T06: an older version overwrites a newer one."""
    raw.serve("a", plan="new", updated_at="2024-12-03T09:00Z")
    raw.build(D1)
    assert clients(raw) == [("a", "new")]
    raw.serve("a", plan="old", updated_at="2024-12-02T09:00Z")
    raw.build(D1)
    assert clients(raw) == [("a", "new")]
    assert clients(raw, "ods_crm_clients_history") == [("a", "old"), ("a", "new")]


def test_mistake_t07_two_versions_of_one_client_in_one_batch(raw: Warehouse) -> None:
    """T07: two versions of one key in one batch break the upsert."""
    for plan in "free", "pro", None:
        raw.serve("a", plan=plan, updated_at="2024-12-02T09:00Z")
    raw.serve("b", plan="free", updated_at="2024-12-02T09:00Z")
    raw.serve("b", plan="pro", updated_at="2024-12-02T10:00Z")
    raw.land_day(D1, [{"client_id": "a"}, {"client_id": "b"}])
    raw.build(D1)
    # Of one instant the version served last holds, its nulls too.
    assert clients(raw) == [("a", None), ("b", "pro")]
    assert clients(raw, "ods_crm_clients_history") == [("a", None), ("b", "free"), ("b", "pro")]
    assert mart(raw, "client_id, plan, events_cnt") == [("a", None, 1), ("b", "pro", 1)]


def test_mistake_t09_an_old_day_keeps_the_attributes_of_its_time(raw: Warehouse) -> None:
    """T09: today's attributes written over history when an old day is rebuilt."""
    raw.serve("a", plan="free", created_at="2024-12-01Z", updated_at="2024-12-02T09:00Z")
    # Midnight in Moscow: this version does not hold yet at the end of the 3rd.
    raw.serve("a", plan="pro", updated_at="2024-12-03T21:00Z")
    for day in D1, D2, D3:
        raw.land_day(day, [{"client_id": "a"}])
    expected = [(D1, "free"), (D2, "free"), (D3, "pro")]
    for days in (), (D2, D1):
        raw.build(*days)
        assert mart(raw, "ds, plan") == expected


def test_mistake_t11_a_day_without_events_is_empty_everywhere(raw: Warehouse) -> None:
    """T11: a day without events leaves the old staging rows in place."""
    raw.land_day(D1, [{"client_id": "a"}])
    raw.land_day(D2, [{"client_id": "a"}])
    raw.build(D1, D2)
    raw.land_day(D1, [])
    raw.build(D1)
    assert mart(raw, "ds") == [(D2,)]
    for table in "staging.stg_telemetry", "ods.ods_telemetry":
        assert raw.vitrina.query(f"select distinct ds from {table}") == [{"ds": D2}]
