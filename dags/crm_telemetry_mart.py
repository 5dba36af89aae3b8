"""CRM and telemetry -> dm_client_telemetry, the previous business day."""

from __future__ import annotations

from airflow.sdk import TaskGroup

from vitrina_dags.domain import build, land, nightly


@nightly("crm_telemetry_mart", at="0 2 * * *", tags=["telemetry"])
def crm_telemetry_mart() -> None:
    """How much each client used the product on each day, and how often it failed them.

    Lands the CRM's clients and the telemetry events, then builds and tests the models tagged
    `telemetry` up to the mart `marts.dm_client_telemetry`.

    | run | days |
    |---|---|
    | scheduled at 02:00, backfill | the business day before, and what is pending |
    | by hand, with a logical date | that day, and what is pending |
    | by hand, with `start_date` and `end_date` | that range (the end is exclusive), and what is pending |

    Every run can be repeated: it replaces exactly its days. When it is red: `docs/runbook.md`.
    """
    with TaskGroup("land", tooltip="The sources, side by side") as landed:
        land("crm", by_window=False)
        land("telemetry")
    build("telemetry", marts=["dm_client_telemetry"], after=[landed])
