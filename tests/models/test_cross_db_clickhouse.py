"""macros/cross_db on ClickHouse, each against the literals that PostgreSQL's are held against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
import yaml

from sandbox.clickhouse import ClickhouseServer
from sandbox.dbt import ROOT
from tests.models.scratch import ClickhouseScratch, clickhouse_scratch
from tests.models.test_cross_db import (
    BUSINESS_DATES,
    CALLS,
    PERCENTILES,
    TEXTS,
    WEEKS_AND_MONTHS,
    ZONES,
)

PROFILES = yaml.safe_load((ROOT / "profiles.yml").read_text())
SETTINGS: dict[str, Any] = PROFILES["vitrina"]["outputs"]["clickhouse"]["custom_settings"]
SESSIONS = ("UTC", "Pacific/Apia", "America/New_York")


@dataclass(frozen=True)
class Compiled:
    """What the macros emit; the server to try it on, with the settings of dbt's sessions."""

    scratch: ClickhouseScratch
    _known: dict[tuple[str, str], str] = field(default_factory=dict)

    def __call__(self, name: str, zone: str = "Europe/Moscow") -> str:
        if (name, zone) not in self._known:
            done = self.scratch.dbt("compile", "--select", *CALLS, BUSINESS_TIMEZONE=zone)
            assert done.success, done.failures()
            self._known.update({(n.name, zone): n.compiled.strip() for n in done.nodes})
        return self._known[name, zone]

    def rows(self, statement: str, session: str = "UTC") -> list[tuple[Any, ...]]:
        """Rows of a statement in a session of this zone."""
        settings = {**SETTINGS, "session_timezone": session}
        return [
            tuple(r) for r in self.scratch.client.query(statement, settings=settings).result_rows
        ]


@pytest.fixture(scope="module")
def compiled(
    clickhouse: ClickhouseServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Compiled]:
    models = {f"{name}.sql": f"{{{{ {name}{call} }}}}" for name, call in CALLS.items()}
    with clickhouse_scratch(clickhouse, tmp_path_factory.mktemp("cross_db"), models) as made:
        yield Compiled(made)


@pytest.mark.parametrize(("zone", "instant", "day"), BUSINESS_DATES)
def test_business_date(
    compiled: Compiled, zone: str, instant: str | None, day: date | None
) -> None:
    cut = compiled("business_date", ZONES[zone])
    value = "null" if instant is None else f"'{instant}'"
    source = f"(select cast({value} as Nullable(DateTime64(6, 'UTC'))) as instant)"
    for session in SESSIONS:
        found = compiled.rows(f"select {cut}, toTypeName({cut}) from {source}", session)
        assert found == [(day, "Nullable(Date32)")]


def test_literals(compiled: Compiled) -> None:
    day, instant = compiled("day_literal"), compiled("instant_literal")
    for session in SESSIONS:
        found = compiled.rows(f"select {day}, toString({instant}), toTypeName({instant})", session)
        assert found == [
            (date(2024, 2, 29), "2024-12-08 10:00:00.000001", "DateTime64(6, 'UTC')"),
        ]


@pytest.mark.parametrize(("values", "expected"), PERCENTILES)
@pytest.mark.parametrize("kind", ["Float64", "Decimal(18, 2)"])
def test_percentile_by_key(
    compiled: Compiled, kind: str, values: list[Any], expected: float | None
) -> None:
    texts = ", ".join("null" if v is None else f"'{v}'" for v in reversed(values))
    rows = (
        f"select '2024-12-08' as ds, 'k' as k, cast(arrayJoin([{texts}]) as Nullable({kind})) as v"
    )
    others = "select '2024-12-09', 'k', 1000 union all select '2024-12-08', 'l', -1"
    found = {
        row[:2]: row[2]
        for row in compiled.rows(
            f"with events as ({rows} union all {others}) {compiled('percentile_by_key')}"
        )
    }
    mine = {} if expected is None else {("2024-12-08", "k"): pytest.approx(expected, rel=1e-12)}
    assert found == {("2024-12-09", "k"): 1000.0, ("2024-12-08", "l"): -1.0, **mine}


