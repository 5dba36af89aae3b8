"""`make airflow`: a real Airflow on loopback, with the sandbox's outside world to work on.

API server, scheduler, DAG processor and triggerer run as processes of their own, supervised as one
(`sandbox.supervise`), with their metadata in the sandbox's PostgreSQL and all files in a scratch
folder that goes at the end. The DAGs are paused, ready to be switched on.
"""

import argparse
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import requests

from sandbox.lifetime import unwinding_on_termination
from sandbox.outside import DATA_SETS, Outside, data_set, filled_outside
from sandbox.scratch import scratch_folder

ROOT = Path(__file__).resolve().parent.parent
USER = PASSWORD = "admin"  # noqa: S105 - loopback, and said aloud
PORT = 8081
START_SECONDS = 240.0
STOP_SECONDS = 40.0
PROJECT = ("dbt_project.yml", "profiles.yml", "dbt_project", "macros", "tests", "seeds")
COMPONENTS: Mapping[str, Sequence[str]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
# One start of Python for both: a start costs more than what it does.
PREPARE = f"""
from airflow.cli.cli_parser import get_parser
for command in (
    ["db", "migrate"],
    ["users", "create", "-r", "Admin", "-u", "{USER}", "-p", "{PASSWORD}",
     "-f", "Ada", "-l", "Min", "-e", "admin@localhost"],
):
    options = get_parser().parse_args(command)
    options.func(options)
"""
# The models as empty tables, so that the docs know the types of their columns.
MODELS = """
import sys
from dbt.cli.main import dbtRunner
from ingestion.cli import main

if main(["init"]):
    sys.exit(1)
built = ["build", "--resource-type", "seed", "--resource-type", "model"]
for command in (built, ["docs", "generate", "--static"]):
    done = dbtRunner().invoke(["--quiet", *command, "--target", sys.argv[1]])
    if not done.success:
        sys.exit(str(done.exception or f"dbt {command[0]} failed"))
"""
# Read by each component as it starts. Idle workers of a scheduler that was killed would stay.
LOCAL_SETTINGS = """
import sys

from sandbox.supervise import let_forks_die_with_us

if {"scheduler", "dag-processor"} & set(sys.argv):
    let_forks_die_with_us()
    import vitrina_dags.warm  # noqa: F401
"""


class AirflowError(RuntimeError):
    """It does not start, or answers with an error; the message says what it said."""


@dataclass(frozen=True)
class Airflow:
    """A running Airflow: its REST API (v2) and its command line.

    `check` raises AirflowError, with the last lines of what ended, when it runs no more.
    """

    url: str
    home: Path
    environment: Mapping[str, str] = field(repr=False)
    session: requests.Session = field(repr=False, default_factory=requests.Session)
    check: Callable[[], None] = field(repr=False, default=lambda: None)

    def get(self, path: str, **query: Any) -> Any:
        """GET /api/v2/{path}, decoded."""
        return self._call("GET", path, params=query)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST /api/v2/{path}, decoded."""
        return self._call("POST", path, json=body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """PATCH /api/v2/{path}, decoded."""
        return self._call("PATCH", path, json=body)

    def command(self, *arguments: str) -> str:
        """`airflow …`; returns its output. Raises AirflowError with it."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            cwd=self.home,
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise AirflowError(f"airflow {' '.join(arguments)}\n{done.stdout}")
        return done.stdout

    def health(self) -> dict[str, str]:
        """The state of each part, `healthy` where it is."""
        parts = requests.get(f"{self.url}/api/v2/monitor/health", timeout=10).json()
        return {name: str(part["status"]) for name, part in parts.items() if part["status"]}

    def log_in(self) -> None:
        """Take a token for the calls that follow."""
        answer = requests.post(
            f"{self.url}/auth/token", json={"username": USER, "password": PASSWORD}, timeout=30
        )
        if not answer.ok:
            raise AirflowError(f"no token: {answer.status_code} {answer.text}")
        self.session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        url = f"{self.url}/api/v2/{path}"
        answer = self.session.request(method, url, timeout=60, **kwargs)
        if not answer.ok:
            raise AirflowError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None


@contextmanager
def airflow(
    world: Outside,
    *,
    timezone: str,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Airflow]:
    """An Airflow on the servers of `world`, whose warehouse is made ready; a free port by default.

    `settings` are environment variables over the sandbox's own. Raises AirflowError when it does
    not come up.
    """
    metadata = world.postgres.create_database("airflow")
    try:
        with unwinding_on_termination(), scratch_folder() as home:
            url = f"http://localhost:{port or _free_port()}"
            environment = {
                **os.environ,
                **world.environment(),
                "BUSINESS_TIMEZONE": timezone,
                **airflow_settings(url, home, world.postgres.url(metadata)),
                **(settings or {}),
            }
            made = Airflow(url, home, environment)
            _prepare(made)
            with _running(made) as check:
                yield replace(made, check=check)
    finally:
        world.postgres.drop_database(metadata)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def airflow_settings(base_url: str, home: Path, metadata_url: str) -> dict[str, str]:
    """Airflow's settings, as environment variables."""
    port = base_url.rpartition(":")[2]
    url = metadata_url.replace("postgresql://", "postgresql+psycopg2://")
    docs = {"vitrina": {"dir": str(home / "dbt" / "target"), "index": "static_index.html"}}
    docs["vitrina"]["name"] = "Models"
    sections = {
        "CORE": {
            "AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
            "DAGS_FOLDER": str(ROOT / "dags"),
            "EXECUTION_API_SERVER_URL": f"{base_url}/execution/",
            "EXECUTOR": "LocalExecutor",
            "FERNET_KEY": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "LOAD_EXAMPLES": "False",
            "PARALLELISM": "16",
        },
        "API": {
            "BASE_URL": base_url,
            "HOST": "127.0.0.1",
            "PORT": port,
            "SECRET_KEY": secrets.token_urlsafe(24),
        },
        "API_AUTH": {"JWT_SECRET": secrets.token_urlsafe(48)},
        "DATABASE": {"SQL_ALCHEMY_CONN": url},
        "LOGGING": {"BASE_LOG_FOLDER": str(home / "logs")},
        # A laptop has one user: what is ready is to start now, not within a second.
        "SCHEDULER": {"SCHEDULER_IDLE_SLEEP_TIME": "0.25", "ENABLE_TRACEMALLOC": "False"},
        "DAG_PROCESSOR": {"PARSING_PROCESSES": "1"},
        "USAGE_DATA_COLLECTION": {"ENABLED": "False"},
        "COSMOS": {
            "CACHE_DIR": str(home / "cosmos"),
            "DBT_DOCS_PROJECTS": json.dumps(docs),
            "ENABLE_TELEMETRY": "False",
            # The producer would write a Variable at each event; a failure still saves them.
            "ENABLE_WATCHER_RELIABLE_RETRY": "False",
        },
    }
    return {
        "AIRFLOW_HOME": str(home),
        **{
            f"AIRFLOW__{section}__{name}": value
            for section, values in sections.items()
            for name, value in values.items()
        },
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
        "SCARF_NO_ANALYTICS": "true",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'dags'}",
        "PYTHONUNBUFFERED": "1",
        "VITRINA_DBT_DIR": str(home / "dbt"),
    }


