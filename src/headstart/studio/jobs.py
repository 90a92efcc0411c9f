"""What was asked for and accepted, one file a job: whoever kills the studio, what it accepted is found again and done.

jobs/0003.json             the job
jobs/0003.corrections.csv  and 0003.left-out.csv, 0003.split.csv: what it goes by, as it was when it was accepted
"""

import contextlib
import dataclasses
import json
import logging
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from headstart.errors import HeadstartError
from headstart.files import write_json

FORMAT = 1
MOST_ATTEMPTS = 3  # of one job, each ended by the studio's own end: then it is not started any more without being asked to

Kind = Literal["explore", "train", "solve"]
State = Literal["queued", "running", "done", "failed", "cancelled"]

log = logging.getLogger("headstart")


@dataclass(frozen=True)
class Job:
    """One piece of long work.

    id: its number, from 1. kind: `explore` looks at the photos; `train` trains; `solve` trains the head anew on labels that changed.
    asked: the options of `headstart explore` or `headstart train`, by name. accepted, started, ended: when, ISO 8601.
    attempts: how often it was started. error, hint: why it failed. answer: of `solve`, what heads said on the labels (solving.py).
    """

    id: int
    kind: Kind
    state: State = "queued"
    asked: dict[str, Any] = field(default_factory=dict)
    accepted: str = ""
    started: str = ""
    ended: str = ""
    attempts: int = 0
    error: str = ""
    hint: str = ""
    answer: dict[str, Any] | None = None

    @property
    def is_open(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("queued", "running")

    @property
    def is_training(self) -> bool:
        """Whether a classifier comes of it."""
        return self.kind in ("train", "solve")


def now() -> str:
    """The time as jobs record it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Journal:
    """The jobs of a project. A job is accepted when its file is on disk; every file is written whole and renamed into place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._changing = threading.Lock()
        self._jobs = {job.id: job for job in _read_all(folder)}
        self._last = max((int(path.name.split(".")[0]) for path in folder.glob("[0-9]*.json")), default=0)  # a damaged one counts

    @property
    def jobs(self) -> list[Job]:
        """All, the newest first."""
        return sorted(self._jobs.values(), key=lambda job: -job.id)

    def get(self, job_id: int) -> Job | None:
        return self._jobs.get(job_id)

    def number(self) -> int:
        """A number for a job to come, given once."""
        with self._changing:
            self._last += 1
            return self._last

    def accept(self, job_id: int, kind: Kind, asked: dict[str, Any]) -> Job:
        """Write a job down under its `number`; it is in safety when this returns."""
        with self._changing:
            job = Job(job_id, kind, asked=asked, accepted=now())
            self._write(job)
        return job

    def change(self, job: Job, **facts: Any) -> Job:
        """`job` with other facts, written down."""
        with self._changing:
            changed = dataclasses.replace(self._jobs[job.id], **facts)
            self._write(changed)
        return changed

    def fail(self, job_id: int, error: str, hint: str) -> None:
        """A job that has failed, even where the disk takes no word of it: the next studio then finds it as it was, and does it."""
        with self._changing:
            failed = dataclasses.replace(self._jobs[job_id], state="failed", ended=now(), error=error, hint=hint)
            self._jobs[job_id] = failed
            with contextlib.suppress(HeadstartError):
                self._write(failed)

    def recover(self) -> list[Job]:
        """What an earlier studio left undone, in the order it was accepted; what ran then waits again. To be called once, at the start."""
        for job in self.jobs:
            if job.state == "running" and job.attempts >= MOST_ATTEMPTS:
                error = f"the studio ended {job.attempts} times while this ran; it was not started again by itself"
                self.fail(job.id, error, "continue it when you have closed other programs")
            elif job.state == "running":
                self._jobs[job.id] = dataclasses.replace(job, state="queued")  # on a full disk, too; the file says as much to the next
        return sorted((job for job in self.jobs if job.state == "queued"), key=lambda job: job.id)

    def input_file(self, job_id: int, name: str) -> Path:
        """Where a file that job goes by lies: `corrections.csv`, `left-out.csv`, `split.csv`."""
        return self.folder / f"{job_id:04d}.{name}"

    def _write(self, job: Job) -> None:
        write_json(self.folder / f"{job.id:04d}.json", {"job": FORMAT, **dataclasses.asdict(job)})
        self._jobs[job.id] = job


def _read_all(folder: Path) -> list[Job]:
    found = []
    for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record.pop("job") != FORMAT or record["kind"] not in get_args(Kind) or record["state"] not in get_args(State):
                raise ValueError("not a job of this version")
            found.append(Job(**record))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is passed over: %s", path, error)
    return found
