"""dbt inside this process: importing it and parsing cost more than all the builds of a test."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dbt.cli.main import dbtRunner
from dbt.contracts.graph.manifest import Manifest

ROOT = Path(__file__).resolve().parent.parent
# Models and the seeds that they read; not their tests.
BUILT = ("--resource-type", "model", "--resource-type", "seed")


@dataclass(frozen=True)
class Node:
    """What became of one model or test."""

    name: str
    status: str
    message: str
    compiled: str = field(default="", repr=False)
    seconds: float = 0.0


@dataclass(frozen=True)
class Run:
    """What became of an invocation; `error` is set when it ended before any node ran."""

    success: bool
    nodes: tuple[Node, ...] = ()
    error: str = ""

    def failures(self) -> list[str]:
        """A line for each node that did not do its work, the reason included."""
        bad = ("error", "fail", "runtime error", "skipped")
        lines = [f"{n.name}: {n.message}" for n in self.nodes if n.status in bad]
        return [*lines, *([self.error] if self.error else [])]


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """os.environ with these values, as it was afterwards."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass
class Project:
    """A dbt project: this repository's, or a scratch one. Parsed at the first call only."""

    folder: Path = ROOT
    target_path: Path = ROOT / "target"
    manifest: Manifest | None = field(default=None, repr=False)

    def invoke(self, arguments: Sequence[str], env: Mapping[str, str]) -> Run:
        """Run a command of dbt with these settings."""
        with environment({**env, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}):
            if self.manifest is None:
                parsed = self._call(dbtRunner(), ["parse"])
                if not parsed.success:
                    return Run(success=False, error=str(parsed.exception))
                assert isinstance(parsed.result, Manifest)
                self.manifest = parsed.result
            done = self._call(dbtRunner(manifest=self.manifest), arguments)
        nodes = tuple(
            Node(
                each.node.name,
                str(each.status),
                str(each.message or ""),
                str(getattr(each.node, "compiled_code", None) or ""),
                float(each.execution_time),
            )
            for each in getattr(done.result, "results", None) or ()
            # A hook that refused the run counts, one that let it pass says nothing of it.
            if hasattr(each, "node")
            and (each.node.resource_type != "operation" or each.status != "success")
        )
        return Run(bool(done.success), nodes, str(done.exception or ""))

    def _call(self, runner: dbtRunner, arguments: Sequence[str]) -> Any:
        quiet = ["--log-level", "none", "--log-level-file", "none", "--no-use-colors"]
        paths = ["--project-dir", str(self.folder), "--target-path", str(self.target_path)]
        profile = ["--profiles-dir", str(ROOT)]
        return runner.invoke([*arguments, *quiet, *paths, *profile])
