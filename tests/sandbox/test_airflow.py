"""What `make airflow` says before it starts anything."""

from __future__ import annotations

import socket
import sys

import pytest

from sandbox.airflow import main


def test_a_taken_port_is_said_and_nobody_else_s_airflow_taken_for_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["sandbox.airflow", "--port", str(port)])
        assert main() == 1
    said = capsys.readouterr()
    assert said.err == f"port {port} is taken: make airflow PORT={port + 1}\n"
    assert said.out == ""
