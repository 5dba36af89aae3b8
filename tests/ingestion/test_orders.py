"""Orders from the report API and S3: slots, what changed, what waits, what is refused."""

from __future__ import annotations

import itertools
import signal
import time
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from flask import Flask, Response

from ingestion.errors import SourceError
from ingestion.reports_api import Increment, ReportsApi, ReportsSettings
from ingestion.s3 import S3, S3Settings, location, shown
from ingestion.settings import HttpSettings, read_settings
from ingestion.sources.orders import ORDER_LOG, file_urls
from sandbox import retail
from sandbox.dbt import environment
from sandbox.reports import Call, ReportsServer
from sandbox.s3 import S3Server
from sandbox.serving import serving
from tests.ingestion.orders_scene import (
    ORDERS,
    Shop,
    file_of,
    increment,
    line,
    report,
    text_of,
)
from tests.ingestion.scene import DEC, december, having

PATIENCE_SECONDS = 60.0
needs_real_data = pytest.mark.skipif(
    not retail.is_there(), reason=f"no real data in {retail.FOLDER}"
)


# --- slots and who wins -----------------------------------------------------------------------------


def test_a_report_is_made_where_there_is_none_and_then_the_window(shop: Shop) -> None:
    shop.deliver(
        report(1, 4, file_of(line("a", "2024-12-01"), line("b", "2024-12-04"))),
        increment(5, file_of(line("b", "2024-12-05"), line("c", "2024-12-03"))),
    )
    answer = shop.land(5)
    assert answer["rows_landed"] == 4
    assert answer["days_changed"] == december(1, 3, 4, 5)
    assert shop.winners() == {
        "a": ("report", None, DEC[1], 1),
        "b": ("increment", DEC[5], DEC[5], 1),
        "c": ("increment", DEC[5], DEC[3], 2),
    }
    assert shop.vitrina.ingest("plan", "orders")["days"] == december(1, 3, 4, 5)
    # The report is known now: none is made again, and nothing is read again.
    assert shop.land(5)["days_changed"] == []
    assert shop.reports.asked(Call.GENERATE_REPORT) == 1


def test_the_order_of_loading_does_not_matter(shop: Shop) -> None:
    first = report(1, 6, file_of(line("a", "2024-12-02"), line("b", "2024-12-05"), line("c")))
    shop.deliver(
        first,
        increment(5, file_of(line("a", "2024-12-05"), line("d", "2024-12-01"))),
        increment(6, file_of(line("d", "2024-12-06", city_id=9), line("d", "2024-12-02"))),
        increment(7, file_of()),
    )
    states = []
    for order in itertools.permutations((5, 6, 7)):
        shop.forget()
        shop.land_report()
        for number in order:
            shop.land(number)
        states.append((shop.state(), shop.winners()))
        if order == (7, 5, 6):
            shop.land_report("--again")
            states.append((shop.state(), shop.winners()))
    assert all(state == states[0] for state in states)
    assert states[0][1]["d"] == ("increment", DEC[6], DEC[2], 2)
    assert states[0][1]["a"] == ("increment", DEC[5], DEC[5], 1)
    assert "b" not in states[0][1]  # of a day that an increment superseded
    shop.forget()
    shop.land(5, 7)  # all in one load
    assert (shop.state(), shop.winners()) == states[0]


def test_an_empty_increment_supersedes_the_reports_day(shop: Shop) -> None:
    shop.deliver(report(4, 5, file_of(line("a"), line("b"), line("b", "2024-12-04"))))
    shop.land_report()
    shop.vitrina.ingest("plan", "orders")
    shop.vitrina.ingest("mark", "orders")
    shop.deliver(increment(5, file_of()))
    assert shop.land(5)["days_changed"] == december(4, 5)
    assert shop.vitrina.ingest("plan", "orders")["days"] == december(4, 5)
    assert shop.winners() == {"b": ("report", None, DEC[4], 3)}
    assert len(shop.rows()) == 3


