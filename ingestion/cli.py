"""The commands of `python -m ingestion` (DESIGN.md section 3)."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from ingestion.days import Window
from ingestion.errors import DeliveryError, NotYetError, UsageError, VitrinaError
from ingestion.ledger import (
    Build,
    LoadRecord,
    build_to_mark,
    changed_days,
    days_with_rows,
    pending_days,
)
from ingestion.settings import BusinessSettings, read_settings, target_of
from ingestion.sinks import Sink, open_sink
from ingestion.sources import (
    Request,
    Source,
    all_sources,
    find_source,
    source_names,
    sources_of,
)
from ingestion.tables import RawTable

log = logging.getLogger("ingestion")

EPILOG = """
exit status: 0 all of it is landed, 3 the source does not have it yet, 2 wrong use, 1 anything else.
On success the last line of standard output is JSON; progress and errors go to standard error.
Earlier days that were looked for by the way and can't be used are in it, as "unusable", by day.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        answer: dict[str, object] = options.run(options)
    except VitrinaError as error:
        # A message for a person: no traceback, whose lines could show a url with its password.
        log.error("%s", error)  # noqa: TRY400
        return error.exit_status
    except KeyboardInterrupt:
        log.error("interrupted: what was not finished is as it was before")  # noqa: TRY400
        return 1
    print(json.dumps(answer), flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ingestion",
        description="Land raw data in the warehouse, and keep the ledger of it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    init = commands.add_parser("init", help="make schemas, raw tables, ledger and outbox")
    init.set_defaults(run=_init)

    for name in source_names():
        source = commands.add_parser(name, help=f"land from the source {name}")
        _add_dates(source)
        if name == "orders":
            _add_orders_options(source)
        if name == "feed":
            source.add_argument("--table", metavar="T", help="only this one of its tables")
        source.set_defaults(run=_land, source=name)

    plan = commands.add_parser("plan", help="print the days of a domain that are to be built")
    plan.add_argument("domain")
    _add_dates(plan)
    plan.set_defaults(run=_plan)

    mark = commands.add_parser("mark", help="record that a planned build has finished")
    mark.add_argument("domain")
    mark.add_argument(
        "--build",
        type=int,
        metavar="ID",
        help="the build_id that plan printed (default: the oldest open plan, which is safe while"
        " builds run one after another)",
    )
    mark.set_defaults(run=_mark)

    status = commands.add_parser("status", help="show what was landed and what is pending")
    status.set_defaults(run=_status)
    return parser


def _add_dates(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--date", type=_day, metavar="D", help="one business day: [D, D+1)")
    parser.add_argument("--start-date", type=_day, metavar="D", help="first business day")
    parser.add_argument("--end-date", type=_day, metavar="E", help="the day after the last one")


def _add_orders_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mode",
        choices=("report", "increment"),
        default="increment",
        help="a report of all days so far, or the increments of the window (default)",
    )
    parser.add_argument(
        "--task-id", metavar="T", help="land the report of this task; none is asked for"
    )
    parser.add_argument(
        "--again", action="store_true", help="read files again that have not changed since"
    )
    parser.add_argument(
        "--missing-from",
        type=_day,
        metavar="D",
        help="land also, each by itself, the days from D to the window whose increment was never landed",
    )


def _day(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise argparse.ArgumentTypeError(f"{text!r} is no date of the form YYYY-MM-DD")
    return day


def _window(options: argparse.Namespace) -> Window | None:
    """The window that was asked for. Raises UsageError when the dates don't make one."""
    if options.date is not None:
        if options.start_date is not None or options.end_date is not None:
            raise UsageError("give --date, or --start-date and --end-date, not both")
        return Window.of_day(options.date)
    if options.start_date is None and options.end_date is None:
        return None
    if options.start_date is None or options.end_date is None:
        raise UsageError("--start-date and --end-date go together")
    return Window(options.start_date, options.end_date)


def _cursor_window(options: argparse.Namespace) -> Window | None:
    """The same for a source that goes by its own cursor, where only a start means anything."""
    if options.date is None and options.start_date is not None and options.end_date is None:
        return Window.of_day(options.start_date)
    return _window(options)


def _init(_: argparse.Namespace) -> dict[str, object]:
    sources = all_sources()
    tables: dict[str, list[RawTable]] = {}
    for source in sources:
        tables.setdefault(target_of(source.domain), []).extend(source.tables)
    for target, raw_tables in tables.items():
        sink = open_sink(target)
        try:
            sink.init(raw_tables)
        finally:
            sink.close()
    return {"targets": sorted(tables), "tables": sorted(t.name for x in tables.values() for t in x)}


def _land(options: argparse.Namespace) -> dict[str, object]:
    source = find_source(options.source)
    table = getattr(options, "table", None)
    if table is not None and table not in source.parts:
        parts = ", ".join(source.parts) or "none"
        raise UsageError(f"{source.name} has no table {table!r} of its own; it has: {parts}")
    request = _request(options, source)
    sink = open_sink(target_of(source.domain))
    started = time.monotonic()
    try:
        if source.prepare is not None:
            request = source.prepare(sink.loads([source.name]), request)
        # Asked before: nothing that comes after the commit may fail.
        total = _Total(days_with_rows(sink.loads(_names(source.domain))))
        for part in [table] if table else source.loads:
            try:
                total.add(_land_part(sink, source, replace(request, part=part)))
            except NotYetError as error:
                total.not_yet = str(error)
        _land_late(sink, source, request, total)
    finally:
        sink.close()
    if total.not_yet:
        unusable = "".join(f"; {day} can't be used" for day in total.unusable)
        raise NotYetError(total.not_yet + unusable)
    return {
        "source": source.name,
        "rows_landed": total.rows,
        "quarantined": total.quarantined,
        "days_changed": [str(day) for day in sorted(total.days)],
        **({"unusable": total.unusable} if total.unusable else {}),
        "seconds": round(time.monotonic() - started, 3),
    }


@dataclass
class _Total:
    """What the loads of a command have done; `candidates` are the days that hold rows."""

    candidates: Sequence[date]
    rows: int = 0
    quarantined: int = 0
    days: set[date] = field(default_factory=set)
    not_yet: str = ""
    unusable: dict[str, str] = field(default_factory=dict)

    def add(self, record: LoadRecord) -> None:
        self.rows += record.rows_landed
        self.quarantined += record.rows_quarantined
        self.days |= changed_days(record, self.candidates)
        self.candidates = sorted({*self.candidates, *record.days})
        if record.not_yet:
            self.not_yet = f"{record.not_yet}; the rest is landed"


def _land_late(sink: Sink, source: Source, request: Request, total: _Total) -> None:
    """See `Source.late`."""
    if source.late is None:
        return
    try:
        with sink.load(source.name) as load:
            requests = source.late(load, request)
    except VitrinaError as error:
        raise type(error)(f"{source.name}, earlier days: {error}") from error
    for late in requests:
        assert late.window is not None
        what = f"{source.name} of {late.window.start}"
        try:
            total.add(_land_part(sink, source, replace(late, part=source.name)))
        except NotYetError as error:
            log.warning("%s; a later run asks for it again", error)
        except DeliveryError as error:
            # Of a message for a person no traceback, as in `main`.
            log.error("%s can't be used: %s; a later run asks for it again", what, error)  # noqa: TRY400
            total.unusable[str(late.window.start)] = str(error)
        except VitrinaError as error:
            raise type(error)(f"{what}: {error}") from error


def _land_part(sink: Sink, source: Source, request: Request) -> LoadRecord:
    """One load. Raises UsageError when the warehouse's days are cut in another zone."""
    zone = request.zone.key
    with sink.load(request.part) as load:
        if (landed_in := load.business_timezone(zone)) != zone:
            raise UsageError(
                f"BUSINESS_TIMEZONE is {zone}, the days of this warehouse are cut in"
                f" {landed_in}: docs/runbook.md says how to change it"
            )
        record = source.land(load, request)
        load.record(record)
    return record


def _request(options: argparse.Namespace, source: Source) -> Request:
    """What is asked for. Raises UsageError when the options contradict each other."""
    zone = read_settings(BusinessSettings).zone
    window = _window(options) if source.by_window else _cursor_window(options)
    mode = getattr(options, "mode", None)
    if mode == "report":
        if window is not None or options.missing_from is not None:
            raise UsageError("a report is of all its days: give no dates")
        return Request(None, zone, "report", options.task_id, options.again)
    if window is None and source.by_window:
        raise UsageError(
            f"{source.name} lands a window: give --date, or --start-date and --end-date"
        )
    if mode is None:
        return Request(window, zone)
    if options.task_id is not None:
        raise UsageError("--task-id is that of a report: give --mode report")
    return Request(window, zone, again=options.again, missing_from=options.missing_from)


def _plan(options: argparse.Namespace) -> dict[str, object]:
    window = _window(options)
    sources = _names(options.domain)
    sink = open_sink(target_of(options.domain))
    try:
        loads = sink.loads(sources)
        pending = pending_days(loads, sink.builds(options.domain))
        days = sorted({*pending, *(window or ())})
        build = Build(
            domain=options.domain,
            load_id=max((load.load_id for load in loads), default=0),
            days=tuple(days),
        )
        build_id = sink.plan_build(build) if days else None
    finally:
        sink.close()
    # `days` is a var of the models: what is printed can be given to dbt as it is.
    return {
        "domain": options.domain,
        "days": [str(day) for day in days],
        "pending": [str(day) for day in pending],
        "load_id": build.load_id,
        "build_id": build_id,
    }


def _mark(options: argparse.Namespace) -> dict[str, object]:
    sources_of(options.domain)
    sink = open_sink(target_of(options.domain))
    try:
        builds = sink.builds(options.domain)
        if options.build is None:
            build = build_to_mark(builds)
        else:
            build = next((b for b in builds if b.build_id == options.build), None)
            if build is None:
                raise UsageError(f"{options.domain} has no planned build {options.build}")
        if build is not None:
            sink.finish_build(build.build_id)
        still = pending_days(sink.loads(_names(options.domain)), sink.builds(options.domain))
    finally:
        sink.close()
    return {
        "domain": options.domain,
        "days": [str(day) for day in build.days] if build else [],
        "load_id": build.load_id if build else None,
        "build_id": build.build_id if build else None,
        "pending": [str(day) for day in still],
    }


def _status(_: argparse.Namespace) -> dict[str, object]:
    answer: dict[str, dict[str, Any]] = {}
    sources = all_sources()
    for domain in sorted({source.domain for source in sources}):
        sink = open_sink(target_of(domain))
        try:
            loads = sink.loads(_names(domain))
            pending = pending_days(loads, sink.builds(domain))
        finally:
            sink.close()
        answer[domain] = {
            "target": target_of(domain),
            "pending": [str(day) for day in pending],
            "sources": {s.name: _newest(s, loads) for s in sources if s.domain == domain},
        }
    _show(answer)
    return dict(answer)


def _newest(source: Source, loads: Sequence[LoadRecord]) -> dict[str, object] | None:
    """What is worth knowing of the last load of a source; None before the first."""
    own = [load for load in loads if load.source in source.loads]
    if not own:
        return None
    last = own[-1]
    return {
        "loads": len(own),
        "last_load_id": last.load_id,
        "last_finished_at": last.finished_at.isoformat() if last.finished_at else None,
        "last_window": str(last.window) if last.window else None,
        "last_rows_landed": last.rows_landed,
        "last_rows_quarantined": last.rows_quarantined,
        "cursor": dict(last.cursor),
    }


def _show(answer: Mapping[str, Mapping[str, Any]]) -> None:
    """The same for a person, on standard error."""
    row = "{:<12} {:<12} {:>6} {:<27} {:<26} {:>12} {:>12}".format
    header = row(
        "domain", "source", "loads", "last window", "finished (UTC)", "rows", "quarantined"
    )
    print(header, file=sys.stderr)
    for domain, state in answer.items():
        for name, last in state["sources"].items():
            if last is None:
                print(row(domain, name, 0, "never landed", "", "", ""), file=sys.stderr)
                continue
            cells = (
                last["loads"],
                last["last_window"] or "by its own cursor",
                (last["last_finished_at"] or "")[:19],
                last["last_rows_landed"],
                last["last_rows_quarantined"],
            )
            print(row(domain, name, *cells), file=sys.stderr)
        days = ", ".join(state["pending"]) or "none"
        print(f"{domain}: days to build: {days}", file=sys.stderr)


def _names(domain: str) -> list[str]:
    return [name for source in sources_of(domain) for name in source.loads]