def _prepare(made: Airflow) -> None:
    """Metadata, login, raw tables, dbt's manifest and docs. Side by side: imports take most of it."""
    project = made.home / "dbt"
    project.mkdir()
    for name in PROJECT:
        if (ROOT / name).exists():
            (project / name).symlink_to(ROOT / name)
    config = made.home / "config"
    config.mkdir()
    (config / "airflow_local_settings.py").write_text(LOCAL_SETTINGS)
    environment = {**made.environment, "DBT_PROJECT_DIR": str(project)}
    environment["DBT_PROFILES_DIR"] = str(project)
    # The target by name, as Cosmos gives it: part of what makes dbt parse again.
    target = environment.get("VITRINA_TARGET_TELEMETRY") or environment["VITRINA_TARGET"]
    steps = {
        "airflow db migrate, users create": ["-c", PREPARE],
        "python -m ingestion init, dbt build, dbt docs generate": ["-c", MODELS, target],
    }
    started = {
        name: subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, arguments in steps.items()
    }
    try:
        for name, process in started.items():
            output, _ = process.communicate(timeout=START_SECONDS)
            if process.returncode:
                raise AirflowError(f"{name} failed:\n{output}")
    except subprocess.TimeoutExpired as error:
        raise AirflowError(f"{error.cmd[-1]!r} took more than {error.timeout:.0f} s") from None
    finally:
        for process in started.values():
            process.kill()
            process.wait()


