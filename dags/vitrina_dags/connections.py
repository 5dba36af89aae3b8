"""Airflow's Connections and Variables as the environment that ingestion and dbt read.

Read when a task runs. A Connection or Variable of the name wins over the environment; what Airflow
does not have is left to the environment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from airflow.sdk import Connection

VARIABLES = ("CRM_API_URL", "CRM_API_TOKEN")


def _postgres(connection: Connection) -> dict[str, str]:
    # All five or none: a host from here with a port from there would be somebody else's database.
    return {
        **_tls(connection),
        "POSTGRES_HOST": connection.host or "localhost",
        "POSTGRES_PORT": str(connection.port or 5432),
        "POSTGRES_USER": connection.login or "vitrina",
        "POSTGRES_PASSWORD": connection.password or "",
        "POSTGRES_DB": connection.schema or "vitrina",
    }


def _tls(connection: Connection) -> dict[str, str]:
    """The Connection's TLS options as libpq's variables, which ingestion's driver and dbt's read."""
    options = ("sslmode", "sslrootcert", "sslcert", "sslkey")
    extra = connection.extra_dejson
    return {f"PG{name.upper()}": str(extra[name]) for name in options if extra.get(name)}


def _telemetry(connection: Connection) -> dict[str, str]:
    user = quote(connection.login or "", safe="")
    password = f":{_quoted(connection.password)}" if connection.password else ""
    host = connection.host or "localhost"
    address = f"[{host}]" if ":" in host else host
    options = {
        name: value
        for name, value in connection.extra_dejson.items()
        if isinstance(value, str | int) and not name.startswith("__")
    }
    query = f"?{urlencode(options)}" if options else ""
    at = f"{user}{password}@" if user else ""
    database = quote(connection.schema or "", safe="")
    return {
        "TELEMETRY_DB_URL": f"postgresql://{at}{address}:{connection.port or 5432}/{database}{query}"
    }


def _quoted(password: str) -> str:
    """A password as it stands in a url, which is another text than the one that Airflow masks."""
    from airflow.sdk.log import mask_secret

    quoted = quote(password, safe="")
    mask_secret(quoted)
    return quoted


def _feed(connection: Connection) -> dict[str, str]:
    extra = connection.extra_dejson
    secure = bool(extra.get("secure")) or connection.conn_type == "https"
    user = quote(connection.login or "default", safe="")
    password = f":{_quoted(connection.password)}" if connection.password else ""
    host = connection.host or "localhost"
    address = f"[{host}]" if ":" in host else host
    port = connection.port or (8443 if secure else 8123)
    database = quote(connection.schema or "default", safe="")
    scheme = "https" if secure else "clickhouse"
    return {"FEED_CLICKHOUSE_URL": f"{scheme}://{user}{password}@{address}:{port}/{database}"}


def _reports(connection: Connection) -> dict[str, str]:
    extra = connection.extra_dejson
    scheme = connection.schema or "https"
    host = connection.host or "localhost"
    origin = host if "://" in host else f"{scheme}://{host}"
    return {
        "REPORTS_API_URL": f"{origin}:{connection.port}" if connection.port else origin,
        "REPORTS_API_KEY": connection.password or str(extra.get("api_key", "")),
        "REPORTS_NICKNAME": connection.login or str(extra.get("nickname", "")),
        "REPORTS_COHORT": str(extra.get("cohort", "")),
    }


def _s3(connection: Connection) -> dict[str, str]:
    endpoint = connection.extra_dejson.get("endpoint_url") or connection.host or ""
    return {
        "AWS_ACCESS_KEY_ID": connection.login or "",
        "AWS_SECRET_ACCESS_KEY": connection.password or "",
        # Without one the files are Amazon's.
        "S3_ENDPOINT_URL": str(endpoint),
    }


# By the names that a Connection may have, the first one that exists holds.
CONNECTIONS: Mapping[tuple[str, ...], Callable[[Connection], dict[str, str]]] = {
    ("olap_db", "pg_connection", "postgres_conn"): _postgres,
    ("telemetry_db",): _telemetry,
    ("feed_clickhouse",): _feed,
    ("http_conn_id",): _reports,
    ("s3_conn",): _s3,
}


def settings_of_airflow() -> dict[str, str]:
    """The settings that Airflow's Connections and Variables give."""
    from airflow.sdk import Variable

    found: dict[str, str] = {}
    for names, settings in CONNECTIONS.items():
        connection = next(filter(None, map(_connection, names)), None)
        if connection is not None:
            found.update(settings(connection))
    for name in VARIABLES:
        value = Variable.get(name, default=None)
        if value is not None:
            found[name] = str(value)
    return found


def _connection(name: str) -> Connection | None:
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        found: Connection = Connection.get(name)
    except AirflowNotFoundException:
        return None
    return found


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """os.environ with these values, and as it was afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
