"""The same sources for all of these many small tests, emptied between them: making takes longer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from sandbox.crm import crm_server
from sandbox.outside import Outside, outside
from sandbox.postgres import PostgresServer
from sandbox.telemetry import create_source

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
