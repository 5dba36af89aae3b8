"""The same sources for all of these many small tests, emptied between them: making takes longer.

Each test of a Vitrina runs on every engine; one that is about one engine says so by
`pytest.mark.parametrize("engine", [...], indirect=True)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from sandbox.clickhouse import ClickhouseServer
from sandbox.crm import crm_server
from sandbox.dbt import Project
from sandbox.outside import Outside, outside
from sandbox.postgres import PostgresServer
from sandbox.reports import ReportsServer, Settings, reports_server
from sandbox.s3 import S3Server, s3_server
from sandbox.telemetry import create_source
from tests.ingestion.orders_scene import Shop
from tests.ingestion.scene import having
from tests.support.vitrina import Vitrina

EMPTY = """
drop schema if exists raw, raw_days, staging, ods, core, marts cascade;
drop schema public cascade;
create schema public;
"""


@pytest.fixture(scope="session")
def kept(server: PostgresServer) -> Iterator[Outside]:
    """Sources whose databases are kept."""
    with outside(server, name="_ingestion") as world:
        yield world


@pytest.fixture
def sources(kept: Outside) -> Iterator[Outside]:
    """Empty sources and an empty warehouse, with a CRM of the test's own."""
    for database in (kept.warehouse, kept.telemetry):
        with psycopg.connect(kept.postgres.url(database), autocommit=True) as connection:
            connection.execute(EMPTY)
    create_source(kept.telemetry_url)
    with crm_server() as crm:
        yield replace(kept, crm=crm)


@pytest.fixture(params=["postgres", "clickhouse"])
def engine(request: pytest.FixtureRequest) -> str:
    """The warehouse's engine."""
    return str(request.param)


@pytest.fixture
def bare(
    sources: Outside, project: Project, engine: str, request: pytest.FixtureRequest
) -> Vitrina:
    """A Vitrina before `init`."""
    if engine == "postgres":
        return Vitrina(sources, project)
    server: ClickhouseServer = request.getfixturevalue("clickhouse")
    server.empty()
    return Vitrina(sources, project, clickhouse=server)


@pytest.fixture
def vitrina(bare: Vitrina) -> Vitrina:
    """A Vitrina with empty sources, right after `init`."""
    bare.ingest("init")
    return bare


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 server for all of these tests."""
    with s3_server() as server:
        yield server


@pytest.fixture
def reports(s3: S3Server) -> Iterator[ReportsServer]:
    """A report API that knows nothing yet."""
    with reports_server(s3, settings=Settings(running_looks=1)) as server:
        yield server


@pytest.fixture
def shop(vitrina: Vitrina, s3: S3Server, reports: ReportsServer) -> Shop:
    """A Vitrina whose order source has nothing yet."""
    settings = {**s3.environment(), **reports.environment(), "REPORTS_POLL_SECONDS": "0.01"}
    return Shop(having(vitrina, **settings), reports, s3)
