"""The DAGs as Airflow parses them, without a database."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox.dbt import ROOT, Project

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

DAGS = ROOT / "dags"
# Read when Airflow is first imported, so set before any test imports it.
os.environ.update(
    {
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__COSMOS__ENABLE_TELEMETRY": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "DO_NOT_TRACK": "1",
        "SCARF_NO_ANALYTICS": "true",
    }
)
sys.path.append(str(DAGS))


@pytest.fixture(scope="session", autouse=True)
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home that is nobody else's, with no metadata in it: a test that asks for them fails."""
    home = tmp_path_factory.mktemp("airflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(home))
        patch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{home}/nothing.db")
        patch.setenv("AIRFLOW__COSMOS__CACHE_DIR", str(home / "cosmos"))
        yield home


@pytest.fixture(scope="session")
def dbt_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This repository's dbt project with a manifest, as it lies in an image."""
    folder = tmp_path_factory.mktemp("dbt")
    for name in ("dbt_project.yml", "profiles.yml", "dbt_project", "macros", "seeds", "tests"):
        (folder / name).symlink_to(ROOT / name)
    # Not the project that other tests share: it is parsed for the database that they name.
    project = Project(target_path=tmp_path_factory.mktemp("target"))
    parsed = project.invoke(["parse"], {})
    assert parsed.success, parsed.failures()
    (folder / "target").symlink_to(project.target_path)
    return folder


@pytest.fixture(scope="session")
def dag_bag(airflow_home: Path, dbt_folder: Path) -> DagBag:
    """All DAGs, models run through WATCHER."""
    del airflow_home
    return parse(dbt_folder)


def parse(dbt_folder: Path, **environment: str) -> DagBag:
    """Parse all DAGs with these settings."""
    from airflow.dag_processing.dagbag import DagBag

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITRINA_DBT_DIR", str(dbt_folder))
        for name, value in environment.items():
            patch.setenv(name, value)
        return DagBag(DAGS)
