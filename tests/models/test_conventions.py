"""What DESIGN.md section 5 asks of every model, read from the manifest and the built tables."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from sandbox.dbt import ROOT
from tests.models.raw import Warehouse
from tests.support.vitrina import TABLES

DAY = date(2024, 12, 8)
FORBIDDEN = (
    r"target\.",
    "::",
    r"\bnow\(\)",
    r"\bcurrent_(date|timestamp)\b",
    r"\bselect distinct\b",
    r"\b(group|order) by \d",
)


@pytest.fixture(scope="module")
def built(warehouse: Warehouse) -> Warehouse:
    """Every model once, without a row."""
    for domain in TABLES:
        warehouse.build(domain=domain)
    return warehouse


@pytest.fixture
def models(built: Warehouse) -> dict[str, Any]:
    """The models of the manifest by name."""
    return {node.name: node for node in nodes(built, "model")}


def nodes(built: Warehouse, resource_type: str) -> list[Any]:
    manifest = built.vitrina.project.manifest
    assert manifest is not None
    return [n for n in manifest.nodes.values() if str(n.resource_type) == resource_type]


def data_tests(built: Warehouse, model: str, name: str) -> list[Any]:
    return [
        node
        for node in nodes(built, "test")
        if getattr(node, "attached_node", None) == f"model.vitrina.{model}"
        and node.test_metadata.name == name
    ]


def relation_columns(built: Warehouse, node: Any) -> dict[str, str]:
    found = built.vitrina.query(
        "select attname as name, format_type(atttypid, atttypmod) as type from pg_attribute"
        " where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped",
        f"{node.schema}.{node.name}",
    )
    return {row["name"]: row["type"] for row in found}


def test_every_model_says_its_grain_in_the_first_line(models: dict[str, Any]) -> None:
    for node in models.values():
        first = node.raw_code.lstrip().splitlines()[0]
        assert re.fullmatch(r"-- Grain: one row per .+\.", first), node.name


def test_every_model_and_column_is_described_and_there(
    built: Warehouse, models: dict[str, Any]
) -> None:
    for node in models.values():
        assert node.patch_path, f"{node.name} has no yml"
        assert len(node.description.strip()) > 20, node.name
        for column in node.columns.values():
            assert column.description.strip(), f"{node.name}.{column.name}"
        assert set(node.columns) == set(relation_columns(built, node)), node.name


def test_core_and_marts_have_contracts(built: Warehouse, models: dict[str, Any]) -> None:
    marts = [node for node in models.values() if node.path.startswith(("core/", "marts/"))]
    assert {node.path.split("/")[0] for node in marts} == {"core", "marts"}
    for node in marts:
        assert node.config.contract.enforced, node.name
        types = {name: column.data_type for name, column in node.columns.items()}
        assert types == relation_columns(built, node), node.name
        assert data_tests(built, node.name, "types_as_declared"), "engines without contracts"


def test_every_table_says_what_it_replaces_and_tests_its_grain(
    built: Warehouse, models: dict[str, Any]
) -> None:
    for node in models.values():
        if node.config.materialized == "view":
            continue
        assert node.config.materialized == "incremental", node.name
        assert node.config.meta["unit"] in {"day", "period", "key", "whole"}, node.name
        grain = data_tests(built, node.name, "unique_grain") + data_tests(
            built, node.name, "unique"
        )
        assert grain, f"{node.name} has no test of its grain"
        assert data_tests(built, node.name, "not_null"), f"{node.name} has no test of its keys"


def test_views_know_no_window(models: dict[str, Any]) -> None:
    """A view would keep the window of the run that made it."""
    for node in models.values():
        if node.config.materialized == "view":
            assert "window" not in node.raw_code, node.name
            assert "run_at" not in node.raw_code, node.name


def test_models_know_no_engine_and_no_clock() -> None:
    files = [*(ROOT / "dbt_project").rglob("*.sql"), *(ROOT / "tests").glob("*.sql")]
    assert files
    for path in [*files, *(ROOT / "tests" / "generic").glob("*.sql")]:
        for pattern in FORBIDDEN:
            assert not re.search(pattern, path.read_text(), re.IGNORECASE), f"{path}: {pattern}"


def test_only_macros_of_an_engine_know_it() -> None:
    for path in (ROOT / "macros").rglob("*.sql"):
        if "incremental/postgres" not in str(path):
            text = path.read_text().replace("for ' ~ target.type)", "")
            assert "target.type" not in text, path


def land(built: Warehouse, finished: datetime) -> None:
    for source in "crm", "telemetry", "orders", "feed_actions", "message_actions":
        built.vitrina.query(
            "insert into raw.loads (source, cursor, days, changed, rows_landed, rows_quarantined,"
            " started_at, finished_at) values (%s, '{}', '{}', '[]', 0, 0, %s, %s)",
            source, finished, finished,
        )  # fmt: skip


def test_source_freshness_runs(built: Warehouse) -> None:
    """It asks the ledger when the last load was complete, and so notices a landing that stopped."""
    land(built, datetime.now(UTC) - timedelta(days=9))
    stale = built.vitrina.dbt("source", "freshness")
    assert {(n.name, n.status) for n in stale.nodes} == {
        ("crm_clients", "error"),
        ("telemetry_events", "error"),
        ("feed_actions", "error"),
        ("message_actions", "error"),
        ("user_order_log", "error"),
    }
    land(built, datetime.now(UTC))
    fresh = built.vitrina.dbt("source", "freshness")
    assert fresh.success
    assert {n.status for n in fresh.nodes} == {"pass"}


def test_the_volume_test_finds_unusual_days(built: Warehouse) -> None:
    """Of days with 10 events each on the weekdays before: 4, 21 and 0 are unusual, 5 and 20 are not."""
    monday = date(2024, 12, 2)
    this_week = {0: 5, 1: 20, 2: 4, 3: 21, 5: 10}  # Friday has none, and Saturday no past
    write_mart(built, {monday + timedelta(days=n): events for n, events in this_week.items()})
    write_mart(built, {monday - timedelta(days=7 * w - n): 10 for w in (1, 3, 8) for n in range(5)})
    unusual = [monday + timedelta(days=n) for n in (2, 3, 4)]
    week = [monday + timedelta(days=n) for n in range(7)]
    assert volume_test(built, *week) == unusual
    assert volume_test(built, week[4]) == [week[4]]
    # Without a window too; and after the last day nothing is known to miss.
    assert volume_test(built) == unusual
    built.vitrina.query(f"delete from marts.dm_client_telemetry where ds > '{week[3]}'")
    assert volume_test(built) == unusual[:2]
    # Two days are too few to compare with.
    built.vitrina.query(
        f"delete from marts.dm_client_telemetry where ds < '{monday - timedelta(days=50)}'"
    )
    assert volume_test(built, *week) == []
    done = built.vitrina.dbt("test", "--select", "assert_telemetry_volume_is_usual", days=week)
    assert done.success
    (node,) = (n for n in nodes(built, "test") if n.name == "assert_telemetry_volume_is_usual")
    assert (node.config.severity.lower(), node.tags) == ("warn", ["telemetry"])
    built.clear()


def write_mart(built: Warehouse, events: dict[date, int]) -> None:
    for day, count in events.items():
        built.vitrina.query(
            f"create table marts_days.of_{day:%Y%m%d} partition of marts.dm_client_telemetry"
            f" for values in ('{day}'); insert into marts.dm_client_telemetry (ds, client_id,"
            " events_cnt, errors_cnt, sessions_cnt, last_event_at, loaded_at)"
            f" values ('{day}', 'a', 1, 0, 0, now(), now()), ('{day}', 'b', {count - 1}, 0, 0, now(), now())"
        )


def volume_test(built: Warehouse, *days: date) -> list[date]:
    name = "assert_telemetry_volume_is_usual"
    done = built.vitrina.dbt("compile", "--select", name, days=days or None)
    assert done.success, done.failures()
    return sorted(row["ds"] for row in built.vitrina.query(done.nodes[0].compiled))


def test_events_of_unknown_clients_warn_once_a_client_and_day(built: Warehouse) -> None:
    built.serve("known", updated_at="2024-01-01Z")
    built.land_day(DAY, [{"client_id": c} for c in ("known", "b", "b", "c")])
    built.build(DAY)
    done = built.vitrina.dbt("test", "--select", "assert_telemetry_clients_are_known", days=[DAY])
    assert (done.success, done.nodes[0].status) == (True, "warn")
    assert done.nodes[0].message.startswith("Got 2 results")