@pytest.mark.parametrize(
    ("day", "year", "week", "monday", "month"),
    [
        *WEEKS_AND_MONTHS,
        # Where ClickHouse's Date ends, on either side.
        ("1905-01-01", 1904, 52, "1904-12-26", "1905-01-01"),
        ("2250-01-02", 2250, 1, "2249-12-31", "2250-01-01"),
    ],
)
def test_weeks_and_months(
    compiled: Compiled, day: str, year: int, week: int, monday: str, month: str
) -> None:
    names = ("iso_year", "iso_week", "week_start", "month_start")
    columns = [compiled(name) for name in names]
    chosen = ", ".join([*columns, *(f"toTypeName({column})" for column in columns)])
    expected = (year, week, date.fromisoformat(monday), date.fromisoformat(month))
    for session in SESSIONS:
        found = compiled.rows(f"select {chosen} from (select toDate32('{day}') as day)", session)
        assert found == [(*expected, "Int32", "Int32", "Date32", "Date32")]


def test_types_and_days(compiled: Compiled) -> None:
    later, same = compiled("days_later"), compiled("nullable")
    for day, before in ("2024-03-01", date(2024, 2, 27)), ("1905-01-02", date(1904, 12, 30)):
        found = compiled.rows(
            f"select {later}, toTypeName({later}), {same}, toTypeName({same})"
            f" from (select toDate32('{day}') as day)"
        )
        assert found == [(before, "Date32", date.fromisoformat(day), "Nullable(Date32)")]
    assert compiled("engine_type") == "Decimal(18, 2)"
    assert compiled("stored_type") == "text"


def test_days_between(compiled: Compiled) -> None:
    found = compiled.rows(f"select ds, toTypeName(ds) from ({compiled('days_between')})")
    days = [date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)]
    assert found == [(day, "Date32") for day in days]


@pytest.mark.parametrize("days", [None, [date(2024, 12, 8)]])
def test_rows_of_keys(compiled: Compiled, days: list[date] | None) -> None:
    done = compiled.scratch.dbt("compile", "--select", "rows_of_keys", days=days)
    steps = (
        "with every as (select tupleElement(r, 1) as k, tupleElement(r, 2) as n from"
        " (select arrayJoin([('a', 1), ('a', 2), ('b', 3), (null, 4)]) as r)),"
        " wanted as (select arrayJoin(['a', 'a', null, 'c']) as k)"
    )
    found = compiled.rows(f"{steps} {done.nodes[0].compiled}")
    assert sorted(found, key=str) == [("a", 1), ("a", 2)] + ([] if days else [("b", 3), (None, 4)])


def test_joins_in_one_pass_asks_for_nothing(compiled: Compiled) -> None:
    assert compiled("joins_in_one_pass") == ""


def test_text_order_is_that_of_the_bytes(compiled: Compiled) -> None:
    texts = ", ".join(f"'{text}'" for text in TEXTS)
    order = compiled("text_order")
    found = compiled.rows(f"select t from (select arrayJoin([{texts}]) as t) order by {order}")
    assert [text for (text,) in found] == sorted(TEXTS, key=lambda text: text.encode())


def test_the_settings_give_sql_its_standard_meaning(compiled: Compiled) -> None:
    """What ClickHouse would answer by itself is in docs/dialects.md."""
    nothing = "(select number from numbers(3) where number > 5)"
    assert compiled.rows(f"select max(number), sum(number), count(*) from {nothing}") == [
        (None, None, 0)
    ]
    assert compiled.rows("select sum(number) as number from numbers(4) where number > 2") == [(3,)]
    assert compiled.rows("select 1 as n union select 1 as n") == [(1,)]
    assert compiled.rows("select cast(cast(null as Nullable(Int8)) as bigint)") == [(None,)]
    assert compiled.rows("select cast('2024-12-08 13:00:00.5+03' as DateTime64(6, 'UTC'))") == [
        (datetime(2024, 12, 8, 10, 0, 0, 500_000),)  # noqa: DTZ001  # as the driver gives it
    ]
    # A decimal is rounded half away from zero, its cast cuts it off.
    tie = "toDecimal64('{}2.345', 3)"
    for sign in "", "-":
        value = tie.format(sign)
        found = compiled.rows(f"select round({value}, 2), cast({value} as numeric(18, 2))")
        assert found == [(Decimal(f"{sign}2.350"), Decimal(f"{sign}2.34"))]
