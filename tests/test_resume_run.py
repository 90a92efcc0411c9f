"""A run that is killed at any moment and started again by the same command ends as one that nobody disturbed."""

import csv
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import headstart
from samples import make_squares

PHASES = [
    {"cut": "layer3", "epochs": 6, "rate": 0.003, "batch_size": 16},
    {"cut": "input", "epochs": 8, "rate": 0.003, "batch_size": 16, "augment": "flip"},
]
KILLS = (signal.SIGKILL, signal.SIGINT)


def _learned(run: headstart.Run) -> tuple[bytes, bytes, list[list[str]]]:
    """All that must not differ: the trained tensors, every answer, and every epoch but for how long it took."""
    with (run.folder / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    history = [[value for name, value in row.items() if name not in ("seconds", "images_per_s")] for row in rows]
    return (run.folder / "model" / "tail.safetensors").read_bytes(), (run.folder / "predictions.csv").read_bytes(), history


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_a_run_killed_at_random_moments_ends_as_one_that_was_not(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_squares(tmp_path / "photos", 80)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        "".join("[[phases]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in phase.items()) for phase in PHASES)
    )
    setting = {"engine": "torch", "precision": "fp32"}
    whole = headstart.fit(photos, weights=tiny_weights, recipe=recipe, set=setting, out=tmp_path / "whole")
    assert len(_learned(whole)[2]) > 6  # both phases ran; their losses are compared even where the head alone is kept

    command = [str(Path(sys.executable).with_name("headstart")), "train", str(photos), "--weights", str(tiny_weights)]
    command += ["--recipe", str(recipe), *(f"--set={key}={value}" for key, value in setting.items()), "--out", str(tmp_path / "killed")]
    out, rng = tmp_path / "killed", random.Random(time.time_ns())
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "another cache"))
    for kill in KILLS:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        while process.poll() is None and not (out / "run.json").exists():
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1.2) * whole.record["seconds"]["train"] / len(KILLS))
        process.send_signal(kill)
        process.communicate(timeout=300)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 or "already holds a finished run" in done.stderr
    assert not (out / "checkpoint").exists()
    assert _learned(headstart.Run(out)) == _learned(whole)
