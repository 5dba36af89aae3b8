"""Import what tasks need before the processes that run them are forked.

LocalExecutor forks its workers from the scheduler, and a worker forks each task: what the scheduler
has imported costs a task nothing, dbt's five seconds most of all. Import this in
`airflow_local_settings.py` of the scheduler (and of the DAG processor, which forks for each file).
"""

import importlib
import logging
from contextlib import suppress

from vitrina_dags.settings import import_ingestion, own_dbt

MODULES = (
    "airflow.dag_processing.dagbag",
    "airflow.sdk.execution_time.task_runner",
    "cosmos.airflow.task_group",
    "cosmos.operators.local",
    "cosmos.operators.watcher",
    "google.protobuf.json_format",
    "ingestion.cli",
    "ingestion.sinks.postgres",
    "ingestion.sources.crm",
    "ingestion.sources.feed",
    "ingestion.sources.telemetry",
    "vitrina_dags.domain",
)
DBT = ("dbt.cli.main", "dbt.task.build", "dbt.adapters.postgres", "dbt.parser.manifest")


def warm_up() -> None:
    """Import them; what is not there is the task's to miss."""
    import_ingestion()
    for name in (*MODULES, *(() if own_dbt() else DBT)):
        with suppress(ImportError):
            importlib.import_module(name)
    logging.getLogger(__name__).info("imported what tasks need")


warm_up()
