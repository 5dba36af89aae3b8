"""Orders' daily increments -> f_sales and the retention marts.

Airflow looks for its own name and for "dag" in a file before it parses it.
"""

from __future__ import annotations

from vitrina_dags.domain import build, land, nightly, usable
from vitrina_dags.settings import orders_start_date

ORDERS_START_DATE = orders_start_date()
MARTS = ["f_sales", "f_customer_retention", "f_customer_retention_by_item"]


@nightly("orders_increment", at="0 3 * * *", catch_up_from=ORDERS_START_DATE, tags=["orders"])
def orders_increment() -> None:
    """What was sold on each day, and which customers came back.

    Lands the increment of the day before and of each earlier day, from `ORDERS_START_DATE` on, that
    the ledger lacks; then builds and tests the models tagged `orders` for every day that this
    changed, and the weeks and months that hold them.

    | run | days |
    |---|---|
    | scheduled at 03:00, catch-up, backfill | the business day before, and what is pending |
    | by hand, with a logical date | that day, and what is pending |
    | by hand, with `start_date` and `end_date` | that range (the end is exclusive), and what is pending |

    One day after another. A day that the source does not have yet is looked for every ten minutes;
    eight hours after the run was due it is skipped with a warning, and a later run lands it when it
    has appeared. An earlier day whose delivery can't be used stops nothing: `earlier_days` is red until
    it is delivered anew. Every run can be repeated. When it is red: `docs/runbook.md`.
    """
    landed = land(
        "orders",
        task_id="land",
        options=["--missing-from", ORDERS_START_DATE.isoformat()],
        may_be_missing=True,
    )
    usable(after=landed, task_id="earlier_days")
    build("orders", marts=MARTS, after=[landed])
