"""The studio as a process of its own: uploads, jobs, server-sent events, and what is left of it when it is killed."""

import contextlib
import http.client
import json
import os
import signal
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from studio_tools import Running, jobs_of, until

from headstart.studio.project import identifier
from samples import make_photos

Start = Callable[..., Running]


def digest(folder: Path) -> dict[str, bytes]:
    """Every photo of a project, without what the studio keeps."""
    found = (path for path in folder.rglob("*") if path.is_file() and ".headstart" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.slow
def test_a_killed_studio_loses_no_accepted_job_and_the_next_one_does_it(start: Start, tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "photos", n=8)
    before = digest(folder)
    first = start(folder)
    base = first.enter()
    for kind in ("train", "explore"):
        assert first.post(f"{base}/jobs", kind=kind)[0] == 303
    photo = next(iter(before))
    until(lambda: jobs_of(folder)[0]["attempts"] == 1)
    until(lambda: (folder / ".headstart" / "runs" / "0001" / "split.csv").exists())  # in the midst of it
    first.process.kill()
    first.process.wait()
    assert [job["state"] for job in jobs_of(folder)] == ["running", "queued"]

    second = start(folder)
    base = second.enter()
    assert second.ask("GET", f"{base}/train")[0] == 200
    until(lambda: [job["state"] for job in jobs_of(folder)] == ["done", "done"])
    run = json.loads((folder / ".headstart" / "runs" / "0001" / "run.json").read_text())
    assert run["status"] == "finished"
    assert "test" in json.loads((folder / ".headstart" / "runs" / "0001" / "metrics.json").read_text())
    assert (folder / ".headstart" / "explored" / "0002" / "explore.json").is_file()
    assert digest(folder) == before, photo
    assert b"of photos it had never seen" in second.ask("GET", f"{base}/result")[2]


def test_uploads_jobs_and_paths_over_http(start: Start, tmp_path: Path) -> None:
    folder, source = tmp_path / "new", make_photos(tmp_path / "source", n=1, classes=("a",))
    folder.mkdir()
    (tmp_path / "secret.jpg").write_bytes((source / "a" / "photo 0.jpg").read_bytes())
    studio = start(folder)
    base = studio.enter()
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    status, _, body = studio.ask("POST", f"{base}/classes", b"name=roses", **form, Accept="application/json")
    assert status == 201
    to = f"{base}/classes/{json.loads(body)['id']}/photos"
    assert studio.ask("PUT", f"{to}?name=..%2F..%2Fx.jpg", (source / "a" / "photo 0.jpg").read_bytes())[0] == 201
    assert studio.ask("PUT", f"{to}?name=bad.jpg", b"no photo at all")[::2] == (422, b'{"reason":"not an image (text)"}')
    assert studio.ask("PUT", f"{base}/classes/nonsense/photos?name=a.jpg", b"x")[0] == 404
    assert set(digest(folder)) == {"roses/x.jpg"}

    long = http.client.HTTPConnection("127.0.0.1", studio.port)
    long.putrequest("PUT", f"{to}?name=big.jpg")
    for name, value in (("Cookie", studio.cookie), ("Origin", f"http://127.0.0.1:{studio.port}"), ("Content-Length", str(2**31))):
        long.putheader(name, value)
    long.endheaders()
    assert long.getresponse().status == 413
    long.close()

    page = studio.ask("GET", f"{base}/")[2].decode()
    (thumbnail,) = {part.split('"')[0] for part in page.split('src="') if "small.jpg" in part}
    status, headers, content = studio.ask("GET", thumbnail)
    assert (status, headers["content-type"], content[:3]) == (200, "image/jpeg", b"\xff\xd8\xff")
    assert studio.ask("GET", thumbnail, If_None_Match=headers["etag"])[0] == 304
    for path in ("../../secret.jpg", "..%2F..%2Fsecret.jpg", "secret", "%2Fetc%2Fpasswd"):
        assert studio.ask("GET", f"{base}/photos/{path}/small.jpg")[0] == 404
        assert studio.ask("GET", f"/static/{path}")[0] == 404
    assert studio.ask("GET", "/p/000000000000/")[0] == 404
    for fields in ({"kind": "rm"}, {"kind": "train", "how": "../../x"}):
        assert studio.post(f"{base}/jobs", **fields)[0] == 422
    assert studio.ask("GET", f"{base}/jobs/1/report")[0] == 404
    assert studio.post(f"{base}/labels", photo="x", to="y")[0] == 404
    assert jobs_of(folder) == []


def events(studio: Running, path: str, n: int) -> list[tuple[str, str]]:
    """The first `n` events of a stream."""
    connection = http.client.HTTPConnection("127.0.0.1", studio.port, timeout=60)
    connection.request("GET", path, headers={"Cookie": studio.cookie})
    answer = connection.getresponse()
    assert answer.getheader("content-type", "").startswith("text/event-stream")
    found: list[tuple[str, str]] = []
    name, data = "", []
    while len(found) < n:
        line = answer.readline().decode().rstrip("\n")
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and name:
            found.append((name, "\n".join(data)))
            name, data = "", []
    connection.close()
    return found


@pytest.mark.slow
def test_a_job_is_followed_by_events_cancelled_and_continued(start: Start, tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "photos", n=8)
    studio = start(folder)
    base = studio.enter()
    studio.post(f"{base}/jobs", kind="train")
    until(lambda: jobs_of(folder)[0]["state"] == "running")
    studio.post(f"{base}/jobs/1/cancel")  # at once: so few photos are done in seconds
    until(lambda: jobs_of(folder)[0]["state"] == "cancelled")
    assert b"was stopped" in studio.ask("GET", f"{base}/train")[2]
    studio.post(f"{base}/jobs/1/continue")
    first = events(studio, f"{base}/events", 3)
    assert [name for name, _ in first] == ["work", "step", "stage"]
    assert "Training" in first[0][1]
    until(lambda: jobs_of(folder)[0]["state"] == "done")
    studio.post(f"{base}/jobs/1/cancel")
    assert jobs_of(folder)[0]["state"] == "done", "what is done stays done"


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_job_and_nothing_else(start: Start, tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "photos", n=8)
    studio = start(folder)
    base = studio.enter()
    studio.post(f"{base}/jobs", kind="train")
    until(lambda: jobs_of(folder)[0]["attempts"] == 1)
    children = Path(f"/proc/{studio.process.pid}/task/{studio.process.pid}/children")
    if not children.exists():
        pytest.skip("no /proc to find the worker by")
    for child in children.read_text().split():
        os.kill(int(child), signal.SIGKILL)
    until(lambda: jobs_of(folder)[0]["state"] == "failed")
    assert "was killed" in jobs_of(folder)[0]["error"]
    assert b"did not work" in studio.ask("GET", f"{base}/train")[2]
    studio.post(f"{base}/jobs/1/continue")
    until(lambda: jobs_of(folder)[0]["state"] == "done")
    status, headers, content = studio.ask("GET", f"{base}/jobs/1/model.zip")
    assert (status, headers["content-type"]) == (200, "application/zip")
    (tmp_path / "model.zip").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert archive.testzip() is None
        assert {"model/model.onnx", "model/bundle.json", "labels.txt", "README.txt", "MODEL_CARD.md"} <= set(archive.namelist())
        assert {"model/CERTIFICATE.md", "model/example.py"} <= set(archive.namelist())


@pytest.mark.slow
def test_a_studio_killed_under_load_loses_nothing_that_it_accepted(start: Start, tmp_path: Path) -> None:
    """Photos, words on labels and jobs from several threads at once; SIGKILL in the midst of it. What was answered is there."""
    folder = make_photos(tmp_path / "photos", n=8)
    photos = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.*"))]
    uploads = [path.read_bytes() for path in sorted(make_photos(tmp_path / "source", n=80, seed=1).rglob("*.*"))]
    added: list[bytes] = []
    said: list[str] = []
    accepted: list[int] = []

    def add(studio: Running, base: str) -> None:
        content = uploads.pop()
        if studio.ask("PUT", f"{base}/classes/{identifier('red')}/photos?name=new.jpg", content)[0] == 201:
            added.append(content)

    def say(studio: Running, base: str) -> None:
        path = photos[len(said) % len(photos)]
        if studio.post(f"{base}/labels", photo=identifier(path), to=identifier("red"))[0] == 200:
            said.append(path)

    def ask_for_work(studio: Running, base: str) -> None:
        if studio.post(f"{base}/jobs", kind="explore")[0] == 303:
            accepted.append(len(accepted) + 1)
        time.sleep(0.2)

    def until_killed(studio: Running, base: str, what: Callable[[Running, str], None]) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):  # the answer that never came
            while uploads:
                what(studio, base)

    studio = start(folder)
    base = studio.enter()
    with ThreadPoolExecutor(4) as threads:
        ended = [threads.submit(until_killed, studio, base, what) for what in (add, add, say, ask_for_work)]
        until(lambda: min(len(added), len(said), len(accepted)) >= 8)
        studio.process.kill()
        studio.process.wait()
    assert [each.exception() for each in ended] == [None] * 4
    assert uploads, "it was killed in the midst of it"
    check_nothing_is_lost(folder, added, said, n_accepted=len(accepted))

    studio = start(folder)
    base = studio.enter()
    assert b"passed over" not in studio.errors.read_bytes()
    assert studio.ask("GET", f"{base}/labels")[0] == 200
    first = until(lambda: next((job for job in jobs_of(folder) if job["state"] in ("done", "failed")), None))
    assert (first["state"], first["error"]) == ("done", "")
    assert (folder / ".headstart" / "explored" / f"{first['id']:04d}" / "explore.json").is_file()


def check_nothing_is_lost(folder: Path, added: list[bytes], said: list[str], *, n_accepted: int) -> None:
    """What was answered is on the disk, and every file there is whole, hidden ones that were never renamed aside."""
    there = {path.read_bytes() for path in (folder / "red").iterdir() if not path.name.startswith(".")}
    assert set(added) <= there
    for path in (folder / "red").iterdir():
        if not path.name.startswith("."):
            Image.open(path).load()
    own = folder / ".headstart"
    words = [each["path"] for each in json.loads((own / "labels.json").read_text())["said"]]
    assert words[: len(said)] == said
    assert len(words) <= len(said) + 1, "one more: written, and not answered any more"
    found = jobs_of(folder)
    assert n_accepted <= len(found) <= n_accepted + 1
    for job in found:
        corrections = own / "jobs" / f"{job['id']:04d}.corrections.csv"
        assert corrections.read_text().startswith("path,label\n")
