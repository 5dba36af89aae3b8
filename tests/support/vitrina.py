"""A whole Vitrina under test: its sources, its warehouse, and the commands that people run on it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from ingestion.cli import main as ingestion_main
from sandbox.clickhouse import ClickhouseServer
from sandbox.dbt import BUILT, ROOT, Project, Run, environment
from sandbox.outside import Outside

# Audit columns differ from run to run by their nature.
AUDIT = {"loaded_at", "_served_no", "_seen_load_id"}
# The tables of each domain, from the raw ones to the last one built.
TABLES = {
    "telemetry": (
        "raw.telemetry_events",
        "raw.crm_clients",
        "ods.ods_telemetry",
        "ods.ods_crm_clients",
        "ods.ods_crm_clients_history",
        "marts.dm_client_telemetry",
    ),
    "orders": (
        "raw.user_order_log",
        "raw.order_copies",
        "raw.customer_research",
        "raw.user_activity_log",
        "raw.price_log",
        "ods.ods_orders",
        "core.d_customer",
        "core.d_item",
        "core.d_city",
        "core.d_calendar",
        "core.f_sales",
        "marts.f_customer_retention",
        "marts.f_customer_retention_by_item",
    ),
    "activity": (
        "raw.feed_actions",
        "raw.message_actions",
        "ods.ods_user_attributes",
        "core.fct_user_activity",
        "marts.activity_slices",
    ),
}


@contextmanager
def logging_to(stream: StringIO) -> Iterator[None]:
    """What ingestion logs: pytest's own handlers keep it from setting one of its own."""
    logger, handler = logging.getLogger("ingestion"), logging.StreamHandler(stream)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def rows_of_clickhouse(server: ClickhouseServer, statement: str) -> list[dict[str, Any]]:
    """Rows as PostgreSQL's driver would give them."""
    formatted = {
        "default_format": "JSONCompactEachRowWithNamesAndTypes",
        "output_format_json_quote_64bit_integers": "0",
        "output_format_json_quote_decimals": "1",
        "output_format_decimal_trailing_zeros": "1",
    }
    lines = server.ask(statement, b"", **formatted).splitlines()
    if not lines:
        return []
    names, types, *rows = map(json.loads, lines)
    return [
        {name: _value(cell, of) for name, of, cell in zip(names, types, row, strict=True)}
        for row in rows
    ]


def _value(cell: Any, of: str) -> Any:
    of = of.removeprefix("Nullable(").removeprefix("LowCardinality(")
    if cell is None:
        return None
    if of.startswith("DateTime64(6, 'UTC')"):
        return datetime.fromisoformat(cell).replace(tzinfo=UTC)
    if of.startswith("Date32"):
        return date.fromisoformat(cell)
    return Decimal(cell) if of.startswith("Decimal") else cell


@dataclass(frozen=True)
class Answer:
    """What a command of ingestion said and how it ended."""

    status: int
    output: str
    log: str

    @property
    def json(self) -> dict[str, Any]:
        """The last line of standard output."""
        decoded: dict[str, Any] = json.loads(self.output.splitlines()[-1])
        return decoded


