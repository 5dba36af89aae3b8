"""The demo as a new user runs it, and the sandbox that it can leave up."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import requests

from sandbox.dbt import ROOT


def demo(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run it as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "sandbox.demo", *arguments],
        cwd=ROOT,
        env={**os.environ, "VITRINA_THREADS": "2", **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_the_demo_shows_the_mart_and_says_what_it_did() -> None:
    done = demo("--data", "flights")
    assert done.returncode == 0, done.stdout + done.stderr
    # 4 to 10 February 2013: 6,104 flights of 15 airlines.
    assert "6,104 rows landed, 0 quarantined" in done.stdout
    assert "marts.dm_client_telemetry: 103 rows, 7 days, 15 clients" in done.stdout
    assert "0 days pending" in done.stdout
    assert " tests passed, 0 warn" in done.stdout
    assert (ROOT / "target" / "static_index.html").stat().st_size > 1_000_000


def test_the_demo_shows_what_the_shop_sold() -> None:
    done = demo("--domain", "orders")
    assert done.returncode == 0, done.stdout + done.stderr
    # From 18 November to 5 January: seven weeks, and three months that they touch.
    assert "core.f_sales: 6,729 orders, 49 days, 830 customers" in done.stdout
    periods = re.findall(r"^ (weekly|monthly) +(\S+)", done.stdout, re.M)
    weeks = [day for name, day in periods if name == "weekly"]
    assert (weeks[0], weeks[-1], len(weeks)) == ("2024-11-18", "2024-12-30", 7)
    assert [day for name, day in periods if name == "monthly"] == [
        "2024-11-01",
        "2024-12-01",
        "2025-01-01",
    ]
    assert "49 days of Europe/Moscow to build" in done.stdout
    assert "0 days pending" in done.stdout
    assert "ingestion telemetry" not in done.stdout


def test_the_demo_shows_how_the_app_was_used() -> None:
    done = demo("--domain", "activity")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 days of Europe/Moscow to build" in done.stdout
    assert "marts.activity_slices, the last day" in done.stdout
    slices = re.findall(r"^ 2024-12-08 +(os|gender) +(\S+)", done.stdout, re.M)
    assert {("os", "iOS"), ("gender", "female"), ("gender", "unknown")} <= set(slices)
    assert "0 days pending" in done.stdout


def test_a_domain_that_the_data_has_nothing_for_is_refused() -> None:
    done = demo("--data", "flights", "--domain", "orders")
    assert done.returncode == 1
    assert "nothing for the domain orders" in done.stdout


def test_a_failing_step_says_which_and_why() -> None:
    done = demo(TELEMETRY_LOOKBACK_DAYS="-1")
    assert done.returncode == 1
    assert "python -m ingestion telemetry" in done.stdout
    assert "TELEMETRY_LOOKBACK_DAYS" in done.stdout


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_sandbox_that_is_left_up_stops_when_told(tmp_path: Path, how: signal.Signals) -> None:
    state = tmp_path / "state.json"
    holder = subprocess.Popen(
        [sys.executable, "-m", "sandbox.outside", "--state", state],
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        wait_until(state.exists)
        kept = json.loads(state.read_text())
        assert state.stat().st_mode & 0o077 == 0
        url = kept["environment"]["TELEMETRY_DB_URL"]
        with psycopg.connect(url) as connection:
            rows = connection.execute("select count(*) from telemetry_events").fetchone()
        assert rows is not None
        assert rows[0] > 10_000
        names = ("REPORTS_API_URL", "S3_ENDPOINT_URL")
        servers = [kept["environment"][name] for name in names]
        assert all(requests.get(each, timeout=10).status_code for each in servers)
    finally:
        holder.send_signal(how)
        holder.wait(timeout=30)
    wait_until(lambda: not answers(url))
    for each in servers:
        with pytest.raises(requests.ConnectionError):
            requests.get(each, timeout=10)


def answers(url: str) -> bool:
    """Whether a server is there."""
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a condition, not for ever."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
