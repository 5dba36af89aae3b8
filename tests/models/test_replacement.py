"""What a run replaces, and what survives it: the contract of `meta.unit`, the same on every engine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import pytest

from tests.models.scratch import AnyScratch, clickhouse_scratch, model, reading, scratch

D1, D2, D3, D4 = (date(2024, 12, n) for n in (2, 3, 4, 5))
ABC = "('2024-12-02', 1, 'a'), ('2024-12-03', 2, 'b'), ('2024-12-03', 3, null), ('2024-12-05', 4, 'd')"
PERIODS = """
select period_name, period_id, {{{{ to_bigint('count(*)') }}}} as rows_cnt
from (
    select 'weekly' as period_name, cast(date_trunc('week', ds) as date) as period_id from hand.{name}
    union all
    select 'monthly' as period_name, cast(date_trunc('month', ds) as date) as period_id from hand.{name}
) as periods
where {where}
group by period_name, period_id
"""
TOUCHED = "select k, l from hand.key where {{ in_window('ds') }}"
KEYS = """
select k, l, sum(n) as total from hand.key
where gone is null and (1 = {{ 1 if window_days() is none else 0 }} or (k, l) in (
    select k, l from hand.key where {{ in_window('ds') }}
))
group by k, l
"""
MACROS = """
{% macro to_bigint(expression) %}cast({{ expression }} as {{ dbt.type_bigint() }}){% endmacro %}
"""
MODELS = {
    "basic": reading("basic"),
    "days": reading("days"),
    "leaky": reading("leaky", where="1 = 1"),
    "other_kind": reading("other_kind"),
    "many": reading("many"),
    "whole": reading("whole", "whole", where="1 = 1"),
    "period": model(PERIODS.format(name="period", where="{{ in_window_periods() }}"), "period"),
    "period_leaky": model(PERIODS.format(name="period", where="1 = 1"), "period"),
    "key": model(KEYS, "key", "unique_key=['k', 'l']", touched_keys=TOUCHED),
    "self": model(
        "select ds, {{ 1 if is_incremental() else 0 }} as again,"
        "{% if is_incremental() %}{{ to_bigint('(select count(*) from ' ~ this ~ ')') }}"
        "{% else %}{{ to_bigint('0') }}{% endif %} as seen"
        " from hand.basic where {{ in_window('ds') }}"
    ),
    "quoted": model(
        'select ds, id as "Id", note as "a b" from hand.basic where {{ in_window(\'ds\') }}',
        extra="alias='Mixed Case'",
    ),
    "textual": model("select cast(id as {{ dbt.type_string() }}) as ds from hand.basic"),
    "dayless": model("select id from hand.basic"),
    "unitless": "select 1 as n",
}
MODES = [
    ("ignore", "day"),
    ("fail", "day"),
    ("append_new_columns", "day"),
    ("sync_all_columns", "day"),
    ("append_new_columns", "whole"),
    ("sync_all_columns", "whole"),
]
for mode, unit in MODES:
    MODELS[f"{mode}_{unit}"] = reading(
        f"{mode}_{unit}",
        unit,
        f"on_schema_change='{mode}'",
        "{{ in_window('ds') }}" if unit == "day" else "1 = 1",
    )


@pytest.fixture(scope="module", params=["postgres", "clickhouse"])
def dbt(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AnyScratch]:
    files = {f"{name}.sql": text for name, text in MODELS.items()}
    folder = tmp_path_factory.mktemp("replacement")
    if request.param == "postgres":
        server = request.getfixturevalue("server")
        with scratch(server, folder, "replacement", files, MACROS) as made:
            made.hand("basic", ABC)
            yield made
    else:
        server = request.getfixturevalue("clickhouse")
        with clickhouse_scratch(server, folder, files, MACROS) as on_clickhouse:
            on_clickhouse.hand("basic", ABC)
            yield on_clickhouse


def columns(dbt: AnyScratch, name: str) -> list[str]:
    return [
        column
        for (column,) in dbt.sql(
            "select column_name from information_schema.columns where table_schema = 'marts'"
            f" and table_name = '{name}' order by ordinal_position"
        )
    ]


def test_exactly_the_windows_days_are_replaced(dbt: AnyScratch) -> None:
    columns = "ds date, id int"
    dbt.hand(
        "days",
        "('2024-12-02', 1), ('2024-12-03', 2), ('2024-12-04', 3), ('2024-12-05', 4)",
        columns,
    )
    dbt.run("days")
    dbt.hand("days", "('2024-12-02', 10), ('2024-12-03', 20), ('2024-12-05', 40)", columns)
    dbt.run("days", days=[D3, D2])
    # The 4th is emptied; the 2nd and the 5th have changed, but nobody asked for them.
    assert dbt.rows("marts.days") == [(D1, 1), (D2, 20), (D4, 4)]
    dbt.run("days", days=[D3, D2])
    assert dbt.rows("marts.days") == [(D1, 1), (D2, 20), (D4, 4)], "again is the same"
    dbt.run("days", "--full-refresh", days=[D3])
    assert dbt.rows("marts.days") == [(D1, 10), (D2, 20), (D4, 40)]
    dbt.hand("days", "", columns)
    dbt.run("days", days=[])
    assert len(dbt.rows("marts.days")) == 3
    dbt.run("days")
    assert dbt.rows("marts.days") == []


def test_a_first_build_of_a_window_and_then_of_the_rest(dbt: AnyScratch) -> None:
    dbt.run("basic", days=[D2])
    assert dbt.rows("marts.basic", "id") == [(2,), (3,)]
    dbt.run("basic", days=[D1, D3])
    dbt.run("basic", days=[D4])
    assert dbt.rows("marts.basic") == dbt.rows("hand.basic")
    dbt.run("basic", "--full-refresh")
    assert dbt.rows("marts.basic") == dbt.rows("hand.basic")


def test_a_row_of_another_day_fails_and_leaves_everything(dbt: AnyScratch) -> None:
    columns = "ds date, id int"
    dbt.hand("leaky", "('2024-12-02', 1), ('2024-12-03', 2)", columns)
    dbt.run("leaky")
    before = dbt.rows("marts.leaky")
    dbt.hand("leaky", "('2024-12-02', 0), ('2024-12-03', 0)", columns)
    message = dbt.refuse("leaky", days=[D1])
    assert "no partition" in message
    assert "2024-12-03" in message
    assert dbt.rows("marts.leaky") == before
    dbt.hand("leaky", "('2024-12-02', 0), (null, 9)", columns)
    for days in [D1, D2], None:
        assert "null" in dbt.refuse("leaky", days=days).lower() or days is None
        assert dbt.rows("marts.leaky") == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("textual", "asks for a column ds of type date, not "),
        ("dayless", "asks for a column ds of type date, not a model without ds"),
        ("unitless", "meta.unit is day, period, key or whole"),
    ],
)
def test_what_can_not_be_replaced_is_refused(dbt: AnyScratch, name: str, message: str) -> None:
    assert message in dbt.refuse(name)
    assert columns(dbt, name) == []


@pytest.mark.parametrize("made", ["table", "view"])
def test_another_kind_is_rebuilt_but_not_for_a_window(dbt: AnyScratch, made: str) -> None:
    """A table that was not replaced by days: other days than the window's would be lost."""
    dbt.sql("drop table if exists marts.other_kind")
    dbt.hand("other_kind", "('2024-12-02', 1), ('2024-12-03', 2)", "ds date, id int")
    dbt.run("basic", "--full-refresh")
    engine = (
        "engine = MergeTree order by ()" if (dbt.engine, made) == ("clickhouse", "table") else ""
    )
    dbt.sql(f"create {made} marts.other_kind {engine} as select * from hand.other_kind")
    assert "--full-refresh" in dbt.refuse("other_kind", days=[D1])
    assert len(dbt.rows("marts.other_kind")) == 2
    dbt.run("other_kind")
    assert dbt.rows("marts.other_kind") == dbt.rows("hand.other_kind")
    dbt.run("other_kind", days=[D1])
    assert dbt.rows("marts.other_kind") == dbt.rows("hand.other_kind")