def test_a_corrected_increment_replaces_its_day_and_no_other(shop: Shop) -> None:
    shop.deliver(
        report(1, 4, file_of(line("a", "2024-12-02"), line("z", "2024-12-04"))),
        increment(5, file_of(line("a"), line("x"), line("s", "2024-12-03"))),
        increment(6, file_of(line("y", "2024-12-06"), line("x", "2024-12-06"))),
    )
    shop.land(5, 6)
    shop.deliver(increment(5, file_of(line("x"), line("n")), "corrected"))
    # a comes back from the report, s is gone, x is held by the 6th, n is new; y and z stay.
    assert shop.land(5)["days_changed"] == december(2, 3, 5, 6)
    assert shop.winners() == {
        "a": ("report", None, DEC[2], 1),
        "n": ("increment", DEC[5], DEC[5], 2),
        "x": ("increment", DEC[6], DEC[6], 2),
        "y": ("increment", DEC[6], DEC[6], 1),
        "z": ("report", None, DEC[4], 2),
    }
    shop.deliver(increment(5, file_of(), "empty"))
    assert shop.land(5)["days_changed"] == december(5, 6)
    assert set(shop.winners()) == {"a", "x", "y", "z"}


def test_a_newer_report_replaces_the_report_and_no_increment(shop: Shop) -> None:
    shop.deliver(
        report(1, 5, file_of(line("a", "2024-12-02"), line("b", "2024-12-05"))),
        increment(5, file_of(line("c"))),
    )
    shop.land(5)
    shop.deliver(report(1, 6, file_of(line("d", "2024-12-02"), line("b", "2024-12-06"))))
    assert shop.land_report()["days_changed"] == december(2, 5, 6)
    assert set(shop.winners()) == {"b", "c", "d"}
    asked = [r.params["report_id"] for r in shop.reports.requests if r.call is Call.GET_INCREMENT]
    shop.land(5)
    newest = shop.reports.requests[-1].params["report_id"]
    assert newest not in asked
    assert newest.endswith("=")


def test_only_the_files_that_changed_are_read(shop: Shop) -> None:
    research = b"date_id,category_id,geo_id,sales_qty,sales_amt\n2024-12-05T00:00:00,1,2,3,4.5\n"
    delivered = increment(5, {**file_of(line()), "customer_research": research}, "one id")
    shop.deliver(report(1, 1, file_of()), delivered)
    key = shop.reports.object_key(delivered, ORDERS)
    before = shop.s3.reads(key)  # tests share the server
    shop.land(5)
    changed = replace(
        delivered, files={**delivered.files, "customer_research": research.replace(b"4.5", b"7")}
    )
    shop.deliver(changed)
    answer = shop.land(5)
    assert (answer["rows_landed"], answer["days_changed"]) == (1, [])
    assert shop.s3.reads(key) == before + 1
    assert shop.vitrina.query("select ds, sales_amt from raw.customer_research") == [
        {"ds": DEC[5], "sales_amt": 7}
    ]
    assert shop.land(5, 5, "--again")["rows_landed"] == 2
    assert shop.s3.reads(key) == before + 2
    without = replace(delivered, files=file_of(line()))
    shop.deliver(without)
    shop.land(5)
    assert shop.vitrina.query("select * from raw.customer_research") == []
    assert [row["file"] for row in shop.files()] == [ORDERS, ORDERS]


@pytest.mark.parametrize("cohort", ["2", "3", "4"])
def test_names_and_urls_drift(shop: Shop, cohort: str) -> None:
    shop.reports.cohort = cohort
    others = {
        "customer_research": b"date_id,category_id\n2024-12-05,1\n",
        "user_activity_log": b"date_time,action_id\n2024-12-05T01:00:00,0\n",
        "price_log": "Ручка,10".encode(),
    }
    shop.deliver(report(1, 1, file_of()), increment(5, {**file_of(line()), **others}))
    dialect = Shop(having(shop.vitrina, REPORTS_COHORT=cohort), shop.reports, shop.s3)
    assert dialect.land(5)["rows_landed"] == 4
    counted = Counter(row["file"] for row in shop.files())
    assert counted == {ORDERS: 2, **dict.fromkeys(others, 1)}


