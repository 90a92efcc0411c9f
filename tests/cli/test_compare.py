"""headstart compare, as a user meets it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from comparing_samples import make_run

HEADSTART = str(Path(sys.executable).with_name("headstart"))
LABELS = {f"{i:02}": ("cat", "dog")[i % 2] for i in range(30)}


def compare(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(
        [HEADSTART, "compare", *words], capture_output=True, text=True, cwd=cwd, timeout=120, check=False, env=environment
    )


def test_a_table_a_verdict_and_json(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a", LABELS, {photo: int(photo) < 10 for photo in LABELS})
    rest = {photo: label for photo, label in LABELS.items() if photo != "00"}
    make_run(tmp_path / "runs" / "b", rest, dict.fromkeys(LABELS, True))
    done = compare("runs/a", "runs/b", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "29 test photos" in lines
    assert [line.split()[:3] for line in lines if "embedded" in line] == [["runs/a", "embedded", "0.310"], ["runs/b", "embedded", "1.000"]]
    assert any(line.split()[:2] == ["cat", "+0.714"] for line in lines)  # of the 14 left, 4 were recognised
    assert lines[-1].startswith("runs/b is better than runs/a: 20 more of 29 photos right, +69.0 points (95 % interval +")
    assert done.stderr.startswith("note: the test photos differ (runs/a 30, runs/b 29)")
    found = json.loads(compare("runs/a", "runs/b", "--json", cwd=tmp_path).stdout)
    assert found["against_first"][0]["verdict"] == "better"


def test_a_mistake_is_one_line_and_exit_1_and_torch_is_never_imported(tmp_path: Path) -> None:
    make_run(tmp_path / "a", LABELS, dict.fromkeys(LABELS, True))
    refused = compare("a", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: expected two or more different runs to compare, found a\nhint: ")
    make_run(tmp_path / "b", LABELS, dict.fromkeys(LABELS, True))
    code = "import sys; sys.modules['torch'] = None; from headstart.cli import main; main.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", "a", "b"], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "both are right on the same of 30 photos" in done.stdout
