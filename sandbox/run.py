"""Run a command against an empty warehouse that is gone afterwards: `python -m sandbox.run CMD …`.

Lint needs one, since sqlfluff's dbt templater connects before it compiles.
"""

import os
import subprocess
import sys

from ingestion.cli import main as ingestion
from sandbox.outside import outside
from sandbox.postgres import postgres_server


def main() -> int:
    """Start servers, run `init`, run the command with their settings; returns its exit status."""
    command = sys.argv[1:]
    if not command:
        print("usage: python -m sandbox.run COMMAND [ARGUMENT …]", file=sys.stderr)
        return 2
    with postgres_server() as server, outside(server) as world:
        os.environ.update(world.environment())
        ingestion(["init"])
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
