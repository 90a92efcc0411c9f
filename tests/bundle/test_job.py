"""Jobs that write many answers: whatever interrupts them, the same call goes on and leaves what one that nothing stopped leaves."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from headstart import progress
from headstart.bundle import job
from headstart.bundle.format import Bundle
from headstart.bundle.job import FORMATS, predict_to
from headstart.bundle.listing import Paths
from headstart.bundle.predict import Prediction, stream
from headstart.bundle.writers import write
from headstart.errors import BundleError, ConfigError, DataError
from headstart.files import only_here

Photo = Callable[..., Path]
N = 300


@pytest.fixture
def photos(photo: Photo, tmp_path: Path) -> Paths:
    """300 paths, of three photos, one that is damaged and one that is not there, in turn."""
    good = [photo(f"{i}.png", colour) for i, colour in enumerate([(255, 0, 0), (0, 200, 0), (0, 0, 150)])]
    (tmp_path / "bad.jpg").write_text("text")
    files = [*good, tmp_path / "bad.jpg", tmp_path / "absent.png"]
    return Paths(str(files[i * i % 5]) for i in range(N))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_PART_PHOTOS", 40)


class StopError(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def answer(bundle: Bundle, photos: Paths, out: Path, **options: object) -> None:
    predict_to(bundle, photos, out, provider="onnxruntime", top=2, **options)  # type: ignore[arg-type]


def stopping_after(n: int, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Callable[[], None]:
    """Let the next job's stream end with `error` after `n` answers. Returns: what undoes it, and checks that it came to that."""
    stopped = False

    def stopped_stream(*arguments: object, **options: object) -> Iterator[Prediction]:
        nonlocal stopped
        for i, one in enumerate(stream(*arguments, **options)):  # type: ignore[arg-type]
            if i == n:
                stopped = True
                raise error
            yield one

    monkeypatch.setattr(job, "stream", stopped_stream)

    def undo() -> None:
        monkeypatch.setattr(job, "stream", stream)
        assert stopped

    return undo


def answered(path: Path) -> list[str]:
    """Names of the photos in a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [os.path.basename(row["path"]) for row in csv.DictReader(file)]


def content(out: Path) -> dict[str, bytes]:
    return {"": out.read_bytes()} if out.is_file() else {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


@pytest.mark.parametrize("format", FORMATS)
def test_a_job_writes_what_a_program_reads_from_stdout(bundle: Bundle, photos: Paths, tmp_path: Path, format: str) -> None:
    answer(bundle, photos, tmp_path / f"a.{format}")
    write(stream(bundle, photos, provider="onnxruntime", top=2), format=format, out=tmp_path / "direct", top=2)
    assert (tmp_path / f"a.{format}").read_bytes() == (tmp_path / "direct").read_bytes()
    assert not (tmp_path / f"a.{format}.parts").exists()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shard", [None, 70])
def test_an_interrupted_job_goes_on_and_leaves_the_same_bytes(
    bundle: Bundle, photos: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, shard: int | None
) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    answer(bundle, photos, whole, format=format, shard=shard)
    for n in (1, 40, 130, 200, 100):  # of what each try begins with
        undo = stopping_after(n, monkeypatch, StopError())
        with pytest.raises(StopError):
            answer(bundle, photos, resumed, format=format, shard=shard)
        undo()
        assert shard is not None or not resumed.exists()
    kept = [tuple(map(int, path.stem.split("-"))) for path in (tmp_path / "resumed.parts").glob("*-*")]
    assert shard is not None or max(last for _, last in kept) >= 160
    answer(bundle, photos, resumed, format=format, shard=shard)
    assert content(resumed) == content(whole)
    assert not (tmp_path / "resumed.parts").exists()


def test_no_photo_that_is_done_is_read_again_but_for_one_batch(
    bundle: Bundle, photos: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo = stopping_after(290, monkeypatch, StopError())
    with pytest.raises(StopError):
        answer(bundle, photos, tmp_path / "a.csv")
    undo()
    n_read = 0

    def counting(bundle: Bundle, photos: Iterator[str], **options: object) -> Iterator[Prediction]:
        def counted() -> Iterator[str]:
            nonlocal n_read
            for path in photos:
                n_read += 1
                yield path

        return stream(bundle, counted(), **options)  # type: ignore[arg-type]

    monkeypatch.setattr(job, "stream", counting)
    answer(bundle, photos, tmp_path / "a.csv")
    assert N - 280 <= n_read <= N - 280 + 128


@pytest.mark.parametrize("shard", [None, 70])
def test_a_stop_between_any_two_changes_on_disk_loses_and_doubles_nothing(
    bundle: Bundle, photos: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: int | None
) -> None:
    whole = tmp_path / "whole"
    answer(bundle, photos, whole, format="csv", shard=shard)
    n_changes = 0

    def counted(change: Callable[..., object]) -> Callable[..., object]:
        def counting(*arguments: object, **options: object) -> object:
            nonlocal n_changes
            n_changes += 1
            if n_changes == stop_at:
                raise StopError
            return change(*arguments, **options)

        return counting

    for module, name in ((os, "replace"), (Path, "replace"), (Path, "unlink")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    stop_at, n_stops = 1, 0
    while True:
        out = tmp_path / f"out{stop_at}"
        n_changes = 0
        try:
            answer(bundle, photos, out, format="csv", shard=shard)
            break
        except StopError:
            n_stops += 1
        finally:
            n_changes = -(10**6)
        parts = out.with_name(f"{out.name}.parts") if shard is None else out / "_parts"
        unfinished = (parts / "job.json").exists() or not out.exists() or not content(out)
        if unfinished and not (out / "_job.json").exists():
            answer(bundle, photos, out, format="csv", shard=shard)
        assert content(out) == content(whole)
        stop_at += 1
    assert n_stops > 20


def test_a_job_killed_with_no_warning_goes_on(bundle: Bundle, photo: Photo, tmp_path: Path) -> None:
    photo("a.png")
    code = f"""
