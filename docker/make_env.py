"""`make env`: .env from .env.example, with a random value for each variable that has none there."""

import base64
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def filled(example: str) -> str:
    """The example with its empty values filled in; what `cryptography` takes for a key is 32 bytes."""
    lines = []
    for line in example.splitlines():
        name, equals, value = line.partition("=")
        if equals and not value and not line.startswith("#"):
            is_key = name.endswith("_FERNET_KEY")
            key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
            value = key if is_key else secrets.token_hex(24)
        lines.append(f"{name}{equals}{value}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the file, readable by its owner only. One that is there is left alone."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".env"
    text = filled((ROOT / ".env.example").read_text(encoding="utf-8"))
    try:
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        print(f"{path} is there already: left alone", file=sys.stderr)
        return 1
    path.write_text(text, encoding="utf-8")
    print(f"made {path}: the login is in it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
