"""The feed from its ClickHouse: bytes as they are, days, what changed, what is set aside, failures."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from ingestion.clickhouse_source import ClickHouse, read_address
from ingestion.errors import SourceError, UsageError
from ingestion.settings import HttpSettings
from ingestion.sources.feed import ACTIONS, MESSAGES, feed_queries
from sandbox.feed import SPELLINGS, FeedServer
from tests.ingestion.scene import DAY, DEC, december, having, quarantine
from tests.support.vitrina import Answer, Vitrina

NOON = datetime(2024, 12, 5, 12, tzinfo=UTC)
AS_LANDED = "select * from raw.feed_actions order by time, user_id, post_id"


def action(user_id: int | None = 1, at: object = NOON, **others: Any) -> dict[str, Any]:
    """A view in the feed."""
    row = {"user_id": user_id, "post_id": 7, "action": "view", "time": at, "gender": 0, "age": 30}
    places = {"country": "Russia", "city": "Moscow", "source": "ads", "exp_group": 2}
    return {**row, **places, "os": "iOS", **others}


@pytest.fixture
def fed(vitrina: Vitrina, feed: FeedServer) -> Vitrina:
    """A warehouse right after `init` that knows where the feed is."""
    return having(vitrina, FEED_CLICKHOUSE_URL=feed.url)


def land(vitrina: Vitrina, start: date = DEC[5], end: date | None = None) -> dict[str, Any]:
    return vitrina.ingest("feed", "--start-date", str(start), "--end-date", str(end or start + DAY))


def asked(vitrina: Vitrina, *arguments: str) -> Answer:
    return vitrina.run("feed", "--date", str(DEC[5]), *arguments)


def refused(vitrina: Vitrina, status: int = 1) -> str:
    """Check that a landing fails and leaves nothing; returns what it said."""
    answer = asked(vitrina)
    assert answer.status == status, answer.log
    for table in ("feed_actions", "message_actions", "loads", "quarantine"):
        assert vitrina.query(f"select * from raw.{table}") == []
    return answer.log


# --- what is landed ---------------------------------------------------------------------------------


def test_a_row_is_landed_as_it_is(fed: Vitrina, feed: FeedServer) -> None:
    feed.insert("feed_actions", [action(), action(2, gender=None, age=None, os=None)])
    assert land(fed)["rows_landed"] == 2
    first, second = fed.query(AS_LANDED)
    wanted = action(ds=DEC[5], post_id="7", exp_group="2")
    assert first == {name: wanted[name] for name in first}
    assert (second["gender"], second["age"], second["os"]) == (None, None, None)


@pytest.mark.parametrize(
    "text",
    ["", "\\N", "\\", "a\tb\nc\rd", "'\"`", "\b\f\v\x01\x7f", "Ёлки 🌲", "\\.", "\\n", "a\\tb"],
)
def test_texts_are_landed_to_the_byte(fed: Vitrina, feed: FeedServer, text: str) -> None:
    feed.insert("feed_actions", [action(os=text, city=text)])
    land(fed)
    assert [(row["os"], row["city"]) for row in fed.query(AS_LANDED)] == [(text, text)]


def test_identical_rows_are_real_events(fed: Vitrina, feed: FeedServer) -> None:
    """A15: an identical block that is dropped without a word."""
    for _ in range(2):
        feed.insert("feed_actions", [action(), action()])
    assert land(fed)["rows_landed"] == 4
    assert len(fed.query(AS_LANDED)) == 4


def test_days_are_cut_in_the_business_zone(fed: Vitrina, feed: FeedServer) -> None:
    midnight = datetime(2024, 12, 5, 21, tzinfo=UTC)
    moments = [midnight - timedelta(seconds=1), midnight, midnight + DAY]
    feed.insert("feed_actions", [action(at=moment) for moment in moments])
    assert land(fed, DEC[5], DEC[7])["days_changed"] == december(5, 6)
    assert [row["ds"] for row in fed.query(AS_LANDED)] == [DEC[5], DEC[6]]


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("DateTime64(6, 'America/New_York')", "2024-12-05 12:00:00.000000"),
        ("Nullable(DateTime64(9))", "2024-12-05 12:00:00.000000"),
        ("LowCardinality(Nullable(String))", "2024-12-05 12:00:00.000000"),
    ],
)
def test_time_of_other_types(fed: Vitrina, feed: FeedServer, kind: str, shown: str) -> None:
    feed.create(types={"time": kind})
    feed.insert("feed_actions", [action(at=NOON.isoformat() if "String" in kind else NOON)])
    land(fed)
    (row,) = fed.query(AS_LANDED)
    assert f"{row['time'].astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}" == shown


@pytest.mark.parametrize("kind", ["DateTime64(3, 'UTC')", "Nullable(DateTime64(6, 'UTC'))"])
def test_the_last_second_of_a_day_is_of_that_day(fed: Vitrina, feed: FeedServer, kind: str) -> None:
    """ClickHouse prunes parts by the key, in whole seconds where the bound is one."""
    feed.create(types={"time": kind})
    for at in ("10:00:00.000", "20:59:58.500", "20:59:59.100", "20:59:59.999"):
        # A part of its own.
        feed.ask(
            "insert into feed_actions (user_id, post_id, action, time, os)"
            f" values (1, 1, 'view', '2024-12-05 {at}', 'iOS')"
        )
    answer = land(fed, DEC[5], DEC[7])
    assert (answer["rows_landed"], answer["quarantined"]) == (4, 0)
    assert {row["ds"] for row in fed.query("select ds from raw.feed_actions")} == {DEC[5]}


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-12-05 12:00:00", "12:00:00"),
        ("2024-12-05T12:00", "12:00:00"),
        ("2024-12-05T12:00:00.250Z", "12:00:00.250000"),
        ("2024-12-05 12:00:00+03:00", "09:00:00"),
        ("2024-12-05 12:00:00-0530", "17:30:00"),
        ("2024-12-05", "00:00:00"),
    ],
)
def test_text_without_a_zone_is_utc(fed: Vitrina, feed: FeedServer, text: str, utc: str) -> None:
    feed.create(types={"time": "String"})
    feed.insert("feed_actions", [action(at=text)])
    land(fed)
    assert [str(row["time"].astimezone(UTC).time()) for row in fed.query(AS_LANDED)] == [utc]


@pytest.mark.parametrize("spellings", [SPELLINGS[:1], SPELLINGS[1:], SPELLINGS])
def test_either_spelling_of_the_receiver(
    fed: Vitrina, feed: FeedServer, spellings: tuple[str, ...]
) -> None:
    feed.create(spellings)
    message = {**action(), **dict.fromkeys(SPELLINGS, 9)}
    feed.insert("message_actions", [message])
    land(fed)
    (row,) = fed.query("select * from raw.message_actions")
    assert {name: row[name] for name in SPELLINGS} == {
        name: 9 if name in spellings else None for name in SPELLINGS
    }


# --- what changed -----------------------------------------------------------------------------------


def test_a_day_that_differs_changes_itself_and_every_later_one(
    fed: Vitrina, feed: FeedServer
) -> None:
    feed.insert("feed_actions", [action(at=NOON + number * DAY) for number in range(4)])
    assert land(fed, DEC[5], DEC[9])["days_changed"] == december(5, 6, 7, 8)
    assert land(fed, DEC[5], DEC[9])["days_changed"] == []
    feed.insert("feed_actions", [action(at=NOON + DAY, os="Android")])
    assert land(fed, DEC[6])["days_changed"] == december(6, 7, 8)
    feed.ask("truncate table feed_actions")
    assert land(fed, DEC[8])["days_changed"] == december(8)


def test_another_order_of_the_same_rows_changes_nothing(fed: Vitrina, feed: FeedServer) -> None:
    rows = [action(number % 7, at=NOON + timedelta(seconds=number % 5)) for number in range(100)]
    feed.insert("feed_actions", rows)
    land(fed)
    feed.ask("truncate table feed_actions")
    feed.insert("feed_actions", reversed(rows))
    assert land(fed)["days_changed"] == []


def test_a_table_of_its_own(fed: Vitrina, feed: FeedServer) -> None:
    feed.insert("feed_actions", [action()])
    feed.insert("message_actions", [{**action(), "reciever_id": 2}])
    one = asked(fed, "--table", "message_actions")
    assert one.json["rows_landed"] == 1
    assert fed.query(AS_LANDED) == []
    assert asked(fed, "--table", "feed_actions").json["days_changed"] == december(5)
    loads = fed.query("select source from raw.loads order by load_id")
    assert [row["source"] for row in loads] == ["message_actions", "feed_actions"]
    assert fed.ingest("plan", "activity")["days"] == december(5)
    assert "has no table 'clients'" in asked(fed, "--table", "clients").log
    assert fed.run("crm", "--table", "clients").status == 2


# --- what is set aside ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (action(action="share"), "action is neither view nor like"),
        (action(action=""), "action is neither view nor like"),
        (action(None), "user_id is null"),
        (action(None, action="share"), "user_id is null"),
        (action(at=None), "time is null"),
        (action(at="yesterday"), "time is no instant"),
        (action(at="12:00"), "time is no instant"),
        (action(at="2024-02-30 10:00:00"), "time is no instant"),
        (action(age="old"), "age is no bigint"),
        (action(age="30.5"), "age is no bigint"),
        (action(2**64 - 1), "user_id is no bigint"),
    ],
)
def test_what_can_not_be_used_is_quarantined(
    fed: Vitrina, feed: FeedServer, row: dict[str, Any], reason: str
) -> None:
    feed.create(
        types={"user_id": "Nullable(UInt64)", "time": "Nullable(String)", "age": "Nullable(String)"}
    )
    good = action(at="2024-12-05 12:00:00", age="")
    given = {**row, "time": str(row["time"]) if row["time"] is not None else None}
    feed.insert("feed_actions", [given, good])
    answer = land(fed)
    assert (answer["rows_landed"], answer["quarantined"]) == (1, 1)
    (found,) = quarantine(fed)
    assert (found["source"], found["place"], found["reason"], found["encoding"]) == (
        "feed_actions",
        "feed_actions",
        reason,
        "text",
    )
    kept = json.loads(found["payload"])
    assert kept["user_id"] == given["user_id"]
    assert kept["time"] == given["time"]
    # It stops nothing, and is kept once however often it is found.
    assert land(fed)["days_changed"] == []
    assert len(quarantine(fed)) == 1


@pytest.mark.parametrize("bad", ["i\\0OS", "i\\xFFOS", "\\xED\\xA0\\x80"])
def test_texts_that_no_engine_holds_are_kept_in_base64(
    fed: Vitrina, feed: FeedServer, bad: str
) -> None:
    feed.insert("feed_actions", [action(), action(2, action="share")])
    for user in 1, 2:
        feed.ask(
            "insert into feed_actions select * replace (unhex(hex('" + bad + "')) as os)"
            f" from feed_actions where user_id = {user} limit 1"
        )
    assert land(fed)["rows_landed"] == 1
    found = {row["reason"]: row for row in quarantine(fed) if row["encoding"] == "base64"}
    assert set(found) == {"text has a U+0000 or is not UTF-8", "action is neither view nor like"}
    for row in found.values():
        assert b'"os":"' in base64.b64decode(row["payload"])


# --- failures ---------------------------------------------------------------------------------------


def test_a_missing_table_or_column_is_named(fed: Vitrina, feed: FeedServer) -> None:
    feed.ask("alter table feed_actions drop column os")
    assert "feed_actions has no os; it has action, age" in refused(fed)
    feed.ask("drop table feed_actions sync")
    assert "has no table feed_actions" in refused(fed)


def test_messages_need_one_spelling() -> None:
    columns = {column.name: "Int64" for column in MESSAGES.columns if column.name not in SPELLINGS}
    with pytest.raises(SourceError, match="has no reciever_id or receiver_id"):
        feed_queries(MESSAGES, columns)


def test_a_time_that_is_no_time_is_refused() -> None:
    columns = {column.name: "String" for column in ACTIONS.columns} | {"time": "UInt32"}
    with pytest.raises(SourceError, match="time is UInt32, neither an instant nor text"):
        feed_queries(ACTIONS, columns)


def test_a_wrong_password_is_told_without_it(fed: Vitrina, feed: FeedServer) -> None:
    url = feed.url.replace("@", "-wrong@")
    log = refused(having(fed, FEED_CLICKHOUSE_URL=url))
    assert "refuses (403)" in log
    assert feed.server.password not in log


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "FEED_CLICKHOUSE_URL: Field required"),
        ({"FEED_CLICKHOUSE_URL": "postgresql://u:s3cret@h/db"}, "no url of the form clickhouse://"),
        ({"FEED_CLICKHOUSE_URL": "clickhouse://u:s3cret@h:port/db"}, "no url of the form"),
        (
            {"FEED_CLICKHOUSE_DB": "social", "FEED_CLICKHOUSE_URL": "http://u:s3cret@h/db"},
            "the tables are in one of them",
        ),
    ],
)
def test_settings_that_name_no_server_are_wrong_use(
    vitrina: Vitrina, settings: dict[str, str], said: str
) -> None:
    log = refused(having(vitrina, **settings), status=2)
    assert said in log
    assert "s3cret" not in log


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_the_warehouses_own_server_has_to_be_a_clickhouse(vitrina: Vitrina) -> None:
    log = refused(having(vitrina, FEED_CLICKHOUSE_DB="social"), status=2)
    assert "the warehouse, which is no ClickHouse" in log


@pytest.mark.parametrize(
    ("url", "where", "user", "password", "database"),
    [
        ("clickhouse://u:p%40%2F@h:1234/db", "http://h:1234/", "u", "p@/", "db"),
        ("clickhouse://h", "http://h:8123/", "default", "", "default"),
        ("https://u@h/db", "https://h:8443/", "u", "", "db"),
        ("http://h:8123/?database=social", "http://h:8123/", "default", "", "social"),
        ("http://[::1]:8123/db", "http://[::1]:8123/", "default", "", "db"),
    ],
)
def test_urls(url: str, where: str, user: str, password: str, database: str) -> None:
    found = read_address("X", SecretStr(url))
    secret = found.password.get_secret_value()
    assert (found.url, found.user, secret, found.database) == (where, user, password, database)


def test_a_url_without_a_host_is_refused() -> None:
    with pytest.raises(UsageError, match="settings: X"):
        read_address("X", SecretStr("clickhouse:///db"))


@contextmanager
def answering(*answers: tuple[int, int, bytes]) -> Iterator[str]:
    """A server that gives these answers (status, promised length, body) one after another."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, length, body = left.pop(0)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/db"
        finally:
            server.shutdown()
            thread.join()


def client(url: str, retries: int = 0) -> ClickHouse:
    patience = HttpSettings(retries=retries, backoff_seconds=0)
    return ClickHouse("the feed", read_address("X", SecretStr(url)), patience)


def test_an_answer_that_breaks_off_is_a_failure() -> None:
    with (
        answering((200, 100, b"1\t2\n")) as url,
        pytest.raises(SourceError, match="the feed does not answer at http://127"),
    ):
        list(client(url).stream("select 1", "TabSeparated"))


def test_a_server_that_is_busy_is_asked_again() -> None:
    with answering((503, 0, b""), (200, 4, b"1\t2\n")) as url:
        assert list(client(url, retries=1).stream("select 1", "TabSeparated")) == [b"1\t2\n"]


def test_an_error_of_the_server_is_shown() -> None:
    said = b"Code: 241. DB::Exception: Memory limit exceeded"
    with (
        answering((500, len(said), said)) as url,
        pytest.raises(SourceError, match=r"refuses \(500\): Code: 241"),
    ):
        list(client(url).rows("select 1"))
