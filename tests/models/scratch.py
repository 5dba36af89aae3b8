"""A dbt project of a test's own, with this repository's macros, on a database of its own: of
PostgreSQL (`scratch`) or of ClickHouse (`clickhouse_scratch`)."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import clickhouse_connect
import psycopg
from clickhouse_connect.driver.client import Client

from sandbox.clickhouse import ClickhouseServer
from sandbox.dbt import ROOT, Project, Run
from sandbox.postgres import PostgresServer


def model(body: str, unit: str = "day", extra: str = "", **meta: str) -> str:
    """A model that reads the hand-made table of its own name."""
    values = ", ".join(f"'{k}': {v!r}" for k, v in {"unit": unit, **meta}.items())
    return f"{{{{ config(meta={{{values}}}{', ' if extra else ''}{extra}) }}}}\n{body}"


def reading(
    source: str, unit: str = "day", extra: str = "", where: str = "{{ in_window('ds') }}"
) -> str:
    """One that reads the rows of a hand-made table."""
    return model(f"select * from hand.{source} where {where}", unit, extra)


# Processes forked from one that has imported dbt: a start of the command line takes seconds.
_BESIDE = multiprocessing.get_context("forkserver")
_BESIDE.set_forkserver_preload(["sandbox.dbt", "dbt.adapters.postgres"])


@dataclass(frozen=True)
class AnyScratch:
    """dbt on one scratch database, and the few words of SQL that tests of every engine need."""

    project: Project
    settings: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    engine = ""

    def connection_settings(self) -> dict[str, str]:
        """The settings by which dbt finds the database."""
        raise NotImplementedError

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of a statement."""
        raise NotImplementedError

    def hand(self, name: str, rows: str, columns: str = "ds date, id int, note text") -> None:
        """Make the table `hand.name` anew, with these rows (the inside of VALUES, may be empty)."""
        raise NotImplementedError

    def rows(self, relation: str, columns: str = "*") -> list[tuple[Any, ...]]:
        """All rows of a relation, sorted."""
        return sorted(self.sql(f"select {columns} from {relation}"), key=str)

    def dbt(self, *arguments: str, days: Collection[date | str] | None = None, **env: str) -> Run:
        """Run a command, whatever comes of it, for these days or without a window."""
        if days is not None and not days:
            arguments = (*arguments, "--vars", "{days: []}")  # the environment can't say it
        return self.project.invoke(arguments, self._environment(days, env))

    def run(self, *arguments: str, days: Collection[date | str] | None = None, **env: str) -> Run:
        """Run a model, which has to succeed; flags may follow its name."""
        done = self.dbt("run", "--select", *arguments, days=days, **env)
        assert done.success, done.failures()
        return done

    def refuse(
        self, *arguments: str, days: Collection[date | str] | None = None, **env: str
    ) -> str:
        """Run a model, which has to fail; returns why."""
        done = self.dbt("run", "--select", *arguments, days=days, **env)
        assert not done.success
        return "\n".join(done.failures())

    def beside(self, model: str, days: Collection[date | str] | None = None) -> BaseProcess:
        """Run a model in a process of its own; its exit code is 0 when it succeeded."""
        process = _BESIDE.Process(
            target=_run,
            args=(
                self.project.folder,
                self.project.target_path,
                model,
                self._environment(days, {}),
            ),
            daemon=True,
        )
        process.start()
        return process

    def _environment(
        self, days: Collection[date | str] | None, env: Mapping[str, str]
    ) -> dict[str, str]:
        window = {"VITRINA_DAYS": ",".join(map(str, days))} if days else {}
        return {**self.connection_settings(), **self.settings, **window, **env}


@dataclass(frozen=True)
class Scratch(AnyScratch):
    """A database of PostgreSQL."""

    server: PostgresServer = field(repr=False)
    database: str
    engine = "postgres"

    def connection_settings(self) -> dict[str, str]:
        """The settings by which dbt finds the database."""
        return {**self.server.environment(self.database), "VITRINA_TARGET": "postgres"}

    def hand(self, name: str, rows: str, columns: str = "ds date, id int, note text") -> None:
        """Make the table `hand.name` anew, with these rows."""
        self.sql(f"create schema if not exists hand; drop table if exists hand.{name} cascade")
        self.sql(f"create table hand.{name} ({columns})")
        if rows:
            self.sql(f"insert into hand.{name} values {rows}")

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of the caller's own."""
        return psycopg.connect(self.server.url(self.database), autocommit=True)

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of a statement; of several the last one's, in one transaction."""
        with self.connect() as connection:
            cursor = connection.execute(statement.encode(), values or None)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []


