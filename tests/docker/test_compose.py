"""docker-compose.yaml and what it runs. No container engine runs here: its commands run natively.

`make lint` checks the file against the compose specification.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import boto3
import psycopg
import pytest
import requests
import yaml

from sandbox.airflow import airflow_settings
from sandbox.clickhouse import ClickhouseServer
from sandbox.dbt import ROOT
from sandbox.feed import TABLES, feed_server
from sandbox.outside import Outside, data_set
from sandbox.postgres import PostgresServer, postgres_server, tools
from sandbox.served import MARK, ServedError, app_server, fill, fill_app

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {"airflow-init"}
REFERENCE = re.compile(r"\$\{(\w+)(:[-?][^}]*)?\}")
SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|KEY")
WITH_PASSWORD = re.compile(r"://\w+:[^@/]+@")


def environment_of(service: str, values: Mapping[str, str]) -> dict[str, str]:
    """A service's environment, with `${NAME}` as compose fills it in."""
    environment: dict[str, Any] = SERVICES[service]["environment"]

    def value(found: re.Match[str]) -> str:
        default = (found[2] or "")[2:]
        return values.get(found[1]) or default

    return {name: REFERENCE.sub(value, str(text)) for name, text in environment.items()}


@pytest.fixture
def dot_env(tmp_path: Path) -> dict[str, str]:
    """What `make env` makes."""
    path = tmp_path / ".env"
    done = make_env(path)
    assert done.returncode == 0, done.stderr
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def make_env(path: Path) -> subprocess.CompletedProcess[str]:
    """Run it."""
    return subprocess.run(
        [sys.executable, str(ROOT / "docker" / "make_env.py"), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_images_are_pinned_and_servers_have_health_checks() -> None:
    for name, service in SERVICES.items():
        tag = service["image"].rpartition(":")[2]
        assert re.match(r"\d+\.\d+", tag), f"{name}: {service['image']}"
        assert ("healthcheck" in service) == (name not in ONE_SHOT), name
    first_lines = re.findall(r"^FROM (\S+) AS", (ROOT / "Dockerfile").read_text(), re.M)
    bases = [base for base in first_lines if ":" in base]
    assert bases
    assert all(re.search(r":\d+\.\d+\.\d+", base) for base in bases)


def test_every_stage_that_compose_builds_is_in_the_dockerfile() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", (ROOT / "Dockerfile").read_text(), re.M))
    targets = {s["build"]["target"] for s in SERVICES.values() if "build" in s}
    assert targets == {"airflow", "sandbox"}
    assert targets <= stages
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    for pattern in " ".join(copied).split():
        assert list(ROOT.glob(pattern)), f"nothing is called {pattern}"


def test_secrets_come_from_the_environment_alone(dot_env: dict[str, str]) -> None:
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key) or WITH_PASSWORD.search(str(value)):
                assert REFERENCE.search(str(value)), f"{name}.{key} holds a secret"
            for found in REFERENCE.finditer(str(value)):
                assert found[1] in dot_env, found[0]
                # A secret without a value stops compose: none has a default.
                assert (found[2] or "").startswith(":?") == bool(SECRET.search(found[1])), found[0]


def test_make_env_fills_in_random_values_once(tmp_path: Path, dot_env: dict[str, str]) -> None:
    empty = {n for n in dot_env if SECRET.search(n)}
    assert len({dot_env[name] for name in empty}) == len(empty) >= 8
    assert all(len(dot_env[name]) >= 32 for name in empty)
    path = tmp_path / ".env"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_text()
    again = make_env(path)
    assert (again.returncode, path.read_text()) == (1, before)
    assert "left alone" in again.stderr
    make_env(tmp_path / "other")
    assert (tmp_path / "other").read_text() != before


def test_containers_run_airflow_as_make_airflow_does() -> None:
    """The same settings by name, and by value where the place does not matter."""
    ours = airflow_settings("http://localhost:8081", Path("/home"), "postgresql://u:p@h:1/d")
    theirs = SERVICES["airflow-scheduler"]["environment"]
    names = {name for name in ours if name.startswith("AIRFLOW__")}
    assert names == {name for name in theirs if name.startswith("AIRFLOW__")}
    of_a_place = re.compile(r"/|_KEY$|_SECRET$|HOST$")
    for name in names:
        if not of_a_place.search(name) and "/" not in ours[name]:
            assert str(theirs[name]) == ours[name], name


@pytest.fixture
def blank_server() -> Iterator[PostgresServer]:
    """A server as the image has it: with the superuser `postgres` and nothing of ours."""
    if os.environ.get("POSTGRES_HOST"):
        pytest.skip("POSTGRES_HOST is somebody's server: roles are made only on one of our own")
    with postgres_server() as own:
        ours = psycopg.connect(own.url("postgres"), autocommit=True)
        ours.execute(f"create role postgres superuser login password '{own.password}'".encode())
        ours.close()
        server = replace(own, user="postgres")
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute(f"alter role {own.user} rename to somebody".encode())
        yield server
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("drop database vitrina with (force)")
            connection.execute("drop role vitrina")
            connection.execute(f"alter role somebody rename to {own.user}".encode())


def test_entry_points_run_natively(
    blank_server: PostgresServer, dot_env: dict[str, str], tmp_path: Path
) -> None:
    """PostgreSQL's init script, Airflow's init, twice, and the sandbox, with compose's environment."""
    server = blank_server
    given = environment_of("postgres", dot_env)
    at = {"PGHOST": server.host, "PGPORT": str(server.port), "PGPASSWORD": server.password}
    at["PATH"] = f"{tools()}{os.pathsep}{os.environ['PATH']}"
    run([str(ROOT / "docker" / "postgres-init.sh")], {**given, **at})

    airflow = localised(environment_of("airflow-init", dot_env), server, tmp_path)
    (tmp_path / "dbt").mkdir()
    for name in ("dbt_project.yml", "profiles.yml", "dbt_project", "macros", "tests", "seeds"):
        (tmp_path / "dbt" / name).symlink_to(ROOT / name)
    for _ in range(2):
        run(["sh", str(ROOT / "docker" / "airflow-init.sh")], airflow)
    assert (tmp_path / "dbt" / "target" / "manifest.json").exists()
    assert (tmp_path / "dbt" / "target" / "static_index.html").exists()
    with psycopg.connect(server.url("airflow")) as metadata:
        assert metadata.execute("select username from ab_user").fetchall() == [("admin",)]
    with app_natively(environment_of("social", dot_env)) as port:
        environment = localised(environment_of("sandbox", dot_env), server, tmp_path)
        url = environment["FEED_CLICKHOUSE_URL"].replace("@social:8123", f"@127.0.0.1:{port}")
        served_natively({**environment, "FEED_CLICKHOUSE_URL": url})


def localised(environment: dict[str, str], server: PostgresServer, folder: Path) -> dict[str, str]:
    """Compose's environment with this machine's addresses and folders."""
    address = f"{server.host}:{server.port}"
    found = {name: v.replace("@postgres:5432", f"@{address}") for name, v in environment.items()}
    return {
        **found,
        "POSTGRES_HOST": server.host,
        "POSTGRES_PORT": str(server.port),
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        "VITRINA_DBT_DIR": str(folder / "dbt"),
        "DBT_PROFILES_DIR": str(folder / "dbt"),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "dags"))),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def run(command: list[str], environment: Mapping[str, str]) -> None:
    """Run a command of a container to its end, which has to be well."""
    done = subprocess.run(
        command, env=dict(environment), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def app_natively(environment: dict[str, str]) -> Iterator[int]:
    """The social app's container, on a free port."""
    (port,) = free_ports(1)
    _, *entry = SERVICES["social"]["entrypoint"]
    entry[entry.index("8123")] = str(port)
    process = subprocess.Popen(
        [sys.executable, *entry],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(30)


def served_natively(environment: dict[str, str]) -> None:
    """The sandbox's container: its APIs answer on their ports, events and files are there."""
    entry = "python -m sandbox.served --host 0.0.0.0"
    assert str(entry.split()).replace("'", '"') in (ROOT / "Dockerfile").read_text()
    port, reports_port, s3_port = free_ports(3)
    ports = ["--port", str(port), "--reports-port", str(reports_port), "--s3-port", str(s3_port)]
    process = subprocess.Popen(
        [sys.executable, *entry.split()[1:], *ports, "--data", "world"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        token = {"Authorization": f"Bearer {environment['CRM_API_TOKEN']}"}
        assert answered(f"http://127.0.0.1:{port}/api/clients", token)["clients"]
        order_files(f"http://127.0.0.1:{reports_port}", f"http://127.0.0.1:{s3_port}", environment)
        with psycopg.connect(environment["TELEMETRY_DB_URL"]) as source:
            count = source.execute("select count(*) from telemetry_events").fetchone()
        assert count is not None
        assert count[0] > 30_000
        app = app_server(environment["FEED_CLICKHOUSE_URL"])
        # The CRM's API, which answered, is the last to listen: all is filled by then.
        assert int(app.ask("select count() from feed_actions")) > 1_000
        assert int(app.ask("select count() from message_actions")) > 1_000
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=30)
    assert process.returncode in (0, 143, -15), output


def order_files(api: str, s3: str, environment: Mapping[str, str]) -> None:
    """Ask for a report and read a file of it, as ingestion does."""
    headers = {
        "X-API-KEY": environment["REPORTS_API_KEY"],
        "X-Nickname": environment["REPORTS_NICKNAME"],
        "X-Cohort": environment["REPORTS_COHORT"],
        "X-Project": "True",
    }
    task_id = answered(f"{api}/generate_report", headers, "POST")["task_id"]
    look = f"{api}/get_report?task_id={task_id}"
    while (answer := answered(look, headers))["status"] == "RUNNING":
        time.sleep(0.05)
    url = answer["data"]["s3_path"]["user_orders_log"]
    _, _, bucket, key = url.split("/", 3)
    client = boto3.client(
        "s3",
        endpoint_url=s3,
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    content = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    assert content.startswith(b"id,uniq_id,date_time,")
    assert content.count(b"\n") > 5_000


def answered(url: str, headers: Mapping[str, str], method: str = "GET") -> Any:
    """What a server answers, once it does."""
    deadline = time.monotonic() + 60
    while True:
        try:
            answer = requests.request(method, url, headers=headers, timeout=10)
        except requests.ConnectionError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.2)
            continue
        if answer.ok:
            return answer.json()
        assert answer.status_code in (429, 503), answer.text


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@pytest.fixture
def telemetry(sources: Outside) -> str:
    """A telemetry database without the table."""
    with psycopg.connect(sources.telemetry_url) as connection:
        connection.execute("drop table telemetry_events")
    return sources.telemetry_url


def test_the_sandbox_fills_its_own_table_anew_and_no_other(telemetry: str) -> None:
    data = data_set("world")
    assert fill(telemetry, data) == fill(telemetry, data) > 30_000
    with psycopg.connect(telemetry) as connection:
        found = connection.execute(
            "select count(*), obj_description('telemetry_events'::regclass) from telemetry_events"
        ).fetchone()
        assert found is not None
        assert found[1] == MARK
        connection.execute("comment on table telemetry_events is 'production'")
    with pytest.raises(ServedError, match="left alone"):
        fill(telemetry, data)
    with psycopg.connect(telemetry) as connection:
        assert connection.execute("select count(*) from telemetry_events").fetchone() == found[:1]


def test_the_sandbox_fills_its_own_app_anew_and_no_other(clickhouse: ClickhouseServer) -> None:
    data = data_set("world")
    with feed_server(clickhouse, "served") as theirs:
        with pytest.raises(ServedError, match="left alone"):
            fill_app(theirs, data)
        theirs.ask("drop table feed_actions sync")
        theirs.ask("drop table message_actions sync")
        feed = app_server(theirs.url)
        assert fill_app(feed, data) == fill_app(feed, data) > 10_000
        comment = "select comment from system.tables where database = 'served' and name = '{}'"
        for table in TABLES:
            found = feed.ask(f"{comment.format(table)} format TSVRaw")
            assert found.decode().strip() == MARK
        feed.ask("alter table message_actions modify comment 'production'")
        with pytest.raises(ServedError, match="message_actions is there"):
            fill_app(feed, data)


def test_the_cluster_is_what_its_configuration_says() -> None:
    """Two shards of two replicas, each service with its own numbers, and none of it by default."""
    folder = ROOT / "docker" / "clickhouse"
    config = ElementTree.parse(folder / "cluster.xml").getroot()  # noqa: S314  # our own
    (cluster,) = config.findall("remote_servers/*")
    shards = [
        [host.text for host in shard.findall("replica/host")] for shard in cluster.findall("shard")
    ]
    assert [len(shard) for shard in shards] == [2, 2]
    for number, shard in enumerate(shards, 1):
        for host in shard:
            service = SERVICES[str(host)]
            place = (number, service["environment"]["CLICKHOUSE_REPLICA"])
            assert (int(service["environment"]["CLICKHOUSE_SHARD"]), str(host)[-1]) == place
            assert service["profiles"] == ["clickhouse-cluster"]
            assert "clickhouse-keeper" in service["depends_on"]
    given = {e.get("from_env") for e in config.iter() if e.get("from_env")}
    assert given <= set(SERVICES["clickhouse-1a"]["environment"])
    keeper = ElementTree.parse(folder / "keeper.xml").getroot()  # noqa: S314  # our own
    port = config.findtext("zookeeper/node/port")
    assert keeper.findtext("keeper_server/tcp_port") == port == "9181"
    assert SERVICES["clickhouse"]["profiles"] == ["clickhouse"]
    assert "profiles" not in SERVICES["postgres"]
