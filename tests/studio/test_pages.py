"""Pages in this process, without a worker: what they say when something on the disk is not as it was."""

import asyncio
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from headstart import config as configs
from headstart import pipeline
from headstart.errors import HeadstartError
from headstart.studio import labels as words_on_photos
from headstart.studio import taking
from headstart.studio.app import create_app
from headstart.studio.context import Studio
from headstart.studio.project import Project, identifier
from headstart.studio.runner import Runner
from headstart.studio.shelf import Shelf
from samples import make_photos


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(Shelf(None, make_photos(tmp_path / "photos", n=4, classes=("a", "b"))))


@pytest.fixture
def project(studio: Studio) -> Project:
    (found,) = studio.shelf.projects.values()
    return found


@pytest.fixture
def client(studio: Studio) -> TestClient:
    """Not entered, so that nothing runs jobs."""
    return TestClient(create_app(studio), base_url="http://studio", follow_redirects=False)


@pytest.fixture
def base(project: Project) -> str:
    return f"/p/{identifier(str(project.folder))[:12]}"


def finished(project: Project, kind: str = "train", **files: str) -> Path:
    """The folder of a job that was done; `files`: names, with _ for the dot, and texts."""
    job = project.jobs.accept(project.jobs.number(), kind, {"recipe": "quick"})  # type: ignore[arg-type]
    project.out(job).mkdir(parents=True)
    for name, text in {"run_json": "{}", **files}.items():
        (project.out(job) / name.replace("_", ".")).write_text(text)
    project.jobs.change(job, state="done", ended="2026-01-01T00:00:00")
    return project.out(job)


def test_a_finished_job_without_its_folder_is_as_if_it_had_never_been(client: TestClient, project: Project, base: str) -> None:
    runs = [finished(project), finished(project, "solve"), finished(project, "explore")]
    project.labels.say("a/photo 0.jpg", "a", "b")
    for run in runs:
        shutil.rmtree(run)
    said = {page: client.get(f"{base}/{page}") for page in ("check", "train", "result", "result?run=1", "labels", "use")}
    assert {page: answer.status_code for page, answer in said.items()} == dict.fromkeys(said, 200)
    assert "No result yet" in said["result"].text
    assert "No result yet" in said["result?run=1"].text
    assert "its folder was removed" in said["train"].text
    assert "result?run=" not in "".join(answer.text for answer in said.values())
    assert "1 label changed" in said["labels"].text
    assert "Nothing to use yet" in said["use"].text
    assert client.get(f"{base}/jobs/1/model.zip").status_code == 404
    assert client.get(f"{base}/jobs/1/report").status_code == 404
    assert client.post(f"{base}/jobs", data={"kind": "solve"}).status_code == 303


def test_what_goes_wrong_is_told_with_what_to_do_about_it(client: TestClient, project: Project, base: str) -> None:
    run = finished(project)  # without a model and a split
    for answer in (client.get(f"{base}/jobs/1/model.zip"), client.post(f"{base}/jobs", data={"kind": "solve"})):
        assert answer.status_code == 500
        assert "That did not work" in answer.text
        assert "<nav" not in answer.text, "a page like that of other errors"
        assert 'class="problem"' in answer.text
    assert "split.csv" in answer.text
    assert "train again" in answer.text.casefold()
    os.remove(run / "run.json")
    assert "no run folder" in client.get(f"{base}/labels").text


def test_a_full_disk_while_a_label_is_said_is_told_to_the_script(
    client: TestClient, project: Project, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: object) -> None:
        raise HeadstartError("disk full while writing", hint="free some space")

    monkeypatch.setattr(words_on_photos, "write_json", full)
    word = {"photo": identifier("a/photo 0.jpg"), "to": identifier("b")}
    answer = client.post(f"{base}/labels", data=word, headers={"HX-Request": "true"})
    assert (answer.status_code, answer.text) == (500, "Disk full while writing. Free some space.")
    assert project.labels.current == {}
    assert "Disk full" in client.post(f"{base}/labels", data=word).text
    monkeypatch.undo()
    assert client.post(f"{base}/labels", data=word, headers={"HX-Request": "true"}).status_code == 200


@pytest.mark.slow
def test_a_model_asked_for_twice_is_made_once_and_not_beside_a_job(
    studio: Studio, project: Project, base: str, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished(project)
    shutil.rmtree(run)
    pipeline.fit(configs.load("quick", data=str(project.folder), weights=str(tiny_weights)), run)
    export, begun = taking.export, []

    def exporting(*given: Any, **more: Any) -> Any:
        begun.append(given)
        return export(*given, **more)

    monkeypatch.setattr(taking, "export", exporting)

    async def release() -> None:
        studio.runner.alone.release()

    async def idle(self: Runner) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Runner, "run", idle)
    with TestClient(create_app(studio), base_url="http://studio") as client, ThreadPoolExecutor(2) as threads:
        client.portal.call(studio.runner.alone.acquire)  # as while a job runs
        asked = [threads.submit(client.get, f"{base}/jobs/1/model.zip") for _ in range(2)]
        time.sleep(0.3)
        assert begun == []
        client.portal.call(release)
        answers = [each.result(60) for each in asked]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    assert len(begun) == 1


def test_a_result_is_set_beside_the_one_before_only_where_the_test_photos_are_the_same(
    client: TestClient, project: Project, base: str
) -> None:
    for accuracy, tested in ((0.5, "1"), (0.75, "1"), (1.0, "2")):
        rows = [f"a/1.jpg,a,{tested},test,g1", f"a/3.jpg,a,3{tested},train,g3"]
        metrics = {"test": {"accuracy": accuracy, "accuracy_ci95": [0.1, 1.0], "n": 4}}
        finished(project, split_csv="\n".join(["path,label,sha256,split,group", *rows]), metrics_json=json.dumps(metrics))
    first, second, third = (" ".join(client.get(f"{base}/result?run={n}").text.split()) for n in (1, 2, 3))
    assert "The one before" not in first
    assert "The one before had 50&nbsp;% of the same photos" in second
    assert "The one before was tested on other photos" in third
    assert "had 75" not in third
