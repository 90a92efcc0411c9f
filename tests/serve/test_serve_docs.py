"""The guide's commands and the example client run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from serve_tools import Running, Serve, noise, photo

from headstart.bundle.format import Bundle
from headstart.serve.metrics import Metrics
from headstart.serve.settings import Settings

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "serving.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", GUIDE, flags=re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_guides_curl_commands_work(running: Running, tmp_path: Path, command: str) -> None:
    (tmp_path / "cat.jpg").write_bytes(noise())
    (tmp_path / "dog.jpg").write_bytes(photo(kind="JPEG"))
    script = command.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{running.port}").replace("curl ", "curl --fail -sS ")
    done = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("{", "# HELP"))


def test_the_guide_names_every_address_limit_and_metric(running: Running) -> None:
    described = running.ask("/openapi.json").json
    assert [path for path in described["paths"] if path not in GUIDE] == []
    defaults = Settings()
    for option, value in (("max-mib", defaults.max_bytes >> 20), ("max-megapixels", defaults.max_pixels // 10**6)):
        assert f"| `--{option}` | {value} |" in GUIDE
    for option, value in (("max-photos", defaults.max_photos), ("queue", defaults.queue), ("wait-ms", f"{1000 * defaults.wait_s:g}")):
        assert f"| `--{option}` | {value} |" in GUIDE
    names = {family.name for family in Metrics().registry.collect() if family.name.startswith("headstart_")}
    assert [name for name in sorted(names) if name not in GUIDE] == []


@pytest.mark.parametrize("token", [None, "a-token-for-this-test"])
def test_the_example_client_is_answered(serve: Serve, bundle: Bundle, tmp_path: Path, token: str | None) -> None:
    running = serve({"tiny": bundle}, token=token)
    (tmp_path / "cat.jpg").write_bytes(photo())
    environment = {key: value for key, value in os.environ.items() if key != "HEADSTART_TOKEN"} | (
        {"HEADSTART_TOKEN": token} if token else {}
    )
    command = [sys.executable, str(ROOT / "examples" / "ask_server.py"), f"http://127.0.0.1:{running.port}", str(tmp_path / "cat.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert re.fullmatch(r"tabby 0\.\d{3}\n", done.stdout)
