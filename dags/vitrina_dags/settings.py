"""What shapes a DAG while it is parsed: environment variables, and nothing else.

| variable | default | |
|---|---|---|
| `BUSINESS_TIMEZONE` | Europe/Moscow | the zone of schedules and days |
| `VITRINA_DBT_EXECUTION` | watcher | `local` runs a task a model: slower, for strict chains |
| `VITRINA_DBT_DIR` | the repository | dbt's project, with `target/manifest.json` made ahead of time |
| `VITRINA_DBT_EXECUTABLE` | beside Python | the dbt of another environment than Airflow's, run as a process |
| `ORDERS_START_DATE` | 2024-02-01 | the first day of `orders_increment`, which catches up from it |
| `VITRINA_RETRIES` | 3 | tries after the first one |
| `VITRINA_RETRY_DELAY_SECONDS` | 60 | before the second try, doubled each time, half an hour at most |
"""

from __future__ import annotations

import os
import sys
from datetime import date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

ROOT = Path(__file__).resolve().parents[2]
LONGEST_RETRY_DELAY = timedelta(minutes=30)
EXECUTIONS = ("watcher", "local")


def business_timezone() -> str:
    """The name of the zone in which days are cut. Raises ValueError for one that there is not."""
    name = os.environ.get("BUSINESS_TIMEZONE") or "Europe/Moscow"
    try:
        return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, OSError) as error:
        raise ValueError(f"BUSINESS_TIMEZONE: no zone is named {name!r}") from error


def orders_start_date() -> date:
    """The first day of which the order source has, or may have, an increment."""
    return date.fromisoformat(os.environ.get("ORDERS_START_DATE") or "2024-02-01")


def dbt_execution() -> str:
    """`watcher` or `local`."""
    mode = (os.environ.get("VITRINA_DBT_EXECUTION") or EXECUTIONS[0]).lower()
    if mode not in EXECUTIONS:
        raise ValueError(f"VITRINA_DBT_EXECUTION is {mode!r}, not one of {', '.join(EXECUTIONS)}")
    return mode


def dbt_dir() -> Path:
    """The folder of dbt_project.yml."""
    return Path(os.environ.get("VITRINA_DBT_DIR") or ROOT)


def manifest() -> Path:
    """The project as dbt parsed it. Raises FileNotFoundError that says how to make it."""
    path = dbt_dir() / "target" / "manifest.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; make it: dbt parse --project-dir {dbt_dir()}")
    return path


def own_dbt() -> str | None:
    """The dbt executable of an environment of its own; None when it shares Airflow's."""
    return os.environ.get("VITRINA_DBT_EXECUTABLE") or None


def dbt_executable() -> str:
    """The dbt to run."""
    return own_dbt() or str(Path(sys.executable).with_name("dbt"))


def target_of(domain: str) -> str:
    """The engine of a domain: `VITRINA_TARGET_<DOMAIN>` wins over `VITRINA_TARGET`."""
    default = os.environ.get("VITRINA_TARGET") or "postgres"
    return os.environ.get(f"VITRINA_TARGET_{domain.upper()}") or default


def retries() -> int:
    """How often a task is tried again."""
    return int(os.environ.get("VITRINA_RETRIES") or 3)


def retry_delay() -> timedelta:
    """The pause before the second try."""
    return timedelta(seconds=float(os.environ.get("VITRINA_RETRY_DELAY_SECONDS") or 60))


def import_ingestion() -> None:
    """Let a task import `ingestion`, which is no installed package. For run time."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