import sys, time
from headstart.bundle import job
from headstart.bundle.format import load_bundle
job._PART_PHOTOS = 40
if sys.argv[1] == "stall":
    def stalling(*arguments, **options):
        for i, one in enumerate(stream(*arguments, **options)):
            if i == 100:
                time.sleep(60)
            yield one
    stream, job.stream = job.stream, stalling
model = load_bundle({str(bundle.folder)!r})
model.predict_to({str(tmp_path / "out.csv")!r}, [{str(tmp_path / "photos" / "a.png")!r}] * 150, provider="onnxruntime")
"""
    child = subprocess.Popen([sys.executable, "-c", code, "stall"], stderr=subprocess.DEVNULL)
    parts = tmp_path / "out.csv.parts"
    until = time.monotonic() + 50
    while len(list(parts.glob("*-*.csv"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "out.csv").exists()
    assert len(list(parts.glob("*-*.csv"))) == 2
    subprocess.run([sys.executable, "-c", code, "go"], check=True, stderr=subprocess.DEVNULL)
    assert answered(tmp_path / "out.csv") == ["a.png"] * 150
    assert not parts.exists()


def test_ctrl_c_says_what_is_kept(
    bundle: Bundle, photos: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping_after(100, monkeypatch, KeyboardInterrupt())
    token = progress._quiet.set(False)
    try:
        with pytest.raises(KeyboardInterrupt):
            answer(bundle, photos, tmp_path / "a.csv")
    finally:
        progress._quiet.reset(token)
    assert f"80 of 300 answers are kept in {tmp_path / 'a.csv.parts'}; the same command continues" in capsys.readouterr().err


def test_a_part_ends_when_its_time_is_over(bundle: Bundle, photos: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_PART_S", 0.0)
    stopping_after(3, monkeypatch, StopError())
    with pytest.raises(StopError):
        answer(bundle, photos, tmp_path / "a.csv")
    assert len(list((tmp_path / "a.csv.parts").glob("*-*.csv"))) == 3


def test_shards_are_whole_files_of_their_size_and_are_there_once_complete(
    bundle: Bundle, photos: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo = stopping_after(230, monkeypatch, StopError())
    with pytest.raises(StopError):
        answer(bundle, photos, tmp_path / "out", format="parquet", shard=100)
    undo()
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["00000.parquet", "00001.parquet", "_parts"]
    answer(bundle, photos, tmp_path / "out", format="parquet", shard=100)
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [*(f"0000{i}.parquet" for i in range(3)), "_job.json"]
    table = pyarrow.parquet.read_table(tmp_path / "out")  # pyarrow takes the folder as one table
    assert table["path"].to_pylist() == list(photos)
    record = json.loads((tmp_path / "out" / "_job.json").read_text(encoding="utf-8"))
    assert (record["model"], record["photos"]) == (bundle.digest, {"n": N, "sha256": photos.sha256})
    assert record["options"]["shard"] == 100


def test_shards_go_to_another_disk_and_to_the_folder_one_is_in(
    bundle: Bundle, photos: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    answer(bundle, photos, Path("."), format="csv", shard=200)
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["00000.csv", "00001.csv", "_job.json"]
    with pytest.raises(ConfigError, match="expected a file for the answers, found a folder"):
        answer(bundle, photos, Path("."), format="csv")
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=memory) as far:
        (tmp_path / "link").symlink_to(far)
        answer(bundle, photos, tmp_path / "link", format="csv", shard=200)
        assert sorted(path.name for path in Path(far).iterdir()) == ["00000.csv", "00001.csv", "_job.json"]


def test_another_job_in_the_same_place_is_refused_and_says_why(
    bundle: Bundle, photos: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo = stopping_after(100, monkeypatch, StopError())
    with pytest.raises(StopError):
        answer(bundle, photos, tmp_path / "a.csv")
    undo()
    other_model = dataclasses.replace(bundle, record=dataclasses.replace(bundle.record, temperature=3.0))
    with pytest.raises(ConfigError, match=r"a\.csv\.parts holds 80 answers of an unfinished job with another model") as caught:
        answer(other_model, photos, tmp_path / "a.csv")
    assert caught.value.hint == "repeat its command to continue it, or remove that folder to start anew"
    with pytest.raises(ConfigError, match=r"on other photos \(300 then, 2 now\)"):
        answer(bundle, Paths(["a.png", "b.png"]), tmp_path / "a.csv")
    with pytest.raises(ConfigError, match=r"with top 2 \(now 3\)"):
        predict_to(bundle, photos, tmp_path / "a.csv", provider="onnxruntime", top=3)
    with pytest.raises(ConfigError, match=r"with format csv \(now json\)"):
        answer(bundle, photos, tmp_path / "a.csv", format="json")
    (tmp_path / "a.csv.parts" / "job.json").write_text("{")
    with pytest.raises(ConfigError, match="holds no job that can be read"):
        answer(bundle, photos, tmp_path / "a.csv")
    shutil.rmtree(tmp_path / "a.csv.parts")
    answer(bundle, photos, tmp_path / "a.csv")


def test_two_processes_do_not_work_on_one_job(bundle: Bundle, photos: Paths, tmp_path: Path) -> None:
    with only_here(tmp_path / "a.csv.parts" / "lock") as alone:
        assert alone
        with pytest.raises(ConfigError, match="another process is working on the job in"):
            answer(bundle, photos, tmp_path / "a.csv")
    answer(bundle, photos, tmp_path / "a.csv")


def test_places_that_hold_something_else_are_refused(bundle: Bundle, photos: Paths, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    refused = [
        ("file", 10, "csv", "expected a folder for the shards, found a file"),
        ("full", 10, "csv", "is not empty and holds no unfinished job"),
        ("full", None, "csv", "expected a file for the answers, found a folder"),
        ("new", 0, "csv", "at least 1 photo a shard, found 0"),
        ("new", None, "xml", "expected a format of csv, json, parquet, found 'xml'"),
        ("new", None, None, r"whose name ends in \.csv, \.json, \.parquet, found"),
    ]
    for name, shard, format, match in refused:
        with pytest.raises(ConfigError, match=match):
            answer(bundle, photos, tmp_path / name, format=format, shard=shard)
    answer(bundle, photos, tmp_path / "done", format="csv", shard=100)
    with pytest.raises(ConfigError, match="already holds the answers of a finished job"):
        answer(bundle, photos, tmp_path / "done", format="csv", shard=100)
    with pytest.raises(DataError, match="no photos to predict"):
        answer(bundle, Paths([]), tmp_path / "a.csv")


def test_a_folder_of_the_users_that_is_called_as_the_parts_are_is_left_alone(bundle: Bundle, photos: Paths, tmp_path: Path) -> None:
    mine = tmp_path / "car" / "_parts" / "my photo.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    (mine.parent / "lock").write_text("mine too")
    with pytest.raises(ConfigError, match=r"expected no folder .*car/_parts, or one with an unfinished job, found one with my photo\.jpg"):
        answer(bundle, photos, tmp_path / "car", format="csv", shard=100)
    assert (mine.read_text(), (mine.parent / "lock").read_text()) == ("mine", "mine too")
    assert [path.name for path in (tmp_path / "car").iterdir()] == ["_parts"]


def test_a_job_that_goes_on_removes_only_what_it_made(
    bundle: Bundle, photos: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo = stopping_after(100, monkeypatch, StopError())
    with pytest.raises(StopError):
        answer(bundle, photos, tmp_path / "a.csv")
    undo()
    parts = tmp_path / "a.csv.parts"
    (parts / "notes").mkdir()
    (parts / "mine.txt").write_text("mine")
    (parts / ".unnamed.abc.part").touch()
    answer(bundle, photos, tmp_path / "a.csv")
    assert len(answered(tmp_path / "a.csv")) == N
    assert sorted(path.name for path in parts.iterdir()) == ["mine.txt", "notes"]


def test_a_network_that_does_not_run_leaves_nothing_behind(bundle: Bundle, photos: Paths, tmp_path: Path) -> None:
    (bundle.folder / "model.onnx").write_bytes(b"\x08\x07")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BundleError):
        answer(bundle, photos, tmp_path / "a.csv")
    assert sorted(tmp_path.iterdir()) == before


def test_a_job_from_python_takes_names_as_the_command_line_does(bundle: Bundle, photo: Photo, tmp_path: Path) -> None:
    photo("10.png")
    path = photo("2.png")
    assert bundle.predict_to(tmp_path / "a.csv", path.parent) == tmp_path / "a.csv"
    assert answered(tmp_path / "a.csv") == ["2.png", "10.png"]
    bundle.predict_to(tmp_path / "a.csv", [path, str(path), path], top=1)  # a finished file is replaced
    assert answered(tmp_path / "a.csv") == ["2.png", "2.png", "2.png"]
