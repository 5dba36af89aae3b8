"""Orders' whole report, and the increments of a range -> f_sales and the retention marts."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import TriggerRule

from vitrina_dags.domain import build, by_hand, land
from vitrina_dags.reports import REQUEST, ReportReadySensor, RequestReportOperator, of_the_report

MARTS = ["f_sales", "f_customer_retention", "f_customer_retention_by_item"]


@by_hand("orders_backfill", tags=["orders"])
def orders_backfill() -> None:
    """Orders from the beginning: a new report, the increments of a range, and all they change.

    Has a report made, waits for it in the triggerer, lands its files; then lands the increments of
    the days from `start_date` to `end_date` (exclusive) that the source has. Builds and tests the
    models tagged `orders` for that range and for every other day that was changed.

    Safe to run twice, and beside `orders_increment`: a report replaces the report before it, and
    never a day that an increment has brought. When it is red: `docs/runbook.md`.
    """
    request = RequestReportOperator(task_id=REQUEST, doc_md="`POST /generate_report`")
    ready = ReportReadySensor(task_id="ready", doc_md="`GET /get_report` until it is there")
    report = land("orders", task_id="land_report", by_window=False, options=[of_the_report])
    increments = land(
        "orders",
        task_id="land_increments",
        may_be_missing=True,  # the report's own days have none
        patience=timedelta(0),
        trigger_rule=TriggerRule.NONE_FAILED,
    )
    request >> ready >> report >> increments
    build("orders", marts=MARTS, after=[increments])