# Types of the hand-made tables, in which everything may be null.
CLICKHOUSE_TYPES = {"date": "Date32", "int": "Int32", "text": "String", "bool": "Bool"}


@dataclass(frozen=True)
class ClickhouseScratch(AnyScratch):
    """The databases of a ClickHouse server."""

    server: ClickhouseServer = field(repr=False)
    client: Client = field(repr=False)
    engine = "clickhouse"

    def connection_settings(self) -> dict[str, str]:
        """The settings by which dbt finds the server."""
        return {**self.server.environment(), "VITRINA_TARGET": "clickhouse"}

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of a statement."""
        assert not values, "no parameters here"
        return [tuple(row) for row in self.client.query(statement).result_rows]

    def hand(self, name: str, rows: str, columns: str = "ds date, id int, note text") -> None:
        """Make the table `hand.name` anew, with these rows."""
        names_and_types = (column.split() for column in columns.split(", "))
        typed = ", ".join(f"{n} Nullable({CLICKHOUSE_TYPES[t]})" for n, t in names_and_types)
        self.client.command("create database if not exists hand")
        self.client.command(
            f"create or replace table hand.{name} ({typed}) engine = MergeTree order by tuple()"
        )
        if rows:
            self.client.command(f"insert into hand.{name} values {rows}")


@contextmanager
def scratch(
    server: PostgresServer,
    folder: Path,
    name: str,
    models: Mapping[str, str],
    macros: str = "",
    settings: Mapping[str, str] | None = None,
) -> Iterator[Scratch]:
    """A project of these files on a database of PostgreSQL."""
    write_project(folder, models, macros)
    database = server.create_database(name)
    try:
        project = Project(folder=folder, target_path=folder / "target")
        yield Scratch(project, server, database, settings=settings or {})
    finally:
        server.drop_database(database)


@contextmanager
def clickhouse_scratch(
    server: ClickhouseServer,
    folder: Path,
    models: Mapping[str, str],
    macros: str = "",
    settings: Mapping[str, str] | None = None,
) -> Iterator[ClickhouseScratch]:
    """A project of these files on a server that is emptied first; what it made is dropped at the end."""
    server.empty()  # tests of other modules leave databases to the next one
    write_project(folder, models, macros)
    client = clickhouse_connect.get_client(
        host=server.host,
        port=server.port,
        username=server.user,
        password=server.password,
        autogenerate_session_id=False,
    )
    others = {name for (name,) in client.query("select name from system.databases").result_rows}
    try:
        # dbt remembers for the life of its process that this one is there.
        client.command("create database if not exists marts")
        project = Project(folder=folder, target_path=folder / "target")
        yield ClickhouseScratch(project, server, client, settings=settings or {})
    finally:
        for (name,) in client.query("select name from system.databases").result_rows:
            if name not in others:
                client.command(f"drop database if exists `{name}` sync")
        client.close()


def write_project(folder: Path, models: Mapping[str, str], macros: str = "") -> None:
    """A project of these files (their names below models/); the name `vitrina` finds the macros."""
    (folder / "models").mkdir()
    (folder / "macros").mkdir()
    (folder / "macros" / "own.sql").write_text(macros)
    for path, text in models.items():
        (folder / "models" / path).write_text(text)
    (folder / "dbt_project.yml").write_text(
        json.dumps(
            {
                "name": "vitrina",
                "profile": "vitrina",
                "config-version": 2,
                "model-paths": ["models"],
                # Generic tests are macros too.
                "macro-paths": [str(ROOT / "macros"), str(ROOT / "tests" / "generic"), "macros"],
                "models": {"+materialized": "incremental"},
                "flags": {"send_anonymous_usage_stats": False},
            }
        )
    )


def _run(folder: Path, target_path: Path, model: str, env: Mapping[str, str]) -> None:
    done = Project(folder=folder, target_path=target_path).invoke(("run", "--select", model), env)
    raise SystemExit(0 if done.success else "\n".join(done.failures()))