def test_four_hundred_days_in_one_build(dbt: AnyScratch) -> None:
    first = date(2023, 12, 1)
    days = [first + timedelta(days=n) for n in range(400)]
    dbt.hand("many", ", ".join(f"('{day}', {n})" for n, day in enumerate(days)), "ds date, id int")
    dbt.run("many")
    dbt.run("many", days=days)
    assert dbt.rows("marts.many") == dbt.rows("hand.many")


def test_a_whole_table_is_replaced_whatever_the_window(dbt: AnyScratch) -> None:
    dbt.hand("whole", "('2024-12-02', 1), ('2024-12-03', 2)", "ds date, id int")
    dbt.sql("create view marts.whole as select 1 as n")
    dbt.run("whole", days=[D1])
    assert dbt.rows("marts.whole") == dbt.rows("hand.whole")
    dbt.hand("whole", "('2024-12-03', 5)", "ds date, id int")
    dbt.run("whole", days=[D1])
    assert dbt.rows("marts.whole") == dbt.rows("hand.whole")


def test_periods_over_a_year_end(dbt: AnyScratch) -> None:
    days = "('2024-12-29'), ('2024-12-31'), ('2025-01-01')"
    dbt.hand("period", f"{days}, ('2025-02-03')", "ds date")
    dec, jan, feb = date(2024, 12, 1), date(2025, 1, 1), date(2025, 2, 1)
    week, before, later = date(2024, 12, 30), date(2024, 12, 23), date(2025, 2, 3)
    rest = [("monthly", feb, 1), ("weekly", later, 1)]
    dbt.run("period")
    december = [("monthly", dec, 2), ("weekly", before, 1)]
    january = [("monthly", jan, 1), ("weekly", week, 2)]
    assert dbt.rows("marts.period") == sorted([*rest, *december, *january], key=str)
    # All of it changes, but the days of the window touch December and the week over the year's end.
    dbt.hand("period", f"{days}, {days}, ('2025-02-03'), ('2025-02-03')", "ds date")
    dbt.run("period", days=["2024-12-31"])
    half = [("monthly", dec, 4), ("weekly", before, 1), ("monthly", jan, 1), ("weekly", week, 4)]
    assert dbt.rows("marts.period") == sorted([*rest, *half], key=str)
    # An emptied period is gone.
    dbt.hand("period", f"{days}, {days}", "ds date")
    dbt.run("period", days=["2025-02-03"])
    assert dbt.rows("marts.period") == sorted(half, key=str)
    # A row of a period that the window does not touch would be there twice.
    dbt.run("period_leaky")
    assert "outside the window: " in dbt.refuse("period_leaky", days=["2024-12-31"])
    dbt.run("period", "--full-refresh", days=["2024-12-31"])
    whole = [("monthly", dec, 4), ("weekly", before, 2), ("monthly", jan, 2), ("weekly", week, 4)]
    assert dbt.rows("marts.period") == sorted(whole, key=str)


