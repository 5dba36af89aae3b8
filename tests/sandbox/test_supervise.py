"""Whatever ends the supervisor, or the process that it serves, nothing that it started is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.dbt import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="subreapers are Linux's")

# A component of Airflow's kind: it leaves a daemon behind that has a session of its own, is nobody's
# child, and does not listen to SIGTERM.
COMPONENT = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("daemon", flush=True)
        time.sleep(600)
    os._exit(0)
os.wait()
print("up", flush=True)
time.sleep(600)
"""
# What holds the supervisor: its end, however it comes, closes the pipe.
OWNER = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-m", "sandbox.supervise", *sys.argv[1:]], stdin=subprocess.PIPE)
time.sleep(600)
"""
PATIENCE_SECONDS = 20


@pytest.fixture
def mark() -> str:
    """What the processes of this test have in their environment."""
    return f"vitrina-test-{os.getpid()}-{time.monotonic_ns()}"


@pytest.fixture
def owner(tmp_path: Path, mark: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a supervisor of two components, all of them up."""
    logs = {name: tmp_path / f"{name}.log" for name in ("one", "two")}
    command = [sys.executable, "-c", COMPONENT]
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({n: {"command": command, "log": str(p)} for n, p in logs.items()}))
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(spec), "0.5"],
        cwd=ROOT,
        env={**os.environ, "MARK": mark},
        stderr=(tmp_path / "supervisor.log").open("w"),
    )
    wait_until(lambda: all(p.exists() and "up" in p.read_text() for p in logs.values()))
    # Owner, supervisor, and two components with a daemon each.
    wait_until(lambda: len(marked(mark)) == 6)
    yield process
    for pid in marked(mark):
        os.kill(pid, signal.SIGKILL)
    process.kill()
    process.wait()


def wait_until(condition: Callable[[], bool]) -> None:
    """Fail when it does not come about."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def marked(mark: str) -> dict[int, str]:
    """The command lines of the living processes of a test."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if mark.encode() in environment and command:
            found[int(folder.name)] = command
    return found


def pid_of(mark: str, part: str) -> int:
    """The process whose command line has this part."""
    (pid,) = (pid for pid, command in marked(mark).items() if part in command)
    return pid


def test_kill_9_of_the_owner_ends_all_of_it(owner: subprocess.Popen[bytes], mark: str) -> None:
    owner.kill()
    owner.wait()
    wait_until(lambda: not marked(mark))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_supervisor_that_is_told_to_stop_leaves_nothing(
    owner: subprocess.Popen[bytes], mark: str, number: signal.Signals
) -> None:
    os.kill(pid_of(mark, "-m sandbox.supervise"), number)
    wait_until(lambda: set(marked(mark)) == {owner.pid})


def test_when_one_ends_all_end_and_its_last_lines_are_told(
    owner: subprocess.Popen[bytes], mark: str, tmp_path: Path
) -> None:
    # Its daemon, adopted by the supervisor, has the same command line.
    supervisor = pid_of(mark, "-m sandbox.supervise")
    components = [pid for pid in marked(mark) if pid not in (owner.pid, supervisor)]
    for pid in components:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: set(marked(mark)) == {owner.pid})
    assert "ended with status -9; its last lines:" in (tmp_path / "supervisor.log").read_text()
