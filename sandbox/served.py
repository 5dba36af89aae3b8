"""The outside world for containers: the CRM's API for other hosts, and a filled telemetry database.

`python -m sandbox.served` takes CRM_API_TOKEN and TELEMETRY_DB_URL from the environment, where
`sandbox.outside` makes them: here others have to know them before it starts. `docker-compose.yaml`
runs it.
"""

import argparse
import os
import sys
import threading
import time
from contextlib import suppress

import psycopg
from psycopg import sql

from sandbox.crm import Settings, crm_server
from sandbox.lifetime import unwinding_on_termination
from sandbox.outside import DATA_SETS, DataSet, data_set
from sandbox.telemetry import TABLE, create_source, insert_events

MARK = "Made by Vitrina's sandbox, which fills it anew each time it starts."
PATIENCE_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 0.5


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


def wait_for(url: str) -> None:
    """Wait until the database answers. Raises ServedError when it does not within a minute."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise ServedError(f"the telemetry database does not answer: {error}") from None
            time.sleep(LOOK_AGAIN_SECONDS)
        else:
            return


def main() -> int:
    """Fill the telemetry database and serve the CRM's API until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.served", description=__doc__)
    parser.add_argument("--data", choices=DATA_SETS, default="recent")
    parser.add_argument("--host", default="127.0.0.1", help="where the CRM's API listens")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    token, url = os.environ.get("CRM_API_TOKEN"), os.environ.get("TELEMETRY_DB_URL")
    if not token or not url:
        print("CRM_API_TOKEN and TELEMETRY_DB_URL are needed", file=sys.stderr)
        return 2
    data = data_set(options.data)
    try:
        wait_for(url)
        print(f"telemetry database: {fill(url, data):,} events", flush=True)
    except ServedError as error:
        print(error, file=sys.stderr)
        return 1
    balks = Settings(page_size=100, rate_limit_every=5, failure_every=7, retry_after=1)
    with (
        suppress(KeyboardInterrupt),
        unwinding_on_termination(),
        crm_server(
            data.records, token=token, settings=balks, host=options.host, port=options.port
        ) as server,
    ):
        print(f"CRM's API: {server.url}, days {data.start} to {data.end} (exclusive)", flush=True)
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
