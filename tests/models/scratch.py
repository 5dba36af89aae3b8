"""A dbt project of a test's own, with this repository's macros, on a database of its own."""

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

import psycopg

from sandbox.dbt import ROOT, Project, Run
from sandbox.postgres import PostgresServer

# Processes forked from one that has imported dbt: a start of the command line takes seconds.
_BESIDE = multiprocessing.get_context("forkserver")
_BESIDE.set_forkserver_preload(["sandbox.dbt", "dbt.adapters.postgres"])


@dataclass(frozen=True)
class Scratch:
    """dbt and SQL on one scratch database."""

    project: Project
    server: PostgresServer = field(repr=False)
    database: str
    settings: Mapping[str, str] = field(default_factory=dict)

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
        return {**self.server.environment(self.database), **self.settings, **window, **env}

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

    def rows(self, relation: str, columns: str = "*") -> list[tuple[Any, ...]]:
        """All rows of a relation, sorted."""
        return sorted(self.sql(f"select {columns} from {relation}"), key=str)


@contextmanager
def scratch(
    server: PostgresServer,
    folder: Path,
    name: str,
    models: Mapping[str, str],
    macros: str = "",
    settings: Mapping[str, str] | None = None,
) -> Iterator[Scratch]:
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
                "macro-paths": [str(ROOT / "macros"), "macros"],
                "models": {"+materialized": "incremental"},
                "flags": {"send_anonymous_usage_stats": False},
            }
        )
    )
    database = server.create_database(name)
    try:
        project = Project(folder=folder, target_path=folder / "target")
        yield Scratch(project, server, database, settings or {})
    finally:
        server.drop_database(database)


def _run(folder: Path, target_path: Path, model: str, env: Mapping[str, str]) -> None:
    done = Project(folder=folder, target_path=target_path).invoke(("run", "--select", model), env)
    raise SystemExit(0 if done.success else "\n".join(done.failures()))
