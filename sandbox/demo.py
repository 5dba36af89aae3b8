"""`make demo`: the whole job on a laptop, from empty servers to tested marts and their docs.

Runs the commands that a data engineer runs, against the sandbox, and shows what came out. What it
does for a domain is in `sandbox.showcase`.
"""

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import clickhouse_connect
import psycopg
from dbt.cli.main import dbtRunner
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from sandbox.outside import DATA_SETS, TARGETS, DataSet, data_set, filled_outside, is_free
from sandbox.showcase import DOMAINS, Domain, Shown

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".sandbox" / "kept.json"
DOCS = ROOT / "target" / "static_index.html"
ALL = "all"
WAREHOUSES = {"postgres": "PostgreSQL", "clickhouse": "ClickHouse as the warehouse, PostgreSQL"}
START_SECONDS = 60
HEADER_WIDTH = 9  # characters
KINDS = {"model": "models", "test": "tests", "unit_test": "tests"}

# Wide enough for the mart where nobody sees a terminal, as in a log of CI.
console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)


class DemoError(Exception):
    """A step failed; the message says which and shows what it said."""


@dataclass
class Report:
    """The steps done so far: what each did and how long it took, in seconds."""

    steps: list[tuple[str, str, float]] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator["Step"]:
        """Show that a step is under way, then what came of it."""
        began = time.monotonic()
        with console.status(title) as status:
            step = Step(status, title)
            yield step
        seconds = time.monotonic() - began
        self.steps.append((title, step.result, seconds))
        console.print(f"[green]done[/] {title:<40} {step.result:<56} {seconds:5.1f} s")


@dataclass
class Step:
    """A step under way."""

    status: Status
    title: str
    result: str = ""

    def progress(self, text: str) -> None:
        """Show how far it is."""
        self.status.update(f"{self.title}: {text}")


def main() -> int:
    """Run the demo; returns the exit status."""
    options = _options()
    if options.down:
        return _down()
    try:
        _demo(options)
    except DemoError as error:
        console.print("[red]failed[/]", escape(str(error)))
        return 1
    except KeyboardInterrupt:
        console.print("[red]interrupted[/]; everything that was started is stopped")
        return 130
    return 0


def _demo(options: argparse.Namespace) -> None:
    report = Report()
    with ExitStack() as stack:
        data = data_set(options.data)
        domains = _chosen(options.domain, data)
        with report.step("start the sandbox") as step:
            environment = _started(stack, options, data)
            needs = ", ".join(domain.needs for domain in domains)
            step.result = f"{WAREHOUSES[options.target]}, {needs}"
        os.environ.update(environment)

        with report.step("python -m ingestion init") as step:
            step.result = f"{len(_ingestion('init')['tables'])} raw tables"
        for domain in domains:
            _run(report, domain, data)
        with report.step("dbt docs generate") as step:
            _dbt("docs", "generate", "--static", "--no-compile")
            step.result = "the docs site, one page"
        for domain in domains:
            for shown in domain.tables:
                _show(shown)
        _summary(report)
        _next_steps(environment, kept=options.keep)


def _chosen(name: str, data: DataSet) -> list[Domain]:
    """The domains asked for. Raises DemoError when the data set has nothing for one."""
    if name == ALL:
        return [domain for domain in DOMAINS.values() if domain.is_in(data)]
    if not DOMAINS[name].is_in(data):
        raise DemoError(f"this data has nothing for the domain {name}")
    return [DOMAINS[name]]


