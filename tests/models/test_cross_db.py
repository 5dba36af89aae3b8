"""macros/cross_db on PostgreSQL, each against literals, and what they do elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sandbox.dbt import ROOT, Project
from sandbox.postgres import PostgresServer
from tests.models.scratch import Scratch, scratch

# One call of each; the names are those of the files.
CALLS = {
    "business_date": "('instant')",
    "day_literal": "('2024-02-29')",
    "days_between": "('2024-02-28', '2024-03-01')",
    "days_later": "('day', -3)",
    "engine_type": "('NUMERIC(18, 2)')",
    "instant_literal": "('2024-12-08T10:00:00.000001')",
    "iso_week": "('day')",
    "iso_year": "('day')",
    "joins_in_one_pass": "()",
    "month_start": "('day')",
    "last_known": "('v', 'at')",
    "nullable": "('day')",
    "percentile_by_key": "('events', keys=['ds', 'k'], value='v', fraction=0.95, name='p')",
    "rows_of_keys": "('every', key='k', keys='wanted')",
    "stored_type": "(api.Column.create('c', 'text'))",
    "text_order": "('t')",
    "week_start": "('day')",
}
MACROS = sorted(p.stem for p in (ROOT / "macros" / "cross_db").glob("*.sql"))
ZONES = {"moscow": "Europe/Moscow", "new_york": "America/New_York", "kolkata": "Asia/Kolkata"}


@dataclass(frozen=True)
class Compiled:
    """What the macros emit; the scratch database to try it on."""

    scratch: Scratch
    _known: dict[tuple[str, str], str] = field(default_factory=dict)

    def __call__(self, name: str, zone: str = "Europe/Moscow") -> str:
        if (name, zone) not in self._known:
            done = self.scratch.dbt("compile", "--select", *CALLS, BUSINESS_TIMEZONE=zone)
            assert done.success, done.failures()
            self._known.update({(n.name, zone): n.compiled.strip() for n in done.nodes})
        return self._known[name, zone]


@pytest.fixture(scope="module")
def compiled(
    server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Compiled]:
    models = {f"{name}.sql": f"{{{{ {name}{call} }}}}" for name, call in CALLS.items()}
    models |= {
        f"unknown__{name}.sql": f"{{{{ default__{name}{call} }}}}" for name, call in CALLS.items()
    }
    with scratch(server, tmp_path_factory.mktemp("cross_db"), "cross_db", models) as made:
        yield Compiled(made)


def test_every_macro_is_tested() -> None:
    assert {*CALLS, "not_implemented"} == set(MACROS)


def test_an_unknown_engine_raises(compiled: Compiled) -> None:
    failed = compiled.scratch.dbt("run", "--select", *(f"unknown__{name}" for name in CALLS))
    messages = {node.name.removeprefix("unknown__"): node.message for node in failed.nodes}
    assert set(messages) == set(CALLS)
    for name, message in messages.items():
        assert f"{name} is not implemented for postgres" in message


@pytest.mark.parametrize("target", ["clickhouse", "vertica"])
def test_the_project_parses_for_every_target(target: str, tmp_path: Path) -> None:
    project = Project(target_path=tmp_path)
    done = project.invoke(["parse"], {"VITRINA_TARGET": target})
    assert done.success, done.error


BUSINESS_DATES = [
    ("moscow", "2024-12-08 20:59:59.999999Z", date(2024, 12, 8)),
    ("moscow", "2024-12-08 21:00:00Z", date(2024, 12, 9)),
    # Summer time until 2011, four hours until 2014.
    ("moscow", "2010-07-01 19:59:59.999999Z", date(2010, 7, 1)),
    ("moscow", "2010-07-01 20:00:00Z", date(2010, 7, 2)),
    ("moscow", "2013-01-01 20:00:00Z", date(2013, 1, 2)),
    # A day of 23 hours and one of 25.
    ("new_york", "2024-03-10 04:59:59.999999Z", date(2024, 3, 9)),
    ("new_york", "2024-03-10 05:00:00Z", date(2024, 3, 10)),
    ("new_york", "2024-03-11 03:59:59.999999Z", date(2024, 3, 10)),
    ("new_york", "2024-03-11 04:00:00Z", date(2024, 3, 11)),
    ("new_york", "2024-11-04 04:59:59.999999Z", date(2024, 11, 3)),
    ("new_york", "2024-11-04 05:00:00Z", date(2024, 11, 4)),
    ("kolkata", "2024-12-31 18:29:59.999999Z", date(2024, 12, 31)),
    ("kolkata", "2024-12-31 23:29:59+05:00", date(2024, 12, 31)),
    ("kolkata", "2024-12-31 18:30:00Z", date(2025, 1, 1)),
    ("moscow", None, None),
]


@pytest.mark.parametrize(("zone", "instant", "day"), BUSINESS_DATES)
def test_business_date(
    compiled: Compiled, zone: str, instant: str | None, day: date | None
) -> None:
    cut = compiled("business_date", ZONES[zone])
    for session in "UTC", "Pacific/Apia", "America/New_York":
        statement = f"set timezone to '{session}'; select {cut} from (values (cast("
        value = "null" if instant is None else f"'{instant}'"
        assert compiled.scratch.sql(f"{statement}{value} as timestamptz))) as v (instant)") == [
            (day,)
        ]


def test_literals(compiled: Compiled) -> None:
    day = compiled("day_literal")
    instant = compiled("instant_literal")
    # A naive instant is UTC, whatever the session's zone.
    found = compiled.scratch.sql(f"set timezone to 'Pacific/Apia'; select {day}, {instant}")
    assert found == [(date(2024, 2, 29), datetime(2024, 12, 8, 10, 0, 0, 1, UTC))]


PERCENTILES = [
    ([7], 7.0),
    ([1, 2], 1.95),
    (list(range(1, 21)), 19.05),
    (list(range(1, 22)), 20.0),
    ([10, None, 20, None], 19.5),
    ([-5, -10, 0.5], -0.05),
    ([None], None),
]


@pytest.mark.parametrize(("values", "expected"), PERCENTILES)
def test_percentile_by_key(compiled: Compiled, values: list[Any], expected: float | None) -> None:
    step = compiled("percentile_by_key")
    with compiled.scratch.connect() as connection:
        connection.execute("create temporary table events (ds date, k text, v float8)")
        with connection.cursor() as cursor:
            rows = [("2024-12-08", "k", v) for v in reversed(values)]
            cursor.executemany("insert into events values (%s, %s, %s)", rows)
        connection.execute(
            "insert into events values ('2024-12-09', 'k', 1000), ('2024-12-08', 'l', -1)"
        )
        found = {row[:2]: row[2] for row in connection.execute(step.encode()).fetchall()}
    others = {(date(2024, 12, 9), "k"): 1000.0, (date(2024, 12, 8), "l"): -1.0}
    mine = (
        {} if expected is None else {(date(2024, 12, 8), "k"): pytest.approx(expected, rel=1e-12)}
    )
    assert found == {**others, **mine}, "a key without a value has no row"


WEEKS_AND_MONTHS = [
    ("2024-12-29", 2024, 52, "2024-12-23", "2024-12-01"),
    ("2024-12-30", 2025, 1, "2024-12-30", "2024-12-01"),
    ("2025-01-05", 2025, 1, "2024-12-30", "2025-01-01"),
    ("2021-01-03", 2020, 53, "2020-12-28", "2021-01-01"),
    ("2012-01-01", 2011, 52, "2011-12-26", "2012-01-01"),
    ("2024-02-29", 2024, 9, "2024-02-26", "2024-02-01"),
    # Midnight left out in Sao Paulo, and the whole day in Samoa.
    ("2018-11-04", 2018, 44, "2018-10-29", "2018-11-01"),
    ("2011-12-30", 2011, 52, "2011-12-26", "2011-12-01"),
]


@pytest.mark.parametrize(("day", "year", "week", "monday", "month"), WEEKS_AND_MONTHS)
def test_weeks_and_months(
    compiled: Compiled, day: str, year: int, week: int, monday: str, month: str
) -> None:
    names = ("iso_year", "iso_week", "week_start", "month_start")
    columns = ", ".join(compiled(name) for name in names)
    expected = [(year, week, date.fromisoformat(monday), date.fromisoformat(month))]
    for session in "UTC", "Pacific/Apia", "America/Sao_Paulo":
        statement = f"set timezone to '{session}'; select {columns}"
        assert (
            compiled.scratch.sql(f"{statement} from (select date '{day}' as day) as d") == expected
        )


def test_types_and_days(compiled: Compiled) -> None:
    later, same = compiled("days_later"), compiled("nullable")
    source = "(select date '2024-03-01' as day) as d"
    found = compiled.scratch.sql(f"select {later}, {same} from {source}")
    assert found == [(date(2024, 2, 27), date(2024, 3, 1))]
    assert compiled("engine_type") == "numeric(18, 2)"
    assert compiled("stored_type") == "text"


def test_days_between(compiled: Compiled) -> None:
    found = compiled.scratch.sql(compiled("days_between"))
    assert found == [(date(2024, 2, 28),), (date(2024, 2, 29),), (date(2024, 3, 1),)]


@pytest.mark.parametrize("days", [None, [date(2024, 12, 8)]])
def test_rows_of_keys(compiled: Compiled, days: list[date] | None) -> None:
    """In a window by look-ups; without one all rows, as every key is wanted."""
    done = compiled.scratch.dbt("compile", "--select", "rows_of_keys", days=days)
    statement = (
        "with every (k, n) as (values ('a', 1), ('a', 2), ('b', 3), (null, 4)),"
        " wanted (k) as (values ('a'), ('a'), (null), ('c'))"
    )
    found = compiled.scratch.sql(f"{statement} {done.nodes[0].compiled}")
    assert sorted(found, key=str) == [("a", 1), ("a", 2)] + ([] if days else [("b", 3), (None, 4)])


def test_joins_in_one_pass(compiled: Compiled) -> None:
    """Two steps that look like one row each are hashed or sorted, not compared row by row."""
    join = (
        "explain select from (values (1), (2)) as a (n) join (values (1), (2)) as b (n)"
        " on a.n = b.n"
    )
    plan = compiled.scratch.sql(f"{compiled('joins_in_one_pass')} {join}")
    assert not any("Nested Loop" in line for (line,) in plan)


TEXTS = ["", " a", "A", "B", "Z", "a", "a-b", "aa", "ab", "b", "ß", "é", "Ж", "я", "ﬀ", "𐀀"]


def test_text_order_is_that_of_the_bytes(compiled: Compiled) -> None:
    """In the database's own collation, and in one that would order otherwise, where there is one."""
    order = compiled("text_order")
    expected = sorted(TEXTS, key=lambda text: text.encode())
    assert expected != sorted(TEXTS, key=str.casefold)
    collations = compiled.scratch.sql(
        "select quote_ident(collname) from pg_collation where collprovider in ('c', 'i')"
        " and collencoding in (-1, pg_char_to_encoding('UTF8')) and collname ~ '^(en|de|ru)' limit 3"
    )
    for collation in ['"default"', *(name for (name,) in collations)]:
        with compiled.scratch.connect() as connection:
            connection.execute(f"create temporary table x (t text collate {collation})".encode())
            with connection.cursor() as cursor:
                cursor.executemany("insert into x values (%s)", [(text,) for text in TEXTS])
            found = connection.execute(f"select t from x order by {order}".encode()).fetchall()
        assert [text for (text,) in found] == expected


