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

from headstart.studio import runner
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

    asyncio.run(story())


def test_a_worker_that_died_while_it_had_nothing_to_do_fails_no_job(workers: list[asyncio.subprocess.Process], project: Project) -> None:
    async def story() -> None:
        async with running() as made:
            await state(project, add(made, project), "done")
            workers[0].kill()
            await workers[0].wait()
            ended = await state(project, add(made, project), *ENDED)
            assert (ended.state, ended.error) == ("done", "")

    asyncio.run(story())