def _run(report: Report, domain: Domain, data: DataSet) -> None:
    """Land a domain's sources, build and test its models for the days that changed, mark them."""
    for source, *arguments in domain.landings(data):
        shown = f"{source} {shlex.join(arguments[:2])}" if arguments[:1] == ["--mode"] else source
        with report.step(f"python -m ingestion {shown}") as step:
            landed = _ingestion(source, *arguments)
            step.result = (
                f"{landed['rows_landed']:,} rows landed, {landed['quarantined']} quarantined"
            )
    with report.step(f"python -m ingestion plan {domain.name}") as step:
        plan = _ingestion("plan", domain.name)
        step.result = f"{len(plan['days'])} days of {data.timezone} to build"
    with report.step(f"dbt build --select tag:{domain.name}") as step:
        step.result = _build(step, domain.name, plan["days"])
    with report.step(f"python -m ingestion mark {domain.name}") as step:
        marked = _ingestion("mark", domain.name, "--build", str(plan["build_id"]))
        step.result = f"{len(marked['pending'])} days pending"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandbox.demo", description=__doc__)
    parser.add_argument("--data", choices=DATA_SETS, default="world")
    parser.add_argument("--domain", choices=[ALL, *DOMAINS], default=ALL)
    parser.add_argument("--target", choices=TARGETS, default=TARGETS[0])
    parser.add_argument("--keep", action="store_true", help="leave the sandbox up")
    parser.add_argument("--down", action="store_true", help="stop the sandbox that was left up")
    return parser.parse_args()


def _started(stack: ExitStack, options: argparse.Namespace, data: DataSet) -> Mapping[str, str]:
    """The environment of a sandbox that ends with the demo, or of one that stays."""
    if not options.keep:
        world = stack.enter_context(filled_outside(data, options.target))
        return {**world.environment(), "BUSINESS_TIMEZONE": data.timezone}
    if _kept() is not None:
        raise DemoError("a sandbox is up already; `make down` stops it")
    STATE.parent.mkdir(mode=0o700, exist_ok=True)
    STATE.unlink(missing_ok=True)
    log = STATE.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "sandbox.outside", "--data", options.data),
                *("--target", options.target, "--state", STATE),
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while not STATE.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            raise DemoError(f"the sandbox does not start:\n{log.read_text()}")
        time.sleep(0.1)
    environment: dict[str, str] = json.loads(STATE.read_text())["environment"]
    return environment


def _kept() -> int | None:
    """The process that holds a sandbox which was left up, if it lives.

    It holds a lock on the file for as long: a number alone may be another process by now.
    """
    try:
        with STATE.open() as file:
            if is_free(file):
                return None
            return int(json.load(file)["pid"])
    except (OSError, ValueError, KeyError):
        return None


def _down() -> int:
    pid = _kept()
    if pid is None:
        console.print("no sandbox is up")
        return 0
    os.kill(pid, signal.SIGTERM)
    while _kept() is not None:
        time.sleep(0.1)
    console.print("the sandbox is stopped")
    return 0