def test_text_order_in_a_database_of_another_collation(
    server: PostgresServer, compiled: Compiled
) -> None:
    name = server.create_database("other_collation")
    server.drop_database(name)
    try:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute(
                f"create database {name} template template0 locale_provider builtin"
                " builtin_locale 'C.UTF-8' lc_collate 'C.UTF-8' lc_ctype 'C.UTF-8'".encode()
            )
    except psycopg.Error as error:
        pytest.skip(f"this server has no other collation: {error}")
    try:
        order = compiled("text_order")
        with psycopg.connect(server.url(name)) as connection:
            found = connection.execute(
                f"select t from unnest(%s::text[]) as t order by {order} desc".encode(), [TEXTS]
            ).fetchall()
        assert [text for (text,) in found] == sorted(TEXTS, key=str.encode, reverse=True)
    finally:
        server.drop_database(name)


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ([("10:00:00", 1), ("10:00:01", 0)], 0),
        ([("10:00:00.9", 9), ("10:00:00.1", 10), ("10:00:00.5", None)], 10),
        ([("10:00:00", -5), ("10:00:01", None)], -5),
        ([("10:00:00", None)], None),
    ],
)
def test_last_known(compiled: Compiled, said: list[tuple[str, int | None]], value: object) -> None:
    """On both engines: the unit tests of ods_user_attributes."""
    rows = ", ".join(
        f"(cast({'null' if v is None else v} as bigint), timestamptz '2024-12-08 {at}Z')"
        for at, v in said
    )
    statement = f"select {compiled('last_known')} from (values {rows}) as said (v, at)"
    assert compiled.scratch.sql(statement) == [(value,)]
