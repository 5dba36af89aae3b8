"""Feed and messages of the social app -> activity_slices, the previous business day."""

from __future__ import annotations

from airflow.sdk import TaskGroup

from vitrina_dags.domain import build, land, nightly


@nightly("activity_slices", at="0 4 * * *", tags=["activity"])
def activity_slices() -> None:
    """How the app's feed and messenger were used, by operating system, gender and age.

    Lands the feed's actions and the messages side by side, then builds and tests the models tagged
    `activity` up to the mart `marts.activity_slices`.

    | run | days |
    |---|---|
    | scheduled at 04:00, backfill | the business day before, and what is pending |
    | by hand, with a logical date | that day, and what is pending |
    | by hand, with `start_date` and `end_date` | that range (the end is exclusive), and what is pending |

    Every run can be repeated: it replaces exactly its days. When it is red: `docs/runbook.md`.
    """
    with TaskGroup("land", tooltip="The two tables, side by side") as landed:
        land("feed", task_id="feed_actions", options=("--table", "feed_actions"))
        land("feed", task_id="message_actions", options=("--table", "message_actions"))
    build("activity", marts=["activity_slices"], after=[landed])
