"""macros/window.sql: which days a run builds, from the vars and from the environment."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from sandbox.postgres import PostgresServer
from tests.models.scratch import Scratch, scratch

PROBE = """
{{ config(materialized='view') }}
{{ window_days() | tojson }}
{{ window_periods() | tojson }}
{{ run_at() }}
{{ in_window('ds') }}
{{ in_window_periods() }}
{{ in_days_of_window_periods('day') }}
"""
UNIT_TESTED = """
{{ config(materialized='view') }}
select ds from {{ ref('days') }} where {{ in_window('ds') }}
"""
UNIT_TEST = """
version: 2
models: [{name: days}, {name: probe}, {name: unit_tested}]
unit_tests:
  - name: a_unit_test_brings_its_own_days
    model: unit_tested
    given:
      - input: ref('days')
        format: sql
        rows: select date '1999-01-01' as ds
    expect: {rows: [{ds: 1999-01-01}]}
"""
START, END, DAYS = "VITRINA_START_DATE", "VITRINA_END_DATE", "VITRINA_DAYS"


@pytest.fixture(scope="module")
def window(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scratch]:
    models = {
        "probe.sql": PROBE,
        "days.sql": "{{ config(materialized='view') }} select date '2024-12-08' as ds",
        "unit_tested.sql": UNIT_TESTED,
        "unit_test.yml": UNIT_TEST,
    }
    with scratch(server, tmp_path_factory.mktemp("window"), "window", models) as made:
        yield made


class Probed:
    """What the macros make of one way to give the window."""

    def __init__(self, window: Scratch, variables: str, env: dict[str, str], *flags: str) -> None:
        arguments = ["compile", "--select", "probe", *flags]
        if variables:
            arguments += ["--vars", variables]
        self.run = window.dbt(*arguments, **env)
        self.error = " ".join(self.run.failures())
        if self.run.success:
            lines = self.run.nodes[0].compiled.strip().splitlines()
            self.days = json.loads(lines[0])
            self.periods = json.loads(lines[1])
            self.run_at = lines[2]
            self.conditions = " ".join(" ".join(lines[3:]).split())


def probe(window: Scratch, variables: str = "", *flags: str, **env: str) -> Probed:
    return Probed(window, variables, env, *flags)


DEC_7_TO_9 = ["2024-12-07", "2024-12-08", "2024-12-09"]


@pytest.mark.parametrize(
    ("variables", "env"),
    [
        ("{start_date: 2024-12-07, end_date: 2024-12-10}", {}),
        ('{"start_date": "2024-12-07", "end_date": "2024-12-10"}', {}),
        ("{days: [2024-12-09, 2024-12-07, 2024-12-08, 2024-12-07]}", {}),
        ('{"days": ["2024-12-09", " 2024-12-07 ", "2024-12-08"]}', {}),
        ("", {START: "2024-12-07", END: "2024-12-10"}),
        ("", {DAYS: "2024-12-09, 2024-12-07,2024-12-08,2024-12-08"}),
        # The vars win, whatever the environment says.
        ("{start_date: 2024-12-07, end_date: 2024-12-10}", {DAYS: "2020-01-01"}),
        ("{days: [2024-12-07, 2024-12-08, 2024-12-09]}", {START: "2020-01-01", END: "x"}),
    ],
)
def test_every_way_to_give_a_window(window: Scratch, variables: str, env: dict[str, str]) -> None:
    found = probe(window, variables, **env)
    assert found.days == DEC_7_TO_9
    assert found.run_at == "(timestamptz '2024-12-09T21:00:00+00:00')"
    assert found.conditions.startswith(
        "( ds >= date '2024-12-07' and ds <= date '2024-12-09' ) ( period_name = 'monthly'"
    )


@pytest.mark.parametrize(
    ("variables", "env", "message"),
    [
        ("{start_date: 2024-12-07}", {}, "start_date and end_date go together"),
        ("{end_date: 2024-12-07}", {}, "start_date and end_date go together"),
        ("", {END: "2024-12-07"}, "start_date and end_date go together"),
        ("{start_date: 2024-12-07, end_date: 2024-12-07}", {}, "holds no day"),
        ("", {START: "2024-12-08", END: "2024-12-07"}, "holds no day: end_date is exclusive"),
        ("{start_date: 2024-12-07, days: [2024-12-07]}", {}, "not both"),
        ("", {START: "2024-12-07", END: "2024-12-08", DAYS: "2024-12-07"}, "not both"),
        ("{days: 2024-12-07}", {}, "days is a list of dates, not 2024-12-07"),
        ("{days: '2024-12-07'}", {}, "days is a list of dates, not 2024-12-07"),
        ("{days: {2024-12-07: 1}}", {}, "days is a list of dates"),
        ("{days: [08.12.2024]}", {}, "not a date of the form YYYY-MM-DD: 08.12.2024"),
        ("{days: ['2024-02-30']}", {}, "YYYY-MM-DD: 2024-02-30"),
        ("{days: ['2023-02-29']}", {}, "not a date of the form YYYY-MM-DD: 2023-02-29"),
        ("{days: ['2024-12-07 10:00:00']}", {}, "YYYY-MM-DD: 2024-12-07 10:00:00"),
        ("{days: [null]}", {}, "not a date"),
        ("", {DAYS: "2024-12-07,"}, "not a date of the form YYYY-MM-DD: "),
        ("{start_date: yesterday, end_date: 2024-12-07}", {}, "YYYY-MM-DD: yesterday"),
        ("{run_at: soon}", {}, "not an instant in ISO 8601: soon"),
    ],
)
def test_what_is_no_window_is_refused_by_name(
    window: Scratch, variables: str, env: dict[str, str], message: str
) -> None:
    assert message in probe(window, variables, **env).error


def test_no_window_is_every_day(window: Scratch) -> None:
    found = probe(window)
    assert (found.days, found.periods) == (None, None)
    assert found.conditions == "1 = 1 1 = 1 1 = 1"


def test_an_empty_list_is_no_day(window: Scratch) -> None:
    found = probe(window, "{days: []}")
    assert (found.days, found.periods, found.conditions) == ([], [], "1 = 0 1 = 0 1 = 0")


def test_a_full_refresh_knows_no_window(window: Scratch) -> None:
    assert probe(window, "{days: [2024-12-08]}", "--full-refresh").days is None


def test_a_unit_test_knows_no_window(window: Scratch) -> None:
    done = window.dbt("test", "--select", "unit_tested", days=["2024-12-08"])
    assert done.success, done.failures()


def test_gaps_split_the_ranges(window: Scratch) -> None:
    days = ["2024-02-28", "2024-02-29", "2024-03-01", "2024-03-03", "2025-01-01"]
    assert probe(window, **{DAYS: ",".join(days)}).conditions.startswith(
        "( ds >= date '2024-02-28' and ds <= date '2024-03-01'"
        " or ds >= date '2024-03-03' and ds <= date '2024-03-03'"
        " or ds >= date '2025-01-01' and ds <= date '2025-01-01' )"
    )


def test_periods_over_year_ends(window: Scratch) -> None:
    days = ["2024-12-29", "2024-12-30", "2025-01-01", "2021-01-03", "2020-02-29"]
    months = ["2020-02-01", "2021-01-01", "2024-12-01", "2025-01-01"]
    mondays = ["2020-02-24", "2020-12-28", "2024-12-23", "2024-12-30"]
    assert probe(window, **{DAYS: ",".join(days)}).periods == [
        *(["monthly", month] for month in months),
        *(["weekly", monday] for monday in mondays),
    ]


def test_a_long_window_touches_each_period_once(window: Scratch) -> None:
    found = probe(window, "{start_date: 2024-12-30, end_date: 2025-01-06}")
    assert found.periods == [
        ["monthly", "2024-12-01"],
        ["monthly", "2025-01-01"],
        ["weekly", "2024-12-30"],
    ]


@pytest.mark.parametrize(
    ("days", "ranges"),
    [
        ("2024-02-15", [("2024-02-01", "2024-02-29")]),
        ("2024-12-31", [("2024-12-01", "2025-01-05")]),
        ("2025-01-01", [("2024-12-30", "2025-01-31")]),
        ("2024-06-10,2024-02-01", [("2024-01-29", "2024-02-29"), ("2024-06-01", "2024-06-30")]),
    ],
)
def test_the_days_of_periods(window: Scratch, days: str, ranges: list[tuple[str, str]]) -> None:
    """Weeks reach beyond their months; what touches is one range."""
    conditions = " or ".join(f"day >= date '{a}' and day <= date '{b}'" for a, b in ranges)
    assert probe(window, **{DAYS: days}).conditions.endswith(f"( {conditions} )")


@pytest.mark.parametrize(
    ("variables", "env", "instant"),
    [
        ("{run_at: 2024-12-08 10:00:00}", {}, "2024-12-08T10:00:00+00:00"),
        ("{run_at: '2024-12-08T10:00:00.000001+03:00'}", {}, "2024-12-08T10:00:00.000001+03:00"),
        ("{run_at: '2024-12-08T10:00:00Z'}", {}, "2024-12-08T10:00:00+00:00"),
        ("{run_at: 2024-12-08}", {DAYS: "2020-01-01"}, "2024-12-08T00:00:00+00:00"),
        # Without it, the end of the window: the first instant of the day after.
        ("", {DAYS: "2024-12-08"}, "2024-12-08T21:00:00+00:00"),
        (
            "{business_timezone: America/New_York}",
            {DAYS: "2024-03-10"},
            "2024-03-11T04:00:00+00:00",
        ),
        # Midnight left out (Sao Paulo) and there twice (Havana).
        (
            "{business_timezone: America/Sao_Paulo}",
            {DAYS: "2018-11-03"},
            "2018-11-04T03:00:00+00:00",
        ),
        ("{business_timezone: America/Havana}", {DAYS: "2024-11-02"}, "2024-11-03T04:00:00+00:00"),
        # The day itself left out (Samoa went over the date line): the instant of the leap.
        ("{business_timezone: Pacific/Apia}", {DAYS: "2011-12-29"}, "2011-12-30T10:00:00+00:00"),
    ],
)
def test_run_at(window: Scratch, variables: str, env: dict[str, str], instant: str) -> None:
    assert probe(window, variables, **env).run_at == f"(timestamptz '{instant}')"
