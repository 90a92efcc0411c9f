"""Accepted jobs, one after the other, in the warm worker process; and how far the one that runs has come, for whoever watches."""

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from headstart.errors import HeadstartError
from headstart.studio.jobs import Job, now
from headstart.studio.project import Project
from headstart.studio.words import Stage, stages_of, told

# Threads that wait for each other must sleep, not spin: the browser and everything else need the cores, too. Measured on two cores
# beside other heavy work: a head on changed labels in 1.3 to 2.8 s instead of 24 (OpenMP, for PyTorch), and 60 systems of 512 equations
# in 1 to 3 s instead of more than 60 (OpenBLAS, for NumPy).
UNHURRIED = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "4"}
CANCEL_S = 15.0  # until a job that was cancelled ends the hard way
LINE_LIMIT_BYTES = 2**20

log = logging.getLogger("headstart")


@dataclass
class Live:
    """The job that runs: its stages, which of them it is in, and the step of the worker's last word."""

    project: Project
    job: Job
    stages: tuple[Stage, ...]
    at: int = -1
    step: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] | None = None
    cancelling: bool = False
    began: float = field(default_factory=time.monotonic)

    def hear(self, step: dict[str, Any]) -> None:
        """Follow the worker; stages only move on."""
        self.step = step
        for i, stage in enumerate(self.stages):
            if i > self.at and step["description"] in stage.steps:
                self.at = i

    @property
    def words(self) -> str:
        """What is being done, in plain words."""
        return told(self.step.get("description", "")) if self.step else "Starting"

    @property
    def percent(self) -> float | None:
        """How much of the step is done, 0 to 100, or None where nobody knows."""
        total = self.step.get("total")
        return None if not total else min(100.0, 100 * self.step["done"] / total)


class Worker:
    """The child process, and the talk with it (worker.py has the words)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> "Worker":
        environment = {**UNHURRIED, **os.environ}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "headstart.studio.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            limit=LINE_LIMIT_BYTES,
            start_new_session=True,  # Ctrl-C in the terminal is for the studio, which then lets its worker finish in order
        )
        return cls(process)

    async def say(self, **message: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it has died; `messages` ends and says so
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            await self._process.stdin.drain()

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """What it says, until it ends."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            yield json.loads(line)

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    async def end(self, patience_s: float = CANCEL_S) -> int:
        """Let it finish in order, then the hard way. Returns: its exit code, negative for a signal."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self._process.wait(), patience_s)
        self.kill()
        return await self._process.wait()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


class Runner:
    """Runs jobs of all projects in the order they were accepted, one at a time: they share the machine's cores."""

    def __init__(self) -> None:
        self.live: Live | None = None
        self.alone = asyncio.Lock()
        """held by the job that runs, or by what else needs the machine's cores for itself"""
        self._waiting: asyncio.Queue[tuple[Project, int]] = asyncio.Queue()
        self._worker: Worker | None = None
        self._watchers: set[asyncio.Event] = set()
        self._stuck: asyncio.TimerHandle | None = None

    def add(self, project: Project, job: Job) -> None:
        """Take on a job that its journal has accepted."""
        self._waiting.put_nowait((project, job.id))
        self.changed()

    async def run(self) -> None:
        """For ever: keep a worker warm, and give it the next job. Cancelled, it lets a running job end as Ctrl-C would."""
        try:
            while True:
                with contextlib.suppress(OSError):  # no worker can be started now: a job will try again, and say so
                    await self._living()
                project, job_id = await self._waiting.get()
                try:
                    async with self.alone:
                        worker = await self._living()  # it may have died since, while it had nothing to do
                        job = project.jobs.get(job_id)
                        if job is not None and job.state == "queued":
                            await self._do(project, job, worker)
                except Exception as error:  # a full disk, above all; the next job must not wait for ever
                    await self._give_up(project, job_id, error)
        finally:
            if self._worker is not None:
                await self._worker.end()

    async def cancel(self, project: Project, job: Job) -> None:
        """End a job; what it computed is kept, and it can be continued. Asked again, it is on its way already."""
        live = self.live
        if live is not None and (live.project, live.job.id) == (project, job.id) and self._worker is not None:
            if not live.cancelling:
                live.cancelling = True
                # Before anything is awaited: the job may end meanwhile, and its end must find the timer.
                self._stuck = asyncio.get_running_loop().call_later(CANCEL_S, self._worker.kill)
                await self._worker.say(cancel=job.id)
        elif job.state == "queued":
            project.jobs.change(job, state="cancelled", ended=now())
        self.changed()

    async def _living(self) -> Worker:
        """The worker, or another one where it has died."""
        if self._worker is None or not self._worker.is_alive:
            self._worker = await Worker.start()
        return self._worker

    async def _do(self, project: Project, job: Job, worker: Worker) -> None:
        job = project.jobs.change(job, state="running", started=now(), attempts=job.attempts + 1, error="", hint="", ended="")
        self.live = live = Live(project, job, stages_of(job))
        self.changed()
        try:
            await worker.say(do=order_of(project, job))
            ended = await self._follow(live, worker)
            project.jobs.change(job, **ended, ended=now())
        finally:
            if self._stuck is not None:
                self._stuck.cancel()
                self._stuck = None
            self.live = None
            self.changed()

    async def _give_up(self, project: Project, job_id: int, error: Exception) -> None:
        """A job that could not be started, followed or written down has failed; its worker, which may still be at it, ends."""
        log.warning("%s, job %d: %s", project.name, job_id, error, exc_info=not isinstance(error, HeadstartError | OSError))
        text = error.message if isinstance(error, HeadstartError) else f"{type(error).__name__}: {error}"
        project.jobs.fail(job_id, text, getattr(error, "hint", None) or "close other programs, then continue it")
        self.changed()
        if self._worker is not None:
            await self._worker.end()

    async def _follow(self, live: Live, worker: Worker) -> dict[str, Any]:
        """Hear the worker to the job's end. Returns: what the journal keeps of it."""
        async for message in worker.messages():
            if "step" in message:
                live.hear(message["step"])
            elif "answer" in message:
                live.answer = message["answer"]
                live.job = live.project.jobs.change(live.job, answer=live.answer)
            elif message.get("failed") == live.job.id:
                return {"state": "failed", "error": message["error"], "hint": message["hint"] or ""}
            elif message.get("cancelled") == live.job.id:
                return {"state": "cancelled"}
            elif message.get("done") == live.job.id:
                return {"state": "done"}
            self.changed()
        code = await worker.end()
        if live.cancelling:
            return {"state": "cancelled"}
        how = "was killed; there may not be enough memory" if code == -9 else f"ended by itself (code {code})"
        return {"state": "failed", "error": f"the process that did the work {how}", "hint": "close other programs, then continue it"}

    def changed(self) -> None:
        """Wake whoever watches."""
        for watcher in self._watchers:
            watcher.set()

    @contextlib.contextmanager
    def watched(self) -> Any:
        """An event that is set at every change within this block."""
        watcher = asyncio.Event()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)


def order_of(project: Project, job: Job) -> dict[str, Any]:
    """What the worker is told of a job."""
    return {"id": job.id, "kind": job.kind, "data": str(project.folder), "out": str(project.out(job)), "asked": job.asked}