def test_files_are_told_by_how_their_names_begin() -> None:
    urls = {"user_orders_log_inc": "s3://b/k", "custom_research": "s3://b/l", "new_file": "x"}
    assert {t.name: url for t, url in file_urls(urls).items()} == {
        ORDERS: "s3://b/k",
        "customer_research": "s3://b/l",
    }
    assert file_urls({"user_order_log": "s3://b/k"}) == {ORDER_LOG: "s3://b/k"}
    with pytest.raises(SourceError, match="without user_order_log"):
        file_urls({"price_log": "s3://b/k"})
    with pytest.raises(SourceError, match="which one holds"):
        file_urls({"user_order_log": "s3://b/k", "user_orders_log_inc": "s3://b/l"})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://bucket/a/b=/c.csv", ("bucket", "a/b=/c.csv")),
        ("s3://bucket/a%20b", ("bucket", "a%20b")),
        ("https://h:9000/bucket/a/b%3D/c%20d.csv?X-Sig=1", ("bucket", "a/b=/c d.csv")),
    ],
)
def test_urls_of_files(url: str, expected: tuple[str, str]) -> None:
    assert location(url) == expected


@pytest.mark.parametrize("url", ["", "s3://bucket", "https://host/bucket", "ftp://h/b/k", "/b/k"])
def test_urls_of_no_file(url: str) -> None:
    with pytest.raises(SourceError, match="no url of a file"):
        location(url)


# --- what is not there yet --------------------------------------------------------------------------


def test_days_that_are_not_there_yet(shop: Shop) -> None:
    shop.deliver(report(1, 3, file_of()))
    shop.land_report()
    said = shop.refused("--date", "2024-12-05", status=3)
    assert "no increment yet of 2024-12-05" in said
    shop.deliver(increment(5, file_of(line("a"))), increment(7, file_of(line("b", "2024-12-07"))))
    answer = shop.run("--start-date", "2024-12-04", "--end-date", "2024-12-08")
    assert (answer.status, answer.output) == (3, "")
    assert "no increment yet of 2024-12-04, 2024-12-06; the rest is landed" in answer.log
    assert set(shop.winners()) == {"a", "b"}
    assert shop.vitrina.ingest("plan", "orders")["days"] == december(5, 7)


def test_earlier_days_that_were_never_landed(shop: Shop) -> None:
    shop.deliver(report(1, 2, file_of()), increment(4, file_of(line("a", "2024-12-04"))))
    shop.land(4)
    shop.deliver(
        increment(3, file_of(line("b", "2024-12-03"))),
        increment(6, file_of(line("c", "2024-12-06"))),
    )
    asked = len(shop.reports.requests)
    answer = shop.run("--date", "2024-12-06", "--missing-from", "2024-12-02")
    assert answer.status == 0, answer.log
    for day in december(2, 5):
        assert f"no increment yet of {day}; a later run asks for it again" in answer.log
    days = [request.params["date"][:10] for request in shop.reports.requests[asked:]]
    # The days before are looked for first; what is there is asked for once more when it is landed.
    assert days == december(6, 2, 3, 5, 3)
    assert set(shop.winners()) == {"a", "b", "c"}
    # Of the window's own days one that is not there is said as always.
    said = shop.refused("--date", "2024-12-07", "--missing-from", "2024-12-07", status=3)
    assert "2024-12-07" in said


