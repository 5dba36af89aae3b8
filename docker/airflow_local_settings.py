"""Read by each component of Airflow as it starts: those that fork tasks import first what tasks need."""

import sys

if {"scheduler", "dag-processor"} & set(sys.argv):
    import vitrina_dags.warm  # noqa: F401
