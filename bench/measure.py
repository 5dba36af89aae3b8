"""How long a command takes and how much memory it and its children hold; how long models take."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from tempfile import TemporaryFile

import psutil

from sandbox.dbt import BUILT, Project

POLL_SECONDS = 0.02
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Measured:
    """One run: wall time of the command in seconds, peak resident memory in MB, what it printed."""

    seconds: float
    peak_mb: float
    output: str


def measured(command: Sequence[str], env: Mapping[str, str]) -> Measured:
    """Run a command to its end. Raises RuntimeError with its output when it fails.

    Memory is the sum over the process and its descendants, polled: servers are not among them.
    """
    # A file and not a pipe, which would fill up: nobody reads before the end.
    with TemporaryFile("w+") as printed:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
        watched = psutil.Process(process.pid)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _resident(watched))
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - began
        printed.seek(0)
        output = printed.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{output}")
    return Measured(seconds, peak / MEGABYTE, output)


def built(project: Project, settings: Mapping[str, str], select: Sequence[str]) -> dict[str, float]:
    """Build models and the seeds that they read; seconds of each node. Raises RuntimeError if one fails."""
    run = project.invoke(["build", *BUILT, "--select", *select], settings)
    if not run.success:
        raise RuntimeError("\n".join(run.failures()))
    return {node.name: node.seconds for node in run.nodes}


def middle(values: Sequence[float]) -> float:
    """The median."""
    return float(median(values))


def _resident(process: psutil.Process) -> int:
    total = 0
    try:
        for each in [process, *process.children(recursive=True)]:
            total += each.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total
