"""Schemathesis against the server's own OpenAPI description: whatever it thinks of, the server does what it says."""

import subprocess
import sys
from pathlib import Path

import pytest
from serve_tools import Serve

from headstart.bundle.format import Bundle

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("token", [None, "a-token-for-this-test"])
def test_schemathesis_finds_nothing(serve: Serve, bundle: Bundle, tmp_path: Path, token: str | None) -> None:
    running = serve({"tiny": bundle, "other": bundle}, token=token)
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "--config-file", str(HERE / "schemathesis.toml"), "run", f"http://127.0.0.1:{running.port}/openapi.json"]
    command += ["--checks", "all", "--max-examples", "40", "--seed", "1", "--no-color", "--continue-on-failure"]
    command += [] if token is None else ["--header", f"Authorization: Bearer {token}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "7 selected / 7 total" in done.stdout
    assert running.ask("/healthz").status == 200
    assert running.server.batcher.n_waiting == running.server.held.n_bytes == 0
