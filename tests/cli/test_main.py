"""The command line as a user meets it: real processes, exit codes, one-line errors."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.cli import main as cli
from samples import make_photos

HEADSTART = str(Path(sys.executable).with_name("headstart"))


def headstart(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HEADSTART, *words], capture_output=True, text=True, cwd=cwd, timeout=120, check=False, env={**os.environ, "NO_COLOR": "1"}
    )


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("train nowhere --out run", "nowhere"),
        ("train photos --out run --backbone resnet5", "resnet50"),
        ("train photos --out run --set hed.kind=dense", "did you mean 'head'"),
        ("train photos --out run --recipe none.toml", "no recipe is called 'none.toml'"),
        ("train photos --out run --recipe clasic", "did you mean 'classic'"),
        ("train photos --out run --budget ten", "expected a time with its unit"),
        ("train photos --out run --log tensorbord", "did you mean 'tensorboard'"),
        ("probe nowhere --backbone embedded", "nowhere"),
        ("probe photos", "no backbone to try"),
        ("probe photos --weights none.safetensors --split none.csv", "none.csv, given as --split"),
        ("train photos --out run --device tpu", "expected auto or cpu or cuda or mps for 'device', found 'tpu'"),
        ("train photos --out run --weights none.safetensors", "none.safetensors"),
        ("train photos --out run --corrections none.csv", "none.csv, given as --corrections"),
        ("predict run/none photos", "no model at run/none: it does not exist"),
        ("predict photos photos", "holds neither run.json nor bundle.json"),
        ("evaluate run/none", "is no run with test photos of its own"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_1(words: str, match: str, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", n=4)
    done = headstart(*words.split(), cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert match in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "words", ["train", "train photos", "train photos --out run --sed 1", "predict", "nonsense", "predict run cat.jpg --top 0"]
)
def test_wrong_usage_is_exit_2(words: str, tmp_path: Path) -> None:
    done = headstart(*words.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert "Usage:" in done.stderr
    assert done.stdout == ""


COMMANDS = ("demo", "train", "probe", "evaluate", "compare", "explore", "explain", "predict", "backbones", "store")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_explains_itself(command: str) -> None:
    done = headstart(*command.split(), "--help")
    assert done.returncode == 0
    usage = next(line.split() for line in done.stdout.splitlines() if "Usage:" in line)
    assert usage[: 2 + len(command.split())] == ["Usage:", "headstart", *command.split()]
    assert ("Examples:" in done.stdout) == (command not in ("", "demo", "store"))


@pytest.mark.parametrize(
    "words", ["train nowhere --out run", "train photos --out run --recipe clasic", "train photos --out run --log mlfow", "probe nowhere a"]
)
def test_a_mistake_is_told_before_pytorch_is_imported(words: str, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", n=4)
    code = "import sys; sys.modules['torch'] = None; from headstart.cli import main; main.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "hint: " in done.stderr
    assert "needs torch" not in done.stderr


def test_probe_prints_a_table_and_json(tiny_weights: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", n=8)
    words = ("probe", str(photos), "--backbone", "resnet50_keras_v1", "embedded", "--weights", str(tiny_weights))
    shown = headstart(*words)
    assert shown.returncode == 0, shown.stderr
    assert next(line.split()[0] for line in shown.stdout.splitlines() if "worth it" in line) in ("embedded", "test_resnet")
    assert "not tried: resnet50_keras_v1: no weights of resnet50_keras_v1 at hand" in shown.stdout
    assert f"headstart train {photos} --out runs/a --" in shown.stdout
    found = json.loads(headstart(*words, "--json").stdout)
    assert {one["backbone"] for one in found["probed"]} == {"embedded", "test_resnet"}
    assert {one["rows_computed"] for one in found["probed"]} == {0}


def test_the_version_is_printed() -> None:
    assert headstart("--version").stdout.startswith("headstart 0.")


def test_train_predict_evaluate_and_store_work_together(tiny_weights: Path, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    (photos / "red" / "broken.jpg").write_bytes(b"")
    trained = headstart("train", "photos", "--out", "runs/a", "--weights", str(tiny_weights), cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "Test accuracy" in trained.stdout
    assert "1 left out" in trained.stdout
    assert (tmp_path / "runs" / "a" / "omitted.csv").read_text(encoding="utf-8").count("broken.jpg") == 1

    one = headstart("predict", "runs/a", "photos/red/photo 0.jpg", "--top", "3", cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    assert [line.split(":")[0] for line in one.stdout.strip().splitlines()] == ["1", "2", "3"]
    table = headstart("predict", "runs/a", "photos/red", "--format", "csv", cwd=tmp_path)
    assert len(table.stdout.strip().splitlines()) == 1 + 21

    again = headstart("evaluate", "runs/a", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert [line for line in again.stdout.splitlines() if line.startswith("Accuracy")] == [
        line.removeprefix("Test ").capitalize() for line in trained.stdout.splitlines() if line.startswith("Test accuracy")
    ]
    on_data = headstart("evaluate", "runs/a", "photos", "--json", cwd=tmp_path)
    assert '"accuracy_ci95"' in on_data.stdout
    assert "trained this model" in on_data.stderr
    assert "trained this model" in headstart("evaluate", "runs/a/model", "photos", cwd=tmp_path).stderr
    shutil.copytree(tmp_path / "runs" / "a" / "model", tmp_path / "copy")
    assert "cannot be checked" in headstart("evaluate", "copy", "photos", cwd=tmp_path).stderr

    shown = headstart("store", cwd=tmp_path)
    assert "test_resnet" in shown.stdout
    assert "60" in shown.stdout
    assert "freed" in headstart("store", "clear", cwd=tmp_path).stdout
    assert "test_resnet" not in headstart("store", cwd=tmp_path).stdout


# What `pip install headstart` alone leaves out: an import of these fails as if they were not there.
BARE = """
import sys
from headstart.cli import main as cli
for name in cli.EXTRAS:
    assert name not in sys.modules, name
    sys.modules[name] = None
