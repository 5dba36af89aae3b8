"""kill -9 of the landing of orders and of dbt, and two runs at once: each slot is the old one or the
new one, never a mixture, and after a rerun everything is as if nothing had happened."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, timedelta
from subprocess import Popen

import pytest

from sandbox import delivery as sandbox_delivery
from tests.support.orders import RAW_TABLES, Shopfront, file, line, shopfront
from tests.support.vitrina import Vitrina

START = date(2024, 2, 5)
DAYS = [START + timedelta(days=n) for n in range(3)]
LINES = 3_000
LAND = (
    "-m",
    "ingestion",
    "orders",
    "--start-date",
    str(DAYS[0]),
    "--end-date",
    str(DAYS[-1] + timedelta(days=1)),
)
TIMES = [pytest.param(4), pytest.param(40, marks=pytest.mark.long)]
DBT_TIMES = [pytest.param(2), pytest.param(40, marks=pytest.mark.long)]
Slots = dict[tuple[str, date | None], list[str]]


def increment(day: date, version: int) -> sandbox_delivery.Delivery:
    """Orders of a day and some of the day before; those of another version differ in most."""
    lines = [
        line(
            uniq_id=f"{day}-{number % (LINES - 200 * version)}",
            at=str(day - timedelta(days=number % 11 == 0)),
            customer=f"c{number % 700}",
            item=f"i{number % 30}",
            amount=f"{number + version}.25",
            status="refunded" if number % 13 == 0 else "shipped",
        )
        for number in range(LINES)
    ]
    return sandbox_delivery.increment(day, file(*lines), version)


def whole() -> sandbox_delivery.Delivery:
    """A report of all the days and the week before."""
    lines = [
        line(f"r-{number}", at=str(START + timedelta(days=number % 10 - 7)), customer=f"c{number}")
        for number in range(500)
    ]
    return sandbox_delivery.report(START - timedelta(days=7), DAYS[-1], file(*lines))


@pytest.fixture
def shop(vitrina: Vitrina) -> Iterator[Shopfront]:
    """The first version landed and built, the corrected one at the source."""
    with shopfront(vitrina) as made:
        made.land(whole(), *(increment(day, 0) for day in DAYS))
        made.build()
        assert made.wrong() == []
        for day in DAYS:
            made.reports.deliver(increment(day, 1))
        yield made


def slots(shop: Shopfront) -> Slots:
    """What each slot holds in the raw order log."""
    found: Slots = defaultdict(list)
    for row in shop.vitrina.query(
        "select slot_kind, slot_date, row(line_no, order_id, ds, payment_amount)::text as r"
        " from raw.user_order_log order by line_no"
    ):
        found[row["slot_kind"], row["slot_date"]].append(row["r"])
    return dict(found)


def wrong_copies(shop: Shopfront) -> list[dict[str, object]]:
    """Rows of order_copies that the order log does not have, or the other way round."""
    return shop.vitrina.query(
        "with due as (select order_id, ds, slot_kind, slot_date, max(line_no) as last_line_no"
        " from raw.user_order_log group by order_id, ds, slot_kind, slot_date),"
        " there as (select order_id, ds, slot_kind, slot_date, last_line_no from raw.order_copies)"
        " (select * from due except all select * from there)"
        " union all (select * from there except all select * from due)"
    )


def corrected(shop: Shopfront) -> None:
    """Note that the corrected version is landed."""
    for day in DAYS:
        shop.note(increment(day, 1))


def dbt_command(shop: Shopfront) -> tuple[str, ...]:
    """dbt in a process of its own, that says when a model starts."""
    arguments = ("run", "--select", "tag:orders", "--no-use-colors")
    paths = ("--profiles-dir", ".", "--target-path", str(shop.vitrina.project.target_path))
    return "-c", "from dbt.cli.main import cli; cli()", *arguments, *paths


def killed(shop: Shopfront, process: Popen[bytes], after: str, seconds: float) -> None:
    """Kill -9 so many seconds after a line of its output, and wait until the server noticed."""
    assert process.stdout is not None
    for text in process.stdout:
        if after in text.decode():
            break
    time.sleep(seconds)
    process.kill()
    process.wait()
    process.stdout.close()
    others = "select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    while shop.vitrina.query(others):
        time.sleep(0.02)


def leftovers(shop: Shopfront) -> list[dict[str, object]]:
    """Tables that a run made and did not put in their place."""
    return shop.vitrina.query(
        r"select relname from pg_class where relname ~ '__(new|stage|shape|rows)'"
    )


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("times", TIMES)
def test_kill_9_of_the_landing(shop: Shopfront, times: int) -> None:
    chance = random.Random(times)
    old = slots(shop)
    seen = [old]
    for _ in range(times):
        killed(shop, shop.vitrina.process(*LAND), "orders", chance.uniform(0, 0.25))
        seen.append(slots(shop))
        assert wrong_copies(shop) == []
    shop.vitrina.ingest(*LAND[2:])
    new = slots(shop)
    assert new != old
    for state in seen:
        assert all(state[slot] in (old[slot], new[slot]) for slot in old)
    assert wrong_copies(shop) == []
    assert leftovers(shop) == []
    corrected(shop)
    shop.build()
    assert shop.wrong() == []


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("times", DBT_TIMES)
def test_kill_9_of_dbt(shop: Shopfront, times: int) -> None:
    chance = random.Random(times)
    shop.vitrina.ingest(*LAND[2:])
    corrected(shop)
    days, _ = shop.plan()
    before = shop.tables()
    seen = []
    for _ in range(times):
        process = shop.vitrina.process(*dbt_command(shop), days=days)
        killed(shop, process, "START sql", chance.uniform(0, 2.5))
        seen.append(shop.tables())
    assert shop.plan()[0] == days
    assert leftovers(shop) == []
    shop.build()
    assert shop.wrong() == []
    after = shop.tables()
    # Each model is one transaction: all of its old days or all of its new ones.
    for tables in seen:
        assert all(tables[name] in (before[name], after[name]) for name in tables)


def test_two_landings_and_two_builds_at_once(shop: Shopfront) -> None:
    loaders = [shop.vitrina.process(*LAND) for _ in range(2)]
    for loader in loaders:
        output, _ = loader.communicate(timeout=120)
        assert loader.returncode == 0, output.decode()
    corrected(shop)
    assert wrong_copies(shop) == []
    days, build_id = shop.plan()
    builders = [shop.vitrina.process(*dbt_command(shop), days=days) for _ in range(2)]
    for builder in builders:
        output, _ = builder.communicate(timeout=120)
        assert builder.returncode == 0, output.decode()
    shop.vitrina.ingest("mark", "orders", "--build", build_id)
    assert shop.wrong() == []
    assert leftovers(shop) == []


def test_a_report_and_an_increment_at_once(shop: Shopfront) -> None:
    """The backfill beside the daily run: neither undoes the other, and no Variable is shared."""
    newer = sandbox_delivery.report(
        START - timedelta(days=7),
        DAYS[-1],
        file(*(line(f"n-{n}", at=str(START - timedelta(days=n % 3))) for n in range(900))),
        "newer",
    )
    shop.reports.deliver(newer)
    both = [
        shop.vitrina.process("-m", "ingestion", "orders", "--mode", "report"),
        shop.vitrina.process(*LAND),
    ]
    for loader in both:
        output, _ = loader.communicate(timeout=120)
        assert loader.returncode == 0, output.decode()
    shop.note(newer)
    corrected(shop)
    assert wrong_copies(shop) == []
    shop.build()
    assert shop.wrong() == []
    once = shop.tables(*RAW_TABLES)
    shop.vitrina.ingest(*LAND[2:], "--again")
    assert shop.tables(*RAW_TABLES) == once
