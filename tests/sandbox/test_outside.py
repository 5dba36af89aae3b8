"""The whole outside: what a test does not ask for is not started."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import date

from sandbox.dbt import ROOT
from sandbox.outside import Outside, data_set
from sandbox.shop import Shop

ORDERS = {"REPORTS_API_URL", "REPORTS_API_KEY", "REPORTS_NICKNAME", "REPORTS_COHORT"}
FILES = {"S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
HEAVY = """
import sys
from sandbox.outside import outside
from sandbox.postgres import postgres_server
with postgres_server() as server, outside(server) as world:
    print([name for name in ("moto", "boto3") if name in sys.modules])
    world.reports
    print([name for name in ("moto", "boto3") if name in sys.modules])
"""


def test_the_order_source_is_started_when_it_is_asked_for(sources: Outside) -> None:
    assert not (ORDERS | FILES) & set(sources.environment())
    made = Shop(seed=1, start=date(2024, 12, 28)).report(date(2024, 12, 30))
    sources.reports.deliver(made)
    assert set(sources.environment()) > ORDERS | FILES
    assert len(sources.s3.keys()) == 4
    # A test may put another CRM in: the rest stays.
    assert replace(sources, crm=sources.crm).reports is sources.reports


def test_moto_is_not_even_imported_before() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAVY],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["[]", "['moto', 'boto3']"]


def test_data_sets_say_what_the_shop_delivers() -> None:
    for name in ("world", "recent"):
        orders = data_set(name).orders
        assert orders is not None
        report, *increments = orders.deliveries
        assert (report.start, report.date) == (orders.start, None)
        assert report.end < orders.until
        assert len(increments) == (orders.end - orders.until).days
        assert [made.date for made in increments] == sorted(made.start for made in increments)
        assert max(made.start for made in increments) < orders.end
    assert data_set("flights").orders is None