cli.main()
"""


def bare(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BARE, *words], capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


@pytest.mark.parametrize("words", ["train photos --out run", "store", "backbones", "predict embedded photos", "serve x"])
def test_a_command_whose_extra_is_not_installed_says_which(words: str, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", n=4)
    done = bare(*words.split(), cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    error, hint = done.stderr.splitlines()
    assert re.fullmatch(r"error: this command needs \w+, which is not installed", error)
    assert hint == f"hint: pip install 'headstart[{'serve' if words.startswith('serve') else 'train'}]'"
    assert done.stdout == ""


def _end(monkeypatch: pytest.MonkeyPatch, raised: BaseException, *words: str) -> object:
    """Let a command raise, and return the exit status."""

    def app(standalone_mode: bool) -> None:
        raise raised

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["headstart", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (ModuleNotFoundError(name="openvino._pyopenvino"), "this command needs openvino, which is not installed"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/a\nb"), "Permission denied: /data/a\\nb"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("disk says no"), "disk says no"),
        (MemoryError(), "out of memory"),
        (MemoryError("Unable to allocate 8 GiB"), "out of memory: Unable to allocate 8 GiB"),
    ],
)
def test_what_the_machine_refuses_is_one_line(
    raised: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _end(monkeypatch, raised, "train", "photos") == 1
    assert capsys.readouterr().err.splitlines()[0] == f"error: {said}"


def test_a_module_that_no_extra_brings_is_a_bug_and_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", lambda standalone_mode: __import__("headstart.nonsense"))
    with pytest.raises(ModuleNotFoundError, match=r"headstart\.nonsense"):
        cli.main()


@pytest.mark.parametrize(
    ("words", "continues"), [("--verbose train photos", True), ("demo", True), ("predict run train", False), ("", False)]
)
def test_only_what_continues_is_said_to_continue(
    words: str, continues: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _end(monkeypatch, KeyboardInterrupt(), *words.split()) == 130
    said = capsys.readouterr().err.strip()
    assert said == ("interrupted; what was computed is kept, the same command continues" if continues else "interrupted")


@pytest.mark.slow
def test_the_demo_replaces_its_own_run(tmp_path: Path) -> None:
    first, again = (headstart("demo", "--out", "demo", cwd=tmp_path) for _ in range(2))
    assert first.returncode == again.returncode == 0, again.stderr
    assert "0 rows computed, 1797 reused" in again.stdout


def test_the_demo_replaces_no_run_but_its_own(tmp_path: Path) -> None:
    first = headstart("demo", "--out", "demo", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    record = tmp_path / "demo" / "run.json"  # the same run, had the user trained it
    record.write_text(
        record.read_text(encoding="utf-8").replace('"headstart demo"', '"headstart train digits --out demo"'), encoding="utf-8"
    )
    refused = headstart("demo", "--out", "demo", cwd=tmp_path)
    assert refused.returncode == 1
    assert "already holds a finished run" in refused.stderr
    assert (tmp_path / "demo" / "report.html").exists()
