"""The outside world for containers: APIs and S3 for other hosts, a filled telemetry database, and a
filled ClickHouse of the social app.

`python -m sandbox.served` takes tokens, keys, TELEMETRY_DB_URL and FEED_CLICKHOUSE_URL from the
environment, where `sandbox.outside` makes them: here others have to know them before it starts.
`docker-compose.yaml` runs it.
"""

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import psycopg
from psycopg import sql
from pydantic import SecretStr

from ingestion.clickhouse_source import read_address
from ingestion.errors import UsageError
from sandbox.clickhouse import ClickhouseRefusedError, ClickhouseServer
from sandbox.crm import crm_server
from sandbox.feed import TABLES, FeedServer
from sandbox.lifetime import unwinding_on_termination
from sandbox.outside import CRM_BALKS, DATA_SETS, REPORTS_BALK, DataSet, data_set
from sandbox.reports import ReportsServer, reports_server
from sandbox.s3 import s3_server
from sandbox.telemetry import TABLE, create_source, insert_events

MARK = "Made by Vitrina's sandbox, which fills it anew each time it starts."
PATIENCE_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 0.5
BUCKET = "reports"
NEEDED = (
    "CRM_API_TOKEN",
    "TELEMETRY_DB_URL",
    "REPORTS_API_KEY",
    "REPORTS_NICKNAME",
    "REPORTS_COHORT",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "FEED_CLICKHOUSE_URL",
)


class ServedError(RuntimeError):
    """It can't start; the message says why."""


def fill(url: str, data: DataSet) -> int:
    """Make the telemetry table anew and return its rows; one that is not the sandbox's is left alone.

    Raises ServedError when the table is somebody else's.
    """
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "select to_regclass(%s) is not null, obj_description(to_regclass(%s), 'pg_class')",
            [TABLE, TABLE],
        ).fetchone()
        if found is not None and found[0]:
            if found[1] != MARK:
                raise ServedError(f"{TABLE} is there, and the sandbox did not make it: left alone")
            connection.execute(sql.SQL("drop table {}").format(sql.Identifier(TABLE)))
    create_source(url, event_id=data.event_id)
    with psycopg.connect(url) as connection:
        connection.execute(
            sql.SQL("comment on table {} is {}").format(sql.Identifier(TABLE), sql.Literal(MARK))
        )
    return insert_events(url, data.events)


def app_server(url: str) -> FeedServer:
    """The social app's ClickHouse by its url. Raises UsageError when it is no url of one."""
    address = read_address("FEED_CLICKHOUSE_URL", SecretStr(url))
    password = address.password.get_secret_value()
    server = ClickhouseServer(address.host, address.port, address.user, password)
    return FeedServer(server, address.database)


def fill_app(feed: FeedServer, data: DataSet) -> int:
    """Make the app's tables anew and return their rows; those that are not the sandbox's are left alone.

    Raises ServedError when a table is somebody else's.
    """
    feed.server.ask(f"create database if not exists {feed.database}")
    for table in TABLES:
        asked = (
            "select comment from system.tables"
            f" where database = '{feed.database}' and name = '{table}' format TSVRaw"
        )
        found = feed.ask(asked).decode().splitlines()
        if found and found != [MARK]:
            raise ServedError(f"{table} is there, and the sandbox did not make it: left alone")
    feed.create()
    for table in TABLES:
        comment = MARK.replace("'", "\\'")
        feed.ask(f"alter table {table} modify comment '{comment}'")
    if data.app is None:
        return 0
    actions = feed.insert("feed_actions", data.app.all_actions())
    return actions + feed.insert("message_actions", data.app.all_messages())


def wait_for(what: str, ask: Callable[[], object], away: tuple[type[Exception], ...]) -> None:
    """Wait until a server answers, its errors being `away` until then.

    Raises ServedError when it does not within a minute.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            ask()
        except away as error:
            if time.monotonic() > deadline:
                raise ServedError(f"{what} does not answer: {error}") from None
            time.sleep(LOOK_AGAIN_SECONDS)
        else:
            return


@contextmanager
def order_source(data: DataSet, host: str, port: int, s3_port: int) -> Iterator[ReportsServer]:
    """Serve the reports and their files, if the data has any."""
    with (
        s3_server(
            bucket=BUCKET,
            access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
            secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
            host=host,
            port=s3_port,
        ) as s3,
        reports_server(
            s3,
            key=os.environ["REPORTS_API_KEY"],
            nickname=os.environ["REPORTS_NICKNAME"],
            cohort=os.environ["REPORTS_COHORT"],
            settings=REPORTS_BALK,
            host=host,
            port=port,
        ) as server,
    ):
        for delivery in data.orders.deliveries if data.orders else ():
            server.deliver(delivery)
        yield server


def main() -> int:
    """Fill the databases and serve the APIs and S3 until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.served", description=__doc__)
    parser.add_argument("--data", choices=DATA_SETS, default="recent")
    parser.add_argument("--host", default="127.0.0.1", help="where all of it listens")
    parser.add_argument("--port", type=int, default=8000, help="of the CRM's API")
    parser.add_argument("--reports-port", type=int, default=8001, help="of the report API")
    parser.add_argument("--s3-port", type=int, default=9000, help="of S3")
    options = parser.parse_args()
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        print(f"{', '.join(missing)}: needed, and not in the environment", file=sys.stderr)
        return 2
    data, url = data_set(options.data), os.environ["TELEMETRY_DB_URL"]
    try:
        app = app_server(os.environ["FEED_CLICKHOUSE_URL"])
        connect = partial(psycopg.connect, url, connect_timeout=5)
        wait_for("the telemetry database", lambda: connect().close(), (psycopg.OperationalError,))
        print(f"telemetry database: {fill(url, data):,} events", flush=True)
        ping = partial(app.server.ask, "select 1")
        wait_for("the social app's ClickHouse", ping, (OSError, ClickhouseRefusedError))
        print(f"social app: {fill_app(app, data):,} actions and messages", flush=True)
    except (ServedError, UsageError) as error:
        print(error, file=sys.stderr)
        return 1
    # The CRM's API is the last to listen: compose's health check looks at its port.
    with (
        suppress(KeyboardInterrupt),
        unwinding_on_termination(),
        order_source(data, options.host, options.reports_port, options.s3_port) as reports,
        crm_server(
            data.records,
            token=os.environ["CRM_API_TOKEN"],
            settings=CRM_BALKS,
            host=options.host,
            port=options.port,
        ) as server,
    ):
        print(f"report API: {reports.url}, S3: {reports.s3.url}", flush=True)
        print(f"CRM's API: {server.url}, days {data.start} to {data.end} (exclusive)", flush=True)
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
