"""Several long-running commands as one: when one ends, all end, and nothing of them is left behind.

`python -m sandbox.supervise SPEC.json [GRACE]`, where SPEC is `{name: {"command": […], "log": path}}`
and GRACE the seconds that they are given to stop by themselves (15). It runs until SIGTERM, SIGINT,
or the end of its standard input: the pipe that its parent holds closes however the parent ends, kill
-9 included. Whatever the commands start becomes a child of this process when
its own parent dies (a "subreaper", Linux only), so that even daemons' leftovers are found and ended.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from sandbox.lifetime import dying_with_parent

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>
GRACE_SECONDS = 15.0
_LOOK_SECONDS = 0.2
_LOG_TAIL_LINES = 30


def main() -> int:
    """Run the commands until told to stop (0) or until one of them ends (1)."""
    spec = json.loads(Path(sys.argv[1]).read_text())
    grace = float(sys.argv[2]) if len(sys.argv) > 2 else GRACE_SECONDS
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _frame: stopping.append(got))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    processes = {name: _start(each["command"], each["log"]) for name, each in spec.items()}
    try:
        while not stopping and not _input_has_ended():
            for name, process in processes.items():
                if process.poll() is not None:
                    tail = Path(spec[name]["log"]).read_text(errors="replace").splitlines()
                    print(
                        f"{name} ended with status {process.returncode}; its last lines:",
                        *tail[-_LOG_TAIL_LINES:],
                        sep="\n",
                        file=sys.stderr,
                        flush=True,
                    )
                    return 1
        return 0
    finally:
        _stop(processes, grace)


def let_forks_die_with_us() -> None:
    """Have the kernel kill what this process forks, and what that forks, once its parent is gone."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        os.register_at_fork(
            after_in_child=lambda: libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        )


def _start(command: list[str], log: str) -> "subprocess.Popen[bytes]":
    with Path(log).open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # The terminal's Ctrl-C is for us: we say when they stop.
            start_new_session=True,
            preexec_fn=dying_with_parent(signal.SIGTERM),
        )


def _input_has_ended() -> bool:
    """Wait a moment for the end of standard input; what comes there before is ignored."""
    try:
        readable, _, _ = select.select([0], [], [], _LOOK_SECONDS)
    except InterruptedError:
        return False
    return bool(readable) and os.read(0, 1024) == b""


def _stop(processes: "dict[str, subprocess.Popen[bytes]]", grace: float) -> None:
    """Ask each to stop, wait, then end whatever is still there."""
    for process in processes.values():
        with suppress(ProcessLookupError):
            process.terminate()
    deadline = time.monotonic() + grace
    while _descendants() and time.monotonic() < deadline:
        _reap()
        time.sleep(0.05)
    while left := _descendants():
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        _reap()
        time.sleep(0.02)


def _reap() -> None:
    """Take leave of children that have ended, adopted ones included."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _descendants() -> list[int]:
    """The living processes below this one; where there is no /proc, none are known."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in brackets may hold anything; the state and the parent follow it.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state != "Z":
            parents[int(stat.parent.name)] = int(parent)
    found: list[int] = []
    wanted = {os.getpid()}
    while wanted:
        wanted = {pid for pid, parent in parents.items() if parent in wanted}
        found.extend(wanted)
    return found


if __name__ == "__main__":
    sys.exit(main())