def test_keys_that_the_window_touches(dbt: AnyScratch) -> None:
    columns = "ds date, k text, l int, n int, gone bool"
    dbt.hand(
        "key",
        "('2024-12-02', 'a', 1, 10, null), ('2024-12-03', 'a', 1, 1, null),"
        "('2024-12-03', 'a', 2, 2, null), ('2024-12-02', 'b', 1, 3, null)",
        columns,
    )
    dbt.run("key")
    assert dbt.rows("marts.key") == [("a", 1, 11), ("a", 2, 2), ("b", 1, 3)]
    dbt.hand(
        "key",
        "('2024-12-02', 'a', 1, 110, null), ('2024-12-03', 'a', 1, 101, null),"
        "('2024-12-03', 'a', 2, 102, true), ('2024-12-02', 'b', 1, 103, null)",
        columns,
    )
    dbt.run("key", days=[D2])
    # (a, 1) is computed over all its days, (a, 2) has vanished, (b, 1) was not touched.
    assert dbt.rows("marts.key") == [("a", 1, 211), ("b", 1, 3)]
    dbt.run("key", days=[D2, D1])
    assert dbt.rows("marts.key") == [("a", 1, 211), ("b", 1, 103)]
    dbt.run("key", "--full-refresh", days=[D3])
    assert dbt.rows("marts.key") == [("a", 1, 211), ("b", 1, 103)]


@pytest.mark.parametrize(("mode", "unit"), MODES)
def test_on_schema_change(dbt: AnyScratch, mode: str, unit: str) -> None:
    name = f"{mode}_{unit}"
    dbt.hand(name, "('2024-12-02', 1, null), ('2024-12-03', 2, null)")
    dbt.run(name)
    before = dbt.rows(f"marts.{name}")
    dbt.hand(name, "('2024-12-02', 1, 5), ('2024-12-03', 2, 5)", "ds date, id int, extra int")
    if mode in ("ignore", "fail"):
        message = dbt.refuse(name, days=[D2])
        assert ("out of sync" if mode == "fail" else "note") in message
        assert dbt.rows(f"marts.{name}") == before
        dbt.run(name, "--full-refresh")
        assert columns(dbt, name) == ["ds", "id", "extra"]
        return
    dbt.run(name, days=[D2])
    # Of a table replaced by days, only the days built since then have the new column's values.
    old = None if unit == "day" else 5
    if mode == "sync_all_columns":
        assert columns(dbt, name) == ["ds", "id", "extra"]
        assert dbt.rows(f"marts.{name}") == [(D1, 1, old), (D2, 2, 5)]
    else:
        assert columns(dbt, name) == ["ds", "id", "note", "extra"]
        assert dbt.rows(f"marts.{name}") == [(D1, 1, None, old), (D2, 2, None, 5)]


def test_is_incremental_and_this(dbt: AnyScratch) -> None:
    dbt.run("self", days=[D1])
    dbt.run("self", days=[D2, D4])
    assert dbt.rows("marts.self") == [(D1, 0, 0), *[(D2, 1, 1)] * 2, (D4, 1, 1)]
    dbt.run("self", "--full-refresh")
    assert {row[1:] for row in dbt.rows("marts.self")} == {(0, 0)}


def test_upper_case_and_blanks_in_names(dbt: AnyScratch) -> None:
    for flags, days in ((), [D1]), ((), [D1, D2, D4]), (("--full-refresh",), None), ((), [D2]):
        dbt.run("quoted", *flags, days=days)
    found = dbt.sql('select "Id", "a b" from marts."Mixed Case" order by "Id"')
    assert found == dbt.sql("select id, note from hand.basic order by id")
