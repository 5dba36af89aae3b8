"""The commands: exit statuses, wrong use, settings, and what goes to which stream."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from ingestion import cli, sources
from ingestion.errors import NotYetError
from ingestion.ledger import LoadRecord
from ingestion.sinks import Load
from ingestion.sources import Request
from sandbox.dbt import ROOT
from tests.ingestion.scene import (
    DEC,
    arrive,
    client,
    december,
    event,
    having,
    noons,
    refused,
    telemetry,
)
from tests.support.vitrina import Vitrina


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "COMMAND"),
        (("nothing",), "nothing"),
        (("telemetry",), "--date"),
        (("telemetry", "--start-date", "2024-12-05"), "go together"),
        (("telemetry", "--end-date", "2024-12-05"), "go together"),
        (("crm", "--end-date", "2024-12-05"), "go together"),
        (("telemetry", "--start-date", "2024-12-05", "--end-date", "2024-12-05"), "holds no day"),
        (("telemetry", "--start-date", "2024-12-06", "--end-date", "2024-12-05"), "holds no day"),
        (("crm", "--start-date", "2024-12-06", "--end-date", "2024-12-05"), "holds no day"),
        (("telemetry", "--date", "2024-12-05", "--start-date", "2024-12-05"), "not both"),
        (("telemetry", "--date", "2024-02-30"), "2024-02-30"),
        (("telemetry", "--date", "20241205"), "YYYY-MM-DD"),
        (("telemetry", "--date", "2024-12-05T00:00"), "YYYY-MM-DD"),
        (("telemetry", "--date", "yesterday"), "yesterday"),
        (("telemetry", "--date", "9999-12-31"), "no day after"),
        (("crm", "--start-date", "9999-12-31"), "no day after"),
        (("telemetry", "--date", "0001-01-02"), "no 3 days before"),
        (("plan", "telemetry", "--start-date", "2024-12-05"), "go together"),
        (("mark", "telemetry", "--build", "one"), "one"),
    ],
)
def test_wrong_use(vitrina: Vitrina, arguments: tuple[str, ...], says: str) -> None:
    assert says in refused(vitrina, vitrina.run(*arguments), status=2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CRM_API_TOKEN", ""),
        ("CRM_API_URL", ""),
        ("CRM_API_URL", "crm.example/s3cret"),
        ("CRM_API_URL", "http://crm:s3cret/"),
        ("CRM_OVERLAP_DAYS", "s3cret"),
        ("CRM_OVERLAP_DAYS", "-1"),
        ("HTTP_RETRIES", "s3cret"),
        ("{}_PORT", "s3cret"),
        ("BUSINESS_TIMEZONE", "Europe/Moskva"),
        ("BUSINESS_TIMEZONE", "../../etc/passwd"),
    ],
)
def test_settings_are_named_without_their_values(vitrina: Vitrina, name: str, value: str) -> None:
    name = name.format(vitrina.engine.upper())
    said = refused(vitrina, having(vitrina, **{name: value}).run("crm"), status=2)
    assert name in said
    assert "s3cret" not in said


def test_the_telemetry_url_is_needed(vitrina: Vitrina) -> None:
    poor = having(vitrina, TELEMETRY_DB_URL="")
    assert "TELEMETRY_DB_URL" in refused(vitrina, poor.run("telemetry", "--date", "2024-12-05"), 2)


@pytest.mark.parametrize("name", ["VITRINA_TARGET", "VITRINA_TARGET_TELEMETRY"])
def test_an_unknown_target(vitrina: Vitrina, name: str) -> None:
    for arguments in (("init",), ("crm",), ("plan", "telemetry"), ("status",)):
        said = refused(vitrina, having(vitrina, **{name: "oracle"}).run(*arguments), status=2)
        assert "'oracle'" in said
        assert "postgres" in said  # what there is


def test_a_domain_s_own_target_wins(vitrina: Vitrina) -> None:
    own = having(
        vitrina,
        VITRINA_TARGET="oracle",
        VITRINA_TARGET_TELEMETRY="postgres",
        VITRINA_TARGET_ACTIVITY="postgres",
        VITRINA_TARGET_ORDERS="postgres",
    )
    assert own.ingest("init")["targets"] == ["postgres"]
    assert own.ingest("crm")["rows_landed"] == 0


def test_the_answer_of_a_landing(vitrina: Vitrina) -> None:
    arrive(vitrina, [*noons(4, 5), event(None)])
    answer = vitrina.run("telemetry", "--date", "2024-12-05")
    assert (answer.status, len(answer.output.splitlines())) == (0, 1)
    assert answer.json == {
        "source": "telemetry",
        "rows_landed": 2,
        "quarantined": 1,
        "days_changed": december(4, 5),
        "seconds": answer.json["seconds"],
    }
    assert 0 < answer.json["seconds"] < 60
    assert "telemetry 2024-12-05: 1 rows" in answer.log


def test_a_source_that_does_not_have_it_yet(
    vitrina: Vitrina, monkeypatch: pytest.MonkeyPatch
) -> None:
    def land(load: Load, request: Request) -> LoadRecord:
        del load, request
        raise NotYetError("the report is not ready")

    monkeypatch.setattr(
        cli, "find_source", lambda name: replace(sources.find_source(name), land=land)
    )
    assert "not ready" in refused(vitrina, vitrina.run("crm"), status=3)


def test_status(vitrina: Vitrina) -> None:
    assert "never landed" in vitrina.run("status").log
    vitrina.outside.crm.serve([client("c-1", "2024-12-05T10:00:00Z"), client(None)])
    arrive(vitrina, noons(4, 5))
    vitrina.ingest("crm")
    telemetry(vitrina, DEC[5])
    answer = vitrina.run("status")
    shown = answer.log.splitlines()
    assert "telemetry: days to build: 2024-12-04, 2024-12-05" in shown
    crm, events = (
        next(line.split() for line in shown if f" {name} " in line) for name in ("crm", "telemetry")
    )
    assert (crm[2], crm[-2:]) == ("1", ["1", "1"])
    assert (events[2:5], events[-2:]) == (["1", "[2024-12-02,", "2024-12-06)"], ["2", "0"])
    state = answer.json["telemetry"]
    assert state["pending"] == december(4, 5)
    assert state["sources"]["crm"]["cursor"] == {"greatest_updated_at": "2024-12-05T10:00:00+00:00"}
    assert state["sources"]["telemetry"]["last_window"] == "[2024-12-02, 2024-12-06)"


def test_as_people_run_it(vitrina: Vitrina) -> None:
    """A process of its own: the answer alone on standard output, the rest on standard error."""
    arrive(vitrina, noons(5))
    done = subprocess.run(
        [sys.executable, "-m", "ingestion", "telemetry", "--date", "2024-12-05"],
        cwd=ROOT,
        env={**os.environ, **vitrina.env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["rows_landed"] for line in done.stdout.splitlines()] == [1]
    assert "telemetry 2024-12-05: 1 rows" in done.stderr


def test_help_needs_no_settings() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ingestion", "--help"],
        cwd=ROOT,
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    listed = re.findall(r"^ {4}(\w+)", done.stdout, flags=re.MULTILINE)
    assert listed == ["init", "crm", "feed", "orders", "telemetry", "plan", "mark", "status"]


def test_a_command_pays_for_no_http_stack_that_it_does_not_use() -> None:
    # Every command imports every source: what one of them brings along is in all of them.
    looks = (
        "import sys; from ingestion import cli, sources; sources.all_sources();"
        "print(*({'requests', 'urllib3', 'boto3', 'botocore'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", looks], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
