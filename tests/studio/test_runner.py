"""Jobs one after the other in a worker process: cancelled, dead, or on a full disk, one costs the next ones nothing.

The worker is a process that speaks as the real one does, and needs no seconds to load PyTorch.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from headstart.errors import HeadstartError
from headstart.studio import jobs, runner
from headstart.studio.jobs import Job
from headstart.studio.project import Project
from headstart.studio.runner import Runner, Worker

WORKER = """
import json, queue, sys, threading
heard = queue.Queue()
threading.Thread(target=lambda: [*map(heard.put, map(json.loads, sys.stdin)), heard.put({"end": True})], daemon=True).start()
print(json.dumps({"ready": True}), flush=True)
while "end" not in (word := heard.get()):
    if "do" not in word:  # a word to cancel what had ended
        continue
    order = word["do"]
    asked = order["asked"]
    if "answer" in asked:
        print(json.dumps({"answer": asked["answer"]}), flush=True)
    try:
        word = heard.get(timeout=asked.get("seconds", 0.01))
        ended = "cancelled"
    except queue.Empty:
        ended = "done"
    print(json.dumps({ended: order["id"]}), flush=True)
    if "end" in word:
        break
"""
CANCEL_S = 0.6


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[asyncio.subprocess.Process]]:
    """The worker processes that were started."""
    started: list[asyncio.subprocess.Process] = []

    async def start(cls: type[Worker]) -> Worker:
        pipe = subprocess.PIPE
        started.append(await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", WORKER, stdin=pipe, stdout=pipe))
        return Worker(started[-1])

    monkeypatch.setattr(Worker, "start", classmethod(start))
    monkeypatch.setattr(runner, "CANCEL_S", CANCEL_S)
    return started


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "photos").mkdir()
    return Project(tmp_path / "photos")


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Runner]:
    made = Runner()
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def add(made: Runner, project: Project, **asked: object) -> Job:
    job = project.jobs.accept(project.jobs.number(), "train", dict(asked))
    made.add(project, job)
    return job


async def state(project: Project, job: Job, *wanted: str) -> Job:
    """The job when it is in one of these states."""
    for _ in range(1000):
        found = project.jobs.get(job.id)
        assert found is not None
        if found.state in wanted:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"never {wanted}")


ENDED = ("done", "failed", "cancelled")


def test_stop_clicked_twice_ends_no_later_job(workers: list[asyncio.subprocess.Process], project: Project) -> None:
    async def story() -> None:
        async with running() as made:
            first = add(made, project, seconds=60)
            await state(project, first, "running")
            await asyncio.gather(made.cancel(project, first), made.cancel(project, first))
            second = add(made, project, seconds=2 * CANCEL_S)
            assert (await state(project, first, *ENDED)).state == "cancelled"
            ended = await state(project, second, *ENDED)
            assert (ended.state, ended.error) == ("done", "")
            assert len(workers) == 1

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_worker_that_died_while_it_had_nothing_to_do_fails_no_job(workers: list[asyncio.subprocess.Process], project: Project) -> None:
    async def story() -> None:
        async with running() as made:
            await state(project, add(made, project), "done")
            workers[0].kill()
            await workers[0].wait()
            ended = await state(project, add(made, project), *ENDED)
            assert (ended.state, ended.error) == ("done", "")

    asyncio.run(asyncio.wait_for(story(), 60))


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_disk_that_is_full_for_a_while_fails_one_job_and_says_so(
    workers: list[asyncio.subprocess.Process], project: Project, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """`left`: writes of the journal until it is full: of what runs, of an answer, of what is done."""
    write, full = jobs.write_json, [False]

    def writing(path: Path, value: object) -> None:
        nonlocal left
        left -= 1
        if full[0] and left < 0:
            raise HeadstartError("disk full while writing it", hint="free some space")
        write(path, value)

    async def story() -> None:
        nonlocal left
        async with running() as made:
            first = project.jobs.accept(project.jobs.number(), "train", {"answer": {"n": 1}})
            second = project.jobs.accept(project.jobs.number(), "train", {})
            left, full[0] = wanted, True
            made.add(project, first)
            ended = await state(project, first, *ENDED)
            assert (ended.state, ended.error, ended.hint) == ("failed", "disk full while writing it", "free some space")
            assert Project(project.folder).jobs.recover()[0].id == first.id, "on the disk it is as it was"
            full[0] = False
            made.add(project, second)
            assert (await state(project, second, *ENDED)).state == "done"
            made.add(project, project.jobs.change(first, state="queued"))
            assert (await state(project, first, *ENDED)).state == "done"

    wanted = left
    monkeypatch.setattr(jobs, "write_json", writing)
    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_worker_that_cannot_be_started_fails_one_job(
    workers: list[asyncio.subprocess.Process], project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, n_refused = Worker.start, 2  # when the studio starts, and for the first job

    async def refusing(cls: type[Worker]) -> Worker:
        nonlocal n_refused
        n_refused -= 1
        if n_refused >= 0:
            raise OSError(12, "Cannot allocate memory")
        return await start()

    async def story() -> None:
        async with running() as made:
            first = await state(project, add(made, project), *ENDED)
            assert (first.state, "Cannot allocate memory" in first.error) == ("failed", True)
            assert (await state(project, add(made, project), *ENDED)).state == "done"

    monkeypatch.setattr(Worker, "start", classmethod(refusing))
    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_job_waits_while_something_else_needs_the_machine_for_itself(workers: list[asyncio.subprocess.Process], project: Project) -> None:
    async def story() -> None:
        async with running() as made:
            async with made.alone:
                job = add(made, project)
                await asyncio.sleep(0.3)
                assert (await state(project, job, "queued")).attempts == 0
            await state(project, job, "running", "done")
            async with made.alone:
                assert (await state(project, job, "done")).attempts == 1

    asyncio.run(asyncio.wait_for(story(), 60))