def test_an_earlier_day_that_can_not_be_used_stops_no_later_one(shop: Shop) -> None:
    """It once stopped every later run, as all of them were one load."""
    poor = text_of([line("x", "2024-12-03")], columns=["uniq_id", "date_time"]).encode()
    shop.deliver(report(1, 2, file_of()), increment(3, {"user_order_log": poor}))
    shop.deliver(*(increment(d, file_of(line(f"d{d}", f"2024-12-0{d}"))) for d in (2, 4, 5)))
    shop.land_report()
    answer = shop.run("--date", "2024-12-05", "--missing-from", "2024-12-02")
    assert answer.status == 0, answer.log
    assert "orders of 2024-12-03 can't be used" in answer.log
    (day, why), *others = answer.json["unusable"].items()
    assert (day, others) == ("2024-12-03", [])
    assert "no column city_id" in why
    assert set(shop.winners()) == {"d2", "d4", "d5"}
    assert set(december(2, 4, 5)) <= set(shop.vitrina.ingest("plan", "orders")["days"])
    # Also where the window's own day is not there.
    said = shop.run("--date", "2024-12-06", "--missing-from", "2024-12-02")
    assert (said.status, said.output) == (3, "")
    assert "no increment yet of 2024-12-06; 2024-12-03 can't be used" in said.log
    # By itself it fails as ever. When it is mended, the next run lands it, whatever its own day does.
    shop.refused("--date", "2024-12-03")
    shop.deliver(increment(3, file_of(line("d3", "2024-12-03")), "mended"))
    answer = shop.run("--date", "2024-12-06", "--missing-from", "2024-12-02")
    assert answer.status == 3, answer.log
    assert set(shop.winners()) == {"d2", "d3", "d4", "d5"}


@pytest.mark.parametrize("status", [403, 503])
@pytest.mark.parametrize(
    ("asked", "says"),
    # The window's day; then looks at four days, and the first of them when it is landed.
    [(1, "orders, earlier days: the report API"), (5, "orders of 2024-12-02: the report API")],
)
def test_mistake_o12_an_outage_between_earlier_days_is_no_success(
    shop: Shop, status: int, asked: int, says: str
) -> None:
    """Each day was once warned of, and the command ended with 0: nobody was woken."""
    shop.deliver(report(1, 2, file_of()))
    shop.deliver(*(increment(d, file_of(line(f"d{d}", f"2024-12-0{d}"))) for d in range(2, 7)))
    shop.land_report()
    patient = Shop(having(shop.vitrina, HTTP_RETRIES="0"), shop.reports, shop.s3)
    shop.reports.fail_next(*[200] * asked, status)
    answer = patient.run("--date", "2024-12-06", "--missing-from", "2024-12-02")
    assert (answer.status, answer.output) == (1, "")
    assert says in answer.log
    assert str(status) in answer.log
    # What was landed before it stays, and of the rest nothing was asked in vain.
    assert set(shop.winners()) == {"d6"}
    answer = shop.run("--date", "2024-12-06", "--missing-from", "2024-12-02")
    assert (answer.status, "unusable" in answer.json) == (0, False)
    assert set(shop.winners()) == {"d2", "d3", "d4", "d5", "d6"}