@contextmanager
def _running(made: Airflow) -> Iterator[Callable[[], None]]:
    """The components, until the block ends.

    Yields a check that raises AirflowError, with their last lines, when they have ended.
    """
    spec = made.home / "components.json"
    components = {
        name: {
            "command": [sys.executable, "-m", "airflow", *arguments],
            "log": str(made.home / f"{name}.log"),
        }
        for name, arguments in COMPONENTS.items()
    }
    spec.write_text(json.dumps(components))
    log = made.home / "supervisor.log"
    with log.open("w") as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "sandbox.supervise", str(spec)],
            cwd=ROOT,
            env=dict(made.environment),
            stdin=subprocess.PIPE,  # closes with us, however we end
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def check() -> None:
        if supervisor.poll() is not None:
            raise AirflowError(f"Airflow has ended:\n{log.read_text()}")

    try:
        _wait_until_ready(made, check)
        yield check
    finally:
        if supervisor.stdin is not None:
            supervisor.stdin.close()
        try:
            supervisor.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            supervisor.kill()
            supervisor.wait()


def _wait_until_ready(made: Airflow, check: Callable[[], None]) -> None:
    """Wait until all parts are healthy and the DAGs are there."""
    wanted = {"metadatabase", "scheduler", "triggerer", "dag_processor"}
    deadline = time.monotonic() + START_SECONDS
    state: object = "nothing"
    while time.monotonic() < deadline:
        check()
        try:
            health = made.health()
            state = health
            if wanted <= {part for part, status in health.items() if status == "healthy"}:
                if "Authorization" not in made.session.headers:
                    made.log_in()
                errors = made.get("importErrors")["import_errors"]
                if errors:
                    raise AirflowError(errors[0]["stack_trace"])
                if made.get("dags")["total_entries"] >= len(dag_files()):
                    return
        except (requests.ConnectionError, requests.Timeout, ValueError) as error:
            state = type(error).__name__
        time.sleep(0.2)
    logs = "\n".join(f"{name}:\n{_tail(made.home / f'{name}.log')}" for name in COMPONENTS)
    raise AirflowError(f"not ready after {START_SECONDS:.0f} s ({state})\n{logs}")


def dag_files() -> list[Path]:
    """The files that hold a DAG each."""
    return sorted((ROOT / "dags").glob("*.py"))


def _tail(path: Path, lines: int = 20) -> str:
    return (
        "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""
    )


def _port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _keep_settings(world: Outside, made: Airflow, timezone: str) -> Path:
    """A file of exports for a shell in which a failed task's command is to be repeated."""
    path = made.home / "settings.sh"
    path.touch(mode=0o600)  # it holds passwords
    settings = {**world.environment(), "BUSINESS_TIMEZONE": timezone}
    path.write_text("".join(f"export {n}={shlex.quote(v)}\n" for n, v in settings.items()))
    return path


def main() -> int:
    """Hold an Airflow until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.airflow", description=__doc__)
    parser.add_argument("--data", choices=DATA_SETS, default="recent")
    parser.add_argument("--port", type=int, default=PORT)
    options = parser.parse_args()
    # Before anything is started: whoever has the port would be taken for ours.
    if not _port_is_free(options.port):
        other = options.port + 1
        print(f"port {options.port} is taken: make airflow PORT={other}", file=sys.stderr)
        return 1
    data = data_set(options.data)
    done = threading.Event()
    try:
        print("starting the sources and Airflow: half a minute, more on a busy machine", flush=True)
        with (
            filled_outside(data) as world,
            airflow(world, timezone=data.timezone, port=options.port) as made,
        ):
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, lambda *_: done.set())
            print(f"\nAirflow: {made.url}   login {USER} / {PASSWORD}", flush=True)
            print(f"The sources hold the days from {data.start} to {data.end} (exclusive).")
            print(f"Settings for your shell: . {_keep_settings(world, made, data.timezone)}")
            print(f"Logs of the components: {made.home}/*.log. Ctrl-C stops all of it.", flush=True)
            while not done.wait(1):
                made.check()
    except AirflowError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped before it was up", file=sys.stderr)
        return 1
    print("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
