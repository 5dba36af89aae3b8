"""Servers and projects that tests share within one process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from sandbox.clickhouse import ClickhouseServer, clickhouse_server
from sandbox.dbt import Project
from sandbox.feed import FeedServer, feed_server
from sandbox.outside import Outside, outside
from sandbox.postgres import PostgresServer, postgres_server
from tests.support.vitrina import Vitrina

# A shell that runs the tests in the background has these ignored, and processes started here would
# inherit it: Ctrl-C could not be tested.
for ignored in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        is_ctrl_c = ignored is signal.SIGINT
        signal.signal(ignored, signal.default_int_handler if is_ctrl_c else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def settings_as_they_were() -> Iterator[None]:
    """Commands that run side by side in one process put each other's settings back."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def server(worker_id: str) -> Iterator[PostgresServer]:
    """A PostgreSQL server of this worker's own."""
    del worker_id
    with postgres_server() as running:
        yield running


@pytest.fixture(scope="session")
def clickhouse(worker_id: str) -> Iterator[ClickhouseServer]:
    """A ClickHouse server of this worker's own, without databases."""
    del worker_id
    with clickhouse_server() as running:
        yield running


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """This repository's dbt project, parsed once in this process."""
    return Project(target_path=tmp_path_factory.mktemp("target"))


@pytest.fixture(scope="session")
def clickhouse_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """This repository's dbt project, parsed for the target clickhouse."""
    return Project(target_path=tmp_path_factory.mktemp("target_clickhouse"))


@pytest.fixture
def sources(server: PostgresServer) -> Iterator[Outside]:
    """Empty sources and an empty database for the warehouse."""
    with outside(server) as world:
        yield world


@pytest.fixture
def vitrina(sources: Outside, project: Project) -> Vitrina:
    """A Vitrina with empty sources, right after `init`."""
    made = Vitrina(sources, project)
    made.ingest("init")
    return made


@pytest.fixture
def feed(clickhouse: ClickhouseServer) -> Iterator[FeedServer]:
    """The app's empty tables."""
    with feed_server(clickhouse) as made:
        yield made
