"""headstart evaluate RUN --folds, as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import headstart
from headstart.cli.evaluate import evaluate
from samples import make_photos


def test_figures_with_their_spread_what_they_judge_and_json(tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = headstart.fit(make_photos(tmp_path / "photos", n=8), weights=tiny_weights, out=tmp_path / "run").folder
    capsys.readouterr()
    evaluate(str(run / "model"), folds=3)  # the bundle inside a run is that run
    lines = capsys.readouterr().out.splitlines()
    accuracy = next(line for line in lines if line.startswith("Cross-validated accuracy"))
    assert accuracy.endswith("24 photos, each held out once)")
    assert len(next(line for line in lines if line.startswith("Fold by fold: ")).split(";")[0].split()) == 3 + 3
    assert "judges the procedure" in lines[-1]
    evaluate(str(run), folds=3, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert f"{found['accuracy']:.3f}" in accuracy
    assert len(found["cross_validation"]["folds"]) == 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("run photos --folds 5", 1, "--folds holds out a run's own photos in turn"),
        ("photos --folds 5", 1, "it needs a run folder"),
        ("run --folds 5", 1, "the run in run is unfinished"),
        ("run --folds 1", 2, "--folds"),
    ],
)
def test_folds_of_anything_but_a_finished_run_are_refused_at_once(words: str, code: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"status": "unfinished"}', encoding="utf-8")
    source = "import sys; sys.modules['torch'] = None; from headstart.cli import main; main.main()"
    done = subprocess.run(
        [sys.executable, "-c", source, "evaluate", *words.split()], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    assert done.returncode == code
    assert said in done.stderr
    assert done.stdout == ""
