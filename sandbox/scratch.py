"""Temporary folders that don't outlive their owner by more than one start.

A folder is its owner's for as long as the owner holds an flock on the file `lock` in it. The
kernel lets go of the lock when the owner dies, in whatever way, so a folder whose lock can be
taken is litter, and the next start sweeps it away.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "vitrina-sandbox-"
_LOCK = "lock"
_UNLOCKED_GRACE_SECONDS = 3600.0  # a folder without a lock: its owner may be about to make it
_STOP_SECONDS = 10.0


@contextmanager
def scratch_folder(base: Path | None = None) -> Iterator[Path]:
    """Yield a fresh folder (mode 0700) below `base`, gone afterwards; sweep dead ones before.

    A server that runs in it belongs into a file `<name>.pid` there, for the sweep to end it.
    """
    base = base or Path(tempfile.gettempdir())
    sweep(base)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    try:
        # Locked under another name first: no sweep may ever see a `lock` that nobody holds yet.
        unpublished = folder / f"{_LOCK}.new"
        with unpublished.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            unpublished.rename(folder / _LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(base: Path) -> list[Path]:
    """Remove the caller's own dead sandboxes below `base`, after what still runs in them."""
    swept = []
    for folder in sorted(base.glob(f"{_PREFIX}*")):
        if _is_own_folder(folder) and _is_abandoned(folder):
            for pid_file in folder.glob("*.pid"):
                _stop_orphan(pid_file)
            shutil.rmtree(folder, ignore_errors=True)
            swept.append(folder)
    return swept


def _is_own_folder(folder: Path) -> bool:
    """Tell whether it is a folder, not a link to one, and the caller's."""
    try:
        return folder.lstat().st_uid == os.geteuid() and folder.is_dir() and not folder.is_symlink()
    except FileNotFoundError:
        return False


def _is_abandoned(folder: Path) -> bool:
    """Tell whether nobody holds the folder's lock any more."""
    try:
        with (folder / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        with suppress(FileNotFoundError):
            return time.time() - folder.stat().st_mtime > _UNLOCKED_GRACE_SECONDS
        return False
    except OSError:  # held, most of all
        return False
    return True


def _stop_orphan(pid_file: Path) -> None:
    """End a server that has outlived its owner; the signal is PostgreSQL's immediate shutdown."""
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return
    deadline = time.monotonic() + _STOP_SECONDS
    # Pids are used again: it is the server only if its command line names this very folder.
    while str(pid_file.parent) in _command_line(pid) and time.monotonic() < deadline:
        with suppress(OSError):
            os.kill(pid, signal.SIGQUIT)
        time.sleep(0.05)


def _command_line(pid: int) -> str:
    """Return the command line of a process, '' when there is no such process."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("latin-1")
        except OSError:
            return ""
    ps = ["ps", "-ww", "-o", "args=", "-p", str(pid)]
    return subprocess.run(ps, capture_output=True, text=True, check=False).stdout
