"""A warehouse that the tests of one module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.dbt import Project
from sandbox.outside import outside
from sandbox.postgres import PostgresServer
from tests.models.raw import Warehouse
from tests.support.vitrina import Vitrina


@pytest.fixture(scope="module")
def warehouse(server: PostgresServer, project: Project) -> Iterator[Warehouse]:
    """Right after `init`, with nothing landed."""
    with outside(server) as world:
        vitrina = Vitrina(world, project)
        vitrina.ingest("init")
        yield Warehouse(vitrina)
