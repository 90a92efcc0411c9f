"""A whole run under `accelerate launch`: two processes on the CPU end in the result of one."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from samples import make_squares

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
RECIPE = """
average = false
[[phases]]
cut = "layer3"
epochs = 3
rate = 3e-3
batch_size = 16
[[phases]]
cut = "input"
epochs = 2
rate = 1e-3
batch_size = 16
augment = "flip"
"""


def trained(start: list[str], photos: Path, recipe: Path, weights: Path, out: Path) -> tuple[dict, list[dict[str, str]], np.ndarray]:
    """run.json, history.csv and the probabilities of the test photos of a run started that way, with a store of its own."""
    words = ["-m", "headstart.cli.main", "train", str(photos), "--out", str(out), "--weights", str(weights), "--recipe", str(recipe)]
    words += ["--device", "cpu", "--set", "engine=torch", "--set", "precision=fp32"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HEADSTART_CACHE": str(out.with_name(f"{out.name}-cache"))}
    done = subprocess.run([*start, *words], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (out / "history.csv").open(newline="", encoding="utf-8") as file:
        history = list(csv.DictReader(file))
    probabilities = np.array([[float(row[name]) for name in ("high", "low")] for row in rows])
    return json.loads((out / "run.json").read_text(encoding="utf-8")), history, probabilities


@pytest.mark.slow
def test_two_processes_end_in_the_result_of_one(tiny_weights: Path, tmp_path: Path) -> None:
    photos, recipe = make_squares(tmp_path / "photos", 60), tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    alone, history, probabilities = trained([sys.executable], photos, recipe, tiny_weights, tmp_path / "one")
    both, their_history, theirs = trained(LAUNCH, photos, recipe, tiny_weights, tmp_path / "two")
    assert both["status"] == alone["status"] == "finished"
    assert [row["epoch"] for row in their_history] == [row["epoch"] for row in history]
    for row, their_row in zip(history, their_history, strict=True):
        assert float(their_row["train_loss"]) == pytest.approx(float(row["train_loss"]), rel=1e-3)
        assert float(their_row["val_loss"]) == pytest.approx(float(row["val_loss"]), rel=1e-3)
    assert probabilities.size > 0
    np.testing.assert_allclose(theirs, probabilities, atol=2e-3)
