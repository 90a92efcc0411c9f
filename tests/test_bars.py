"""What the benchmarks of duplicates, suspects, sets of labels and calibration must reach on real photos (make test-slow)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCH = Path(__file__).parents[1] / "bench"


@pytest.mark.parametrize(
    "command",
    [
        ["suspects.py", "--seeds", "0", "1"],
        ["duplicates.py"],
        ["duplicates.py", "--cifar", "10000"],
        ["novelty.py", "--sets", "--photos", "cifar10", "--networks", "embedded"],
    ],
    ids=lambda command: " ".join(command),
)
def test_a_bench_reaches_its_bars(shared: Path, tmp_path: Path, command: list[str]) -> None:
    script, *options = command
    out = ["--out", str(tmp_path / "out")] if script == "novelty.py" else []
    found = os.environ | {"HEADSTART_SHARED": str(shared), "HEADSTART_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, str(BENCH / script), *options, *out], env=found, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reached" in done.stdout
    assert "MISSED" not in done.stdout