def _ingestion(*arguments: str) -> dict[str, Any]:
    """Run a command of ingestion as a user would; returns the last line of its output, decoded."""
    done = subprocess.run(
        [sys.executable, "-m", "ingestion", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DemoError(f"python -m ingestion {shlex.join(arguments)}\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _build(step: Step, domain: str, days: Sequence[str]) -> str:
    """Build and test the models for these days; returns what was built and how the tests went."""
    outcomes: dict[str, int] = {}

    done: list[str] = []

    def count(event: Any) -> None:
        if event.info.name == "NodeFinished":
            done.append(event.data.node_info.node_name)
            step.progress(f"{len(done)} models and tests, last {done[-1]}")

    # By the environment and not by --vars, which would cost a parse of everything.
    os.environ["VITRINA_DAYS"] = ",".join(days)
    result = _dbt("build", "--select", f"tag:{domain}", callbacks=[count])
    for each in result:
        kind = KINDS.get(each.node.resource_type, "hooks")
        key = f"{kind} {each.status}"
        outcomes[key] = outcomes.get(key, 0) + 1
    return (
        f"{len(days)} days, {outcomes.get('models success', 0)} models,"
        f" {outcomes.get('tests pass', 0)} tests passed, {outcomes.get('tests warn', 0)} warn"
    )


def _dbt(*arguments: str, callbacks: Any = None) -> Any:
    """Run dbt in this process: its imports cost more than its work."""
    quiet = ["--log-level", "none", "--no-use-colors", "--project-dir", str(ROOT)]
    done = dbtRunner(callbacks=callbacks or []).invoke([*arguments, *quiet])
    if not done.success:
        failed = [
            f"{each.node.unique_id}: {each.message}"
            for each in getattr(done.result, "results", None) or []
            if each.status in ("error", "fail", "runtime error")
        ]
        reason = "\n".join(failed) or str(done.exception)
        raise DemoError(f"dbt {shlex.join(arguments)}\n{reason}\nlog: {ROOT / 'logs' / 'dbt.log'}")
    return done.result


def _show(shown: Shown) -> None:
    """Some rows of a table, with what there is of it."""
    names, rows = _asked(shown.query)
    title = shown.title
    if shown.counts:
        labels, (values,) = _asked(shown.counts)
        title += ": " + ", ".join(
            f"{_cell(value)} {label}" for value, label in zip(values, labels, strict=True)
        )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, name in enumerate(names):
        is_number = any(isinstance(row[index], int | float | Decimal) for row in rows)
        table.add_column(_header(name), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console.print()
    console.print(table)


def _asked(query: str) -> tuple[Sequence[str], Sequence[Sequence[object]]]:
    """The names of a query's columns, and its rows, from whichever warehouse it is."""
    env = os.environ
    if env["VITRINA_TARGET"] == "clickhouse":
        client = clickhouse_connect.get_client(
            host=env["CLICKHOUSE_HOST"],
            port=int(env["CLICKHOUSE_PORT"]),
            username=env["CLICKHOUSE_USER"],
            password=env["CLICKHOUSE_PASSWORD"],
        )
        with client:
            answer = client.query(query)
            return answer.column_names, answer.result_rows
    with psycopg.connect(
        host=env["POSTGRES_HOST"],
        port=env["POSTGRES_PORT"],
        user=env["POSTGRES_USER"],
        password=env["POSTGRES_PASSWORD"],
        dbname=env["POSTGRES_DB"],
        options="-c timezone=UTC",
    ) as connection:
        cursor = connection.execute(query.encode())
        return [column.name for column in cursor.description or []], cursor.fetchall()


def _header(name: str) -> str:
    """A long name in several lines, so that the table fits a terminal."""
    lines = [""]
    for part in re.findall(r"[^_]*_?", name):
        if lines[-1] and len(lines[-1] + part) > HEADER_WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, int | Decimal):
        return f"{value:,}"
    if isinstance(value, datetime):
        return f"{value:%H:%M:%S}Z"
    # A name may hold a newline or a tab.
    return "[dim]null[/]" if value is None else escape(" ".join(str(value).split()))


def _summary(report: Report) -> None:
    table = Table(title="Summary", title_justify="left", show_footer=True, box=box.SIMPLE_HEAD)
    table.add_column("step", footer="all of it")
    table.add_column("result")
    total = sum(seconds for _, _, seconds in report.steps)
    table.add_column("seconds", justify="right", footer=f"{total:.1f}")
    for title, result, seconds in report.steps:
        table.add_row(title, result, f"{seconds:.1f}")
    console.print()
    console.print(table)


def _next_steps(environment: Mapping[str, str], *, kept: bool) -> None:
    # print and not the console, which would fold what is there to be copied.
    print(f"\nThe docs site is one page: {DOCS}")
    if not kept:
        print("The sandbox is stopped. Go on: make demo KEEP=1, make demo DATA=flights, make test")
        return
    print("The sandbox stays up; `make down` stops it. Its addresses for your shell:\n")
    for name, value in environment.items():
        print(f"export {name}={shlex.quote(value)}")
    print("\nThen, for example: . .venv/bin/activate; python -m ingestion status; dbt build")


if __name__ == "__main__":
    sys.exit(main())