def test_no_earlier_day_is_asked_for_before_there_is_a_report(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that was ready and then was not once ended in a traceback."""
    shop.deliver(report(1, 2, file_of()), increment(5, file_of(line("a"))))
    monkeypatch.setattr(ReportsApi, "look_at_report", lambda *_: None)
    monkeypatch.setattr(ReportsApi, "wait_for_report", lambda *_: None)
    said = shop.refused("--date", "2024-12-05", "--missing-from", "2024-12-01", status=3)
    assert "still being made" in said


def test_a_file_of_another_size_than_listed(shop: Shop) -> None:
    shop.deliver(report(1, 2, file_of(line("a", "2024-12-01"))))
    shop.land_report()
    (row,) = shop.vitrina.query("select url from raw.order_files where file = 'user_order_log'")
    with environment(shop.vitrina.settings):
        s3 = S3(read_settings(S3Settings), HttpSettings())
        version = s3.version(row["url"])
        assert len(b"".join(s3.read(row["url"], version))) == version.size
        with pytest.raises(
            SourceError, match=f"{version.size} announced, {version.size + 1} listed"
        ):
            list(s3.read(row["url"], replace(version, size=version.size + 1)))


def test_a_report_of_a_task_that_somebody_else_waited_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingestion.reports_api import look_at_report, request_report

    shop.deliver(report(1, 2, file_of(line("a", "2024-12-01"))))
    for name, value in shop.vitrina.settings.items():
        monkeypatch.setenv(name, value)
    task = request_report()
    said = shop.refused("--mode", "report", "--task-id", task, status=3)
    assert "still being made" in said
    found = look_at_report(task)
    assert found is not None
    assert (found.start, found.end) == (DEC[1], DEC[2])
    assert shop.land_report("--task-id", task)["rows_landed"] == 1
    assert shop.reports.asked(Call.GENERATE_REPORT) == 1


def test_a_report_that_takes_too_long_or_fails(shop: Shop) -> None:
    shop.deliver(report(1, 2, file_of()))
    hasty = Shop(having(shop.vitrina, REPORTS_DEADLINE_SECONDS="0"), shop.reports, shop.s3)
    assert "still runs after 0 s" in hasty.refused("--mode", "report")
    shop.reports.end_next_tasks("FAILED")
    assert "ended as 'FAILED'" in shop.refused("--mode", "report")


def test_a_source_that_balks(shop: Shop) -> None:
    shop.deliver(report(1, 2, file_of()), increment(5, file_of(line())))
    shop.reports.fail_next(503, 429, 200, 500, 200, 502)
    shop.s3.fail_next(503, 500)
    assert shop.land(5)["rows_landed"] == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--date"),
        (("--mode", "report", "--date", "2024-12-05"), "give no dates"),
        (("--mode", "report", "--missing-from", "2024-12-05"), "give no dates"),
        (("--date", "2024-12-05", "--task-id", "1"), "give --mode report"),
        (("--mode", "all"), "all"),
        (("--date", "2024-12-05", "--missing-from", "soon"), "soon"),
    ],
)
def test_wrong_use(shop: Shop, arguments: tuple[str, ...], says: str) -> None:
    assert says in shop.refused(*arguments, status=2)


def test_other_sources_have_no_modes(shop: Shop) -> None:
    assert shop.vitrina.run("crm", "--mode", "report").status == 2


# --- what refuses a delivery ------------------------------------------------------------------------

GOOD = text_of([line("n-1"), line("n-2")])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no header"),
        (GOOD.partition("\n")[2], "no header"),
        (GOOD.replace("quantity", "qty"), "no column quantity"),
        (GOOD + "3,u-3,2024-12-05T12:0", "cut off in line 3"),
        (GOOD + '3,"u-3,2024-12-05T12:00:00,2\n', "a quote is open"),
    ],
)
def test_a_file_is_refused_as_a_whole(shop: Shop, content: str, says: str) -> None:
    """And with it the whole window: the other files of the delivery, the other increments."""
    shop.deliver(
        report(1, 2, file_of(line("a", "2024-12-01"))),
        increment(5, file_of(line("b"), line("q", quantity=-1))),
    )
    shop.land(5)
    price = {"price_log": "Ручка,10\n".encode()}
    shop.deliver(
        increment(4, {**file_of(line("c", "2024-12-04")), **price}),
        increment(5, {**price, ORDERS: content.encode()}, "corrected"),
    )
    said = shop.refused("--start-date", "2024-12-04", "--end-date", "2024-12-06")
    assert says in said
    assert "/user_order_log_inc.csv: " in said


def test_other_files_are_refused_too(shop: Shop) -> None:
    shop.deliver(report(1, 2, file_of()))
    shop.land_report()
    for name, content in {
        "customer_research": b"category_id,geo_id\n",
        "user_activity_log": b"",
        "price_log": "Ручка,10\nПенал".encode(),
    }.items():
        shop.deliver(increment(5, {**file_of(line()), name: content}, name))
        assert f"/{name}_inc.csv: " in shop.refused("--date", "2024-12-05")


def test_a_file_of_another_size_than_s3_said(shop: Shop) -> None:
    delivered = increment(5, file_of(*(line(f"u-{n}") for n in range(2000))))
    shop.deliver(report(1, 2, file_of()), delivered)
    shop.land_report()
    key = shop.reports.object_key(delivered, ORDERS)
    whole_line = delivered.files[ORDERS].index(b"u-1000") - 5  # nothing in the bytes shows it
    with shop.s3.cut_short(key, whole_line):
        said = shop.refused("--date", "2024-12-05")
    assert "while S3 was read" in said or "bytes received" in said
    shop.s3.delete(key)
    assert "it is not in S3" in shop.refused("--date", "2024-12-05")


# --- real files -------------------------------------------------------------------------------------


@needs_real_data
def test_the_real_month(shop: Shop) -> None:
    month, more = retail.real_month()
    shop.deliver(month, more)
    answer = shop.vitrina.ingest("orders", "--date", "2024-02-25")
    assert answer["quarantined"] == 0
    rows = shop.rows()
    assert len([r for r in rows if r["slot_kind"] == "report"]) == 22_525
    assert len({r["order_id"] for r in rows if r["slot_kind"] == "report"}) == 5_119
    assert len([r for r in rows if r["slot_kind"] == "increment"]) == 1_091
    assert len({r["order_id"] for r in rows if r["slot_kind"] == "increment"}) == 160
    assert {r["status"] for r in rows} == {"shipped"}
    shop.winners()
    # Without the ids, the hash finds the same identities.
    told = {(r["order_id"], r["slot_kind"], r["line_no"]) for r in rows}
    shop.forget()
    shop.deliver(*(replace(d, files=without_ids(dict(d.files))) for d in (month, more)))
    shop.vitrina.ingest("orders", "--date", "2024-02-25")
    hashed = {(r["slot_kind"], r["line_no"]): r["order_id"] for r in shop.rows()}
    pairs = {(uniq, hashed[kind, number]) for uniq, kind, number in told}
    assert len(pairs) == len({u for u, _ in pairs}) == len({h for _, h in pairs})


def without_ids(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same with another name for the column uniq_id."""
    return {**files, ORDERS: files[ORDERS].replace(b"uniq_id", b"some_id", 1)}


@needs_real_data
def test_real_days_one_by_one_or_as_a_report(shop: Shop) -> None:
    days = retail.days()[:3]
    last = date(2010, 12, 4)
    shop.deliver(
        retail.retail_report(days[0], last), *(retail.retail_increment(day) for day in days)
    )
    shop.vitrina.ingest("orders", "--mode", "report")
    by_report = {key: value[2:] for key, value in shop.winners().items()}
    answer = shop.vitrina.ingest("orders", "--start-date", str(days[0]), "--end-date", str(last))
    assert answer["days_changed"] == [str(day) for day in days]
    by_increments = {key: value[2:] for key, value in shop.winners().items()}
    assert {key: ds for key, (ds, _) in by_report.items()} == {
        key: ds for key, (ds, _) in by_increments.items()
    }


# --- mistakes ---------------------------------------------------------------------------------------


def test_mistake_o10_runs_share_no_ids(shop: Shop) -> None:
    """Two reports at once: each run lands the report of its own task."""
    settled = shop.reports.settings
    shop.reports.settings = replace(settled, running_looks=1_000_000)
    shop.deliver(report(1, 2, file_of(line("old", "2024-12-01"))))
    first = shop.vitrina.process("-m", "ingestion", "orders", "--mode", "report")
    wait_until(lambda: shop.reports.asked(Call.GENERATE_REPORT) == 1)
    shop.deliver(report(1, 3, file_of(line("new", "2024-12-03"))))
    second = shop.vitrina.process("-m", "ingestion", "orders", "--mode", "report")
    wait_until(lambda: shop.reports.asked(Call.GENERATE_REPORT) == 2)
    shop.reports.settings = settled
    assert [first.wait(PATIENCE_SECONDS), second.wait(PATIENCE_SECONDS)] == [0, 0]
    cursors = shop.vitrina.query("select cursor from raw.loads order by load_id")
    assert len({row["cursor"] for row in cursors}) == 2


def test_mistake_o11_a_corrected_file_is_read(shop: Shop) -> None:
    """Under the same id, url and size."""
    delivered = increment(5, file_of(line("a", payment_amount="10.00")), "one id")
    shop.deliver(report(1, 1, file_of()), delivered)
    shop.land(5)
    shop.deliver(replace(delivered, files=file_of(line("a", payment_amount="20.00"))))
    assert shop.land(5)["days_changed"] == december(5)
    assert [str(row["payment_amount"]) for row in shop.rows()] == ["20.00"]


def test_mistake_o12_a_failed_download_is_a_failure(shop: Shop) -> None:
    delivered = increment(5, file_of(line()))
    shop.deliver(report(1, 1, file_of()), delivered)
    shop.land_report()
    shop.s3.fail_next(403)
    assert "S3 refuses it" in shop.refused("--date", "2024-12-05")


def test_mistake_o12_a_report_is_waited_for(shop: Shop) -> None:
    """However long it takes: it is looked at until it is there, with growing pauses."""
    shop.reports.settings = replace(shop.reports.settings, running_looks=5)
    shop.deliver(report(1, 1, file_of(line("a", "2024-12-01"))))
    assert shop.land_report()["rows_landed"] == 1
    looks = [r.received_at for r in shop.reports.requests if r.call is Call.GET_REPORT]
    pauses = [(b - a).total_seconds() for a, b in itertools.pairwise(looks)]
    assert len(looks) >= 6
    assert pauses[4] > 4 * 0.01  # the fifth pause is sixteen times the first


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_mistake_o13_a_killed_load_leaves_everything_as_it_was(shop: Shop) -> None:
    shop.deliver(report(4, 6, file_of(*(line(f"r-{n}") for n in range(50)))))
    shop.land_report()
    shop.deliver(
        increment(4, {**file_of(line("a", "2024-12-04")), "price_log": "Ручка,10".encode()}),
        increment(5, file_of(*(line(f"u-{n}") for n in range(300)))),
    )
    before, ledger = shop.state(), shop.ledger()
    # Held up by a lock that the load needs only at its end, when all rows are there.
    with shop.holding("lock table raw.order_files in share mode"):
        load = shop.vitrina.process(
            "-m", "ingestion", "orders", "--start-date", "2024-12-04", "--end-date", "2024-12-06"
        )
        wait_until(lambda: shop.is_waiting() or load.poll() is not None)
        assert load.poll() is None
        load.send_signal(signal.SIGKILL)
        load.wait(PATIENCE_SECONDS)
    wait_until(lambda: not shop.is_waiting())
    assert (shop.state(), shop.ledger()) == (before, ledger)
    assert shop.land(4, 5)["days_changed"] == december(4, 5)
    clean = shop.state()
    shop.forget()
    shop.land_report()
    shop.land(4, 5)
    assert shop.state() == clean


def test_mistake_o16_a_file_without_a_header_keeps_its_first_row(shop: Shop) -> None:
    """price_log has none; names are kept at their whole length; other files need theirs."""
    name = "Устройство для нагревания табака Трубка Мира"
    shop.deliver(
        report(1, 1, file_of()),
        increment(
            5, {**file_of(line("a", item_name=name)), "price_log": f"{name},10\nБ,2.5".encode()}
        ),
    )
    shop.land(5)
    prices = shop.vitrina.query("select line_no, item_name, price from raw.price_log order by 1")
    assert [(p["line_no"], p["item_name"], str(p["price"])) for p in prices] == [
        (1, name, "10.00"),
        (2, "Б", "2.50"),
    ]
    assert shop.rows()[0]["item_name"] == name
    headerless = file_of(line("b"))[ORDERS].partition(b"\n")[2]
    shop.deliver(increment(5, {ORDERS: headerless}, "headerless"))
    assert "no header" in shop.refused("--date", "2024-12-05")


def test_an_increment_of_another_day_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {
        "date": "2024-12-04T00:00:00",
        "status": "SUCCESS",
        "data": {"increment_id": "i-1", "s3_path": {}},
    }
    monkeypatch.setattr(ReportsApi, "_ask", lambda *_, **__: answer)
    settings = {"api_url": "http://reports", "api_key": "k", "nickname": "n", "cohort": "1"}
    api = ReportsApi(ReportsSettings.model_validate(settings), HttpSettings())
    with pytest.raises(SourceError, match="asked for 2024-12-05, it gives '2024-12-04T00:00:00'"):
        api.increment("r-1", DEC[5])
    assert api.increment("r-1", DEC[4]) == Increment("i-1", DEC[4], {})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"increment_id": "i", "s3_path": {"u": "s3://b/k"}}, {"u"}),
        ({"increment_id": "i", "s3_path": {"price_log": None}}, "no text 'price_log'"),
        ({"increment_id": "\ud800", "s3_path": {}}, "no text 'increment_id'"),
        ({"increment_id": "i", "s3_path": {"u\ud800": "s3://\udfff"}}, r"no text 'u\\ud800'"),
        ({"increment_id": "i", "s3_path": {"u": 1}}, "no text 'u'"),
        ({"increment_id": "i"}, "no object 's3_path'"),
    ],
)
def test_what_an_answer_may_hold(
    data: object, expected: set[str] | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a character, from an escape of JSON's, is no text."""
    answer = {"status": "SUCCESS", "data": data}
    monkeypatch.setattr(ReportsApi, "_ask", lambda *_, **__: answer)
    settings = {"api_url": "http://reports", "api_key": "k", "nickname": "n", "cohort": "1"}
    api = ReportsApi(ReportsSettings.model_validate(settings), HttpSettings())
    if isinstance(expected, str):
        with pytest.raises(SourceError, match=expected) as caught:
            api.increment("r-1", DEC[5])
        str(caught.value).encode()
    else:
        found = api.increment("r-1", DEC[5])
        assert found is not None
        assert set(found.urls) == expected


def test_a_storage_that_redirects_without_end() -> None:
    app = Flask("S3")

    @app.route("/<path:path>")
    def answer(path: str) -> Response:
        return Response(status=301, headers={"Location": f"/{path}"})

    with serving(app, "S3") as url:
        settings = {"aws_access_key_id": "i", "aws_secret_access_key": "s", "s3_endpoint_url": url}
        s3 = S3(S3Settings.model_validate(settings), HttpSettings())

        def refused(deeper: int) -> None:
            if deeper:
                refused(deeper - 1)
            else:
                with pytest.raises(SourceError, match="while S3 was read"):
                    s3.version("s3://bucket/key.csv")

        # Where the stack ends, the client has wrapped the error or has not.
        for deeper in range(8):
            refused(deeper)


def test_an_address_is_shown_without_what_may_be_a_secret() -> None:
    for url in ("http://user:pw@s3/b/k.csv?X-Amz-Signature=s#f", "http://s3/b/k.csv"):
        assert shown(url) == "http://s3/b/k.csv"
    assert shown("s3://b/k.csv?X-Amz-Signature=s") == "s3://b/k.csv"


@pytest.mark.parametrize("wrong", ["REPORTS_API_KEY", "AWS_ACCESS_KEY_ID"])
def test_mistake_o20_secrets_are_settings_and_are_not_shown(shop: Shop, wrong: str) -> None:
    shop.deliver(report(1, 1, file_of()))
    other = Shop(having(shop.vitrina, **{wrong: "s3cret-пароль"}), shop.reports, shop.s3)
    said = other.refused("--mode", "report")
    assert "refuses" in said
    for secret in ("s3cret", shop.reports.key, shop.s3.secret_access_key):
        assert secret not in said
    for name in (wrong, "AWS_SECRET_ACCESS_KEY", "REPORTS_NICKNAME"):
        without = Shop(having(shop.vitrina, **{name: ""}), shop.reports, shop.s3)
        assert name in without.refused("--mode", "report", status=2)


def test_mistake_o20_no_secret_is_in_the_code(reports: ReportsServer, s3: S3Server) -> None:
    """What the API hands out to us is nowhere in the package, neither as default nor as example."""
    package = Path(__file__).parent.parent.parent / "ingestion"
    text = "".join(path.read_text() for path in package.rglob("*.py"))
    assert "api_key: SecretStr\n" in text
    assert "aws_secret_access_key: SecretStr\n" in text
    assert reports.key not in text
    assert s3.secret_access_key not in text


def wait_until(what: object) -> None:
    assert callable(what)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
