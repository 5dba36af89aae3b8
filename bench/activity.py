"""The activity models on ClickHouse, for `bench.histories`: each reads its app in its own server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta
from functools import partial

from bench.histories import LAST_DAY, Warehouse
from ingestion.cli import main as ingestion
from sandbox.clickhouse import clickhouse_server
from sandbox.dbt import environment
from sandbox.feed import FeedServer, feed_server

MODELS = ("ods_user_attributes", "fct_user_activity", "activity_slices")
USERS = 5_000
ATTRIBUTES = (
    "user_id % 2 as gender, 15 + user_id % 50 as age, 'Russia' as country,"
    " concat('city-', toString(user_id % 40)) as city, if(user_id % 3 = 0, 'iOS', 'Android') as os,"
    " if(user_id % 4 = 0, 'ads', 'organic') as source, user_id % 5 as exp_group"
)
WHEN = "toDateTime('{day} 00:00:00', 'Europe/Moscow') + intDiv(number * 86400, {rows})"
FOUR_FIFTHS = (
    "insert into feed_actions (user_id, post_id, action, time, gender, age, country, city, os, source,"
    " exp_group) select cityHash64(number, 1) % {users} as user_id, cityHash64(number, 2) % 1000,"
    " if(number % 5 = 0, 'like', 'view'), {when}, {attributes} from numbers({rows})"
)
A_FIFTH = (
    "insert into message_actions (user_id, reciever_id, time, gender, age, country, city, os, source,"
    " exp_group) select cityHash64(number, 3) % {users} as user_id, cityHash64(number, 4) % {users},"
    " {when}, {attributes} from numbers({rows})"
)


@contextmanager
def warehouses(histories: Sequence[int], rows: int) -> Iterator[list[Warehouse]]:
    """A server each, with so many days of so many actions and messages."""
    with ExitStack() as stack:
        yield [_filled(stack, days, rows) for days in histories]


def fill(feed: FeedServer, day: date, rows: int) -> None:
    """Let the app have a day of so many actions and messages."""
    for statement, share in ((FOUR_FIFTHS, rows - rows // 5), (A_FIFTH, rows // 5)):
        when = WHEN.format(day=day, rows=share)
        feed.ask(statement.format(users=USERS, when=when, attributes=ATTRIBUTES, rows=share))


def land(settings: dict[str, str], start: date, end: date) -> None:
    """Have the ledger know the days [start, end)."""
    with environment(settings):
        status = ingestion(["feed", "--start-date", str(start), "--end-date", str(end)])
    if status:
        raise RuntimeError(f"feed: exit status {status}")


def _filled(stack: ExitStack, days: int, rows: int) -> Warehouse:
    server = stack.enter_context(clickhouse_server())
    feed = stack.enter_context(feed_server(server))
    start, end = LAST_DAY - timedelta(days=days - 1), LAST_DAY + timedelta(days=1)
    for number in range(days):
        fill(feed, start + timedelta(days=number), rows)
    settings = {
        **server.environment(),
        "VITRINA_TARGET": "clickhouse",
        "FEED_CLICKHOUSE_DB": feed.database,
        "BUSINESS_TIMEZONE": "Europe/Moscow",
    }
    with environment(settings):
        ingestion(["init"])
    land(settings, start, end)
    return Warehouse(days, settings, land=partial(land, settings, LAST_DAY, end))