@dataclass(frozen=True)
class Vitrina:
    """Commands run in this process, with the settings of one sandbox. The warehouse is PostgreSQL, or
    ClickHouse where there is one."""

    outside: Outside
    project: Project
    settings: Mapping[str, str] = field(default_factory=dict)
    clickhouse: ClickhouseServer | None = None

    @property
    def engine(self) -> str:
        """What VITRINA_TARGET calls the warehouse."""
        return "postgres" if self.clickhouse is None else "clickhouse"

    @property
    def env(self) -> dict[str, str]:
        """All settings."""
        # Impatient: a test of failures would wait for a minute.
        patience = {"HTTP_BACKOFF_SECONDS": "0.01", "HTTP_BACKOFF_MAX_SECONDS": "0.05"}
        found = {**self.outside.environment(), **patience}
        if self.clickhouse is not None:
            # And a lease that a killed run leaves is over soon.
            found |= {**self.clickhouse.environment(), "CLICKHOUSE_LOCK_SECONDS": "2"}
        return {**found, "VITRINA_TARGET": self.engine, **self.settings}

    def run(self, *arguments: str) -> Answer:
        """`python -m ingestion …`, whatever comes of it."""
        output, log = StringIO(), StringIO()
        with (
            environment(self.env),
            redirect_stdout(output),
            redirect_stderr(log),
            logging_to(log),
        ):
            try:
                status = ingestion_main(arguments)
            except SystemExit as left:  # argparse
                status = int(left.code or 0)
        return Answer(status, output.getvalue(), log.getvalue())

    def ingest(self, *arguments: str) -> dict[str, Any]:
        """The same, which has to succeed."""
        answer = self.run(*arguments)
        assert answer.status == 0, answer.log
        return answer.json

    def land(self, start: date, end: date) -> None:
        """Land both sources over a window."""
        self.ingest("crm")
        self.ingest("telemetry", "--start-date", str(start), "--end-date", str(end))

    def dbt(self, *arguments: str, days: Collection[date] | None = None) -> Run:
        """A command of dbt, whatever comes of it, for these days or for all that are landed."""
        window = {"VITRINA_DAYS": ",".join(map(str, days))} if days is not None else {}
        return self.project.invoke(arguments, {**self.env, **window})

    def build(
        self,
        days: Collection[date] | None = None,
        *arguments: str,
        domain: str = "telemetry",
    ) -> None:
        """Build the models of a domain, which has to succeed; their tests have a run of their own.

        The views, which never change here, are made once.
        """
        selection = ["--select", f"tag:{domain}"]
        if self.query("select where to_regclass(%s) is not null", TABLES[domain][-1]):
            selection += ["--exclude", "config.materialized:view"]
        done = self.dbt("build", *BUILT, *selection, *arguments, days=days)
        assert done.success, done.failures()

    def build_pending(self, domain: str = "telemetry") -> list[date]:
        """Build what the plan says and mark it, as the DAG does; returns the days."""
        plan = self.ingest("plan", domain)
        days = [date.fromisoformat(day) for day in plan["days"]]
        if days:
            self.build(days, domain=domain)
            self.ingest("mark", domain, "--build", str(plan["build_id"]))
        return days

    def nightly(self, day: date) -> list[date]:
        """What the scheduled run of a day does; returns the days that it built."""
        self.land(day, day + timedelta(days=1))
        return self.build_pending()

    def process(self, *command: str, days: Sequence[date] = ()) -> subprocess.Popen[bytes]:
        """A command in a process of its own, to be killed or to run beside another."""
        window = {"VITRINA_DAYS": ",".join(map(str, days))} if days else {}
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, **self.env, **window},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def query(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """Rows of the warehouse."""
        if self.clickhouse is not None:
            assert not values
            return rows_of_clickhouse(self.clickhouse, statement)
        with psycopg.connect(
            self.outside.postgres.url(self.outside.warehouse), row_factory=dict_row, autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def mart(self) -> list[dict[str, Any]]:
        """All rows of dm_client_telemetry."""
        return self.query("select * from marts.dm_client_telemetry")

    def tables(self, names: Collection[str] = TABLES["telemetry"]) -> dict[str, list[str]]:
        """The content of each table as sorted texts, audit columns aside: equal if and only if the
        tables are."""
        found = {}
        for name in names:
            if self.clickhouse is not None:
                rows = self.query(f"select * from {name}")
                kept_cells = (
                    [(column, cell) for column, cell in row.items() if column not in AUDIT]
                    for row in rows
                )
                found[name] = sorted(map(str, kept_cells))
                continue
            columns = self.query(
                "select attname from pg_attribute where attrelid = to_regclass(%s)"
                " and attnum > 0 and not attisdropped order by attnum",
                name,
            )
            kept = [c["attname"] for c in columns if c["attname"] not in AUDIT]
            chosen = sql.SQL(", ").join(map(sql.Identifier, kept)).as_string()
            rows = self.query(f"select row({chosen})::text as r from {name}")
            found[name] = sorted(row["r"] for row in rows)
        return found
