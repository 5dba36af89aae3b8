"""By which plan the models were built. `mark` records a plan as built, so it has to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cosmos import DbtTaskGroup

BUILD = "build_id"


def say_which_build(ti: Any, build_id: int) -> None:
    """Leave word of the plan that this task builds: `mark` asks for it."""
    ti.xcom_push(key=BUILD, value=build_id)
    # A producer that failed is tried again and steps aside, its XComs gone but for Cosmos' backup.
    backup = getattr(ti, "_cosmos_xcom_backup_buffer", None)
    if backup is not None:
        backup[BUILD] = build_id


@dataclass(frozen=True)
class Builders:
    """The tasks of a group that run dbt: one for all of them, or each its own part."""

    group: str
    producer: str | None
    each: tuple[str, ...]

    def refuse_other_builds(self, ti: Any, build_id: int) -> None:
        """Raise AirflowFailException unless what there is was built by this plan.

        A plan that was cleared, with the models left alone, has days that no model was run for.
        """
        from airflow.sdk.exceptions import AirflowFailException

        if self.producer and ti.xcom_pull(task_ids=self.producer, key=BUILD) == build_id:
            return
        built = {task_id: ti.xcom_pull(task_ids=task_id, key=BUILD) for task_id in self.each}
        others = sorted(task_id for task_id, found in built.items() if found != build_id)
        if others:
            raise AirflowFailException(
                f"not built by this run's plan {build_id}: {', '.join(others)};"
                f" clear the group {self.group} too, not {ti.task_id} alone"
            )


def builders_of(group: DbtTaskGroup) -> Builders:
    """The tasks of a group that run dbt."""
    ids = [
        str(task.task_id)
        for task in group.iter_tasks()
        if type(task).__name__.startswith("Dbt") and hasattr(task, "interceptors")
    ]
    producer = next((each for each in ids if each.endswith("dbt_producer_watcher")), None)
    return Builders(str(group.group_id), producer, tuple(each for each in ids if each != producer))
