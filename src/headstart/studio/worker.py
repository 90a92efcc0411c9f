"""The process that does the studio's long work: warm, so that no job waits for PyTorch, and alone, so that nothing it does ends the studio.

    python -m headstart.studio.worker

One JSON object a line. In: {"do": {...}} (an order, below), {"cancel": ID}. Out: {"ready": true}; of a job {"step": {...}}, {"answer":
{...}}, and at its end one of {"done": ID}, {"cancelled": ID}, {"failed": ID, "error", "hint"}. The end of the input, which is also what
is left of a studio that was killed, ends the job as Ctrl-C would, and the process.
"""

import _thread
import contextlib
import importlib
import json
import logging
import os
import queue
import shlex
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart import config as configs
from headstart import progress, runs
from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from headstart.studio.solving import Solver

EVERY_S = 0.1  # between two lines on one step
PATIENCE_S = 10.0  # until a process that lost its studio ends the hard way; the store and the run folder bear it
BUSY_S = 30.0  # how long a run is waited for that a worker of the studio before is still letting go

Order = dict[str, Any]
"""id; kind: explore, train or solve; data, out: folders; asked: options of the command, by name."""


class Inbox:
    """What the studio says, read on a thread of its own, so that it is heard while a job runs."""

    def __init__(self) -> None:
        self.orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self.ended = threading.Event()
        self._changing = threading.Lock()
        self._running: int | None = None
        self._unwanted: set[int] = set()  # cancelled before they began
        threading.Thread(target=self._listen, daemon=True).start()

    @contextlib.contextmanager
    def running(self, job_id: int) -> Any:
        """Within this block, and nowhere else, a word to cancel that job interrupts the main thread."""
        with self._changing:
            if job_id in self._unwanted:
                raise KeyboardInterrupt
            self._running = job_id
        try:
            yield
        finally:
            with self._changing:
                self._running = None

    def _listen(self) -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if "do" in message:
                self._unwanted.discard(message["do"]["id"])  # of an earlier attempt
                self.orders.put(message["do"])
            elif "cancel" in message:
                self._interrupt(message["cancel"])
        self.ended.set()
        if self._interrupt(None):
            time.sleep(PATIENCE_S)  # the main thread ends the process when its job has let go
        os._exit(0)  # without seconds of tearing PyTorch down

    def _interrupt(self, job_id: int | None) -> bool:
        """Interrupt that job, or whichever runs. Returns: whether there was one."""
        with self._changing:
            found = self._running is not None and job_id in (None, self._running)
            if found:
                _thread.interrupt_main()
            elif job_id is not None:
                self._unwanted.add(job_id)
        return found


class Mouth:
    """The way back to the studio: a private copy of stdout, which itself becomes stderr, so that nobody's print gets in between."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._last: tuple[float, str] = (0.0, "")
        self._speaking = threading.Lock()

    def __call__(self, **message: Any) -> None:
        with self._speaking, contextlib.suppress(BrokenPipeError):  # the studio has gone; the inbox knows
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()

    def step(self, step: progress.Step) -> None:
        """Tell how far it is, not too often."""
        at, description = self._last
        now = time.monotonic()
        if description == step.description and step.done != step.total and now - at < EVERY_S:
            return
        self._last = now, step.description
        left_s = step.left_s
        of = {"description": step.description, "done": step.done, "total": step.total, "unit": step.unit, "note": step.note}
        self(step={**of, "left_s": None if left_s is None else round(left_s, 1)})


def main() -> None:
    """Serve orders until the studio goes."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    tell, inbox = Mouth(), Inbox()
    for slow in ("headstart.pipeline", "headstart.explore.explore"):  # seconds, before anybody waits for them
        importlib.import_module(slow)
    from headstart.studio.solving import Solver

    solver = Solver()
    tell(ready=True)
    while True:
        with contextlib.suppress(KeyboardInterrupt):  # one that came as its job ended
            _serve(inbox.orders.get(), tell, inbox, solver)
        if inbox.ended.is_set():
            os._exit(0)


def _serve(order: Order, tell: Mouth, inbox: Inbox, solver: "Solver") -> None:
    job_id = order["id"]
    work: dict[str, Callable[[], None]] = {
        "explore": lambda: explore(order),
        "train": lambda: train(order),
        "solve": lambda: solve(order, tell, solver),
    }
    try:
        with inbox.running(job_id), progress.heard(tell.step):
            work[order["kind"]]()
        tell(done=job_id)
    except KeyboardInterrupt:
        tell(cancelled=job_id)
    except HeadstartError as error:
        tell(failed=job_id, error=error.message, hint=error.hint)
    except MemoryError:
        tell(failed=job_id, error="there was not enough memory", hint="close other programs, then continue it")
    except Exception as error:  # a bug of ours must not take the next job with it
        traceback.print_exc()
        tell(failed=job_id, error=f"{type(error).__name__}: {str(error)[:300]}", hint="this is a bug of headstart; the terminal has more")


def explore(order: Order) -> None:
    """`headstart explore`."""
    from headstart.explore.explore import explore as exploring

    exploring(order["data"], out=order["out"], **order["asked"])


def train(order: Order) -> None:
    """`headstart train`. What an earlier try left in the folder is continued, or, where it is of other photos, made anew."""
    from headstart import pipeline

    config, out = config_of(order), Path(order["out"])
    if out.exists() and not _fits(out, config):
        shutil.rmtree(out)
    if out.exists() and runs.read_record(out).get("status") == runs.FINISHED:
        return  # the studio was killed between the run's end and the journal's
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            pipeline.fit(config, out, command=command_of(order))
            return
        except runs.OtherPhotosError:
            shutil.rmtree(out)
        except runs.BusyRunError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def solve(order: Order, tell: Mouth, solver: "Solver") -> None:
    """The answer first, from rows that are stored; then the run, which makes of it a model, scores and a report."""
    tell(answer=solver.answer(config_of(order)))
    train(order)


def config_of(order: Order) -> configs.Config:
    """The configuration of a training order."""
    given = dict(order["asked"])
    return configs.load(given.pop("recipe", None), data=order["data"], **given)


def command_of(order: Order) -> str:
    """The command line that does the same."""
    options = [word for name, value in order["asked"].items() if value is not None for word in (f"--{name}", str(value))]
    return shlex.join(["headstart", "train", order["data"], "--out", order["out"], *options])


def _fits(out: Path, config: configs.Config) -> bool:
    """Whether a folder can be gone on with: it is not where the project was moved, or headstart changed, in the meantime."""
    try:
        record = runs.read_record(out)
    except HeadstartError:
        return False
    return record.get("status") == runs.FINISHED or record.get("asked") == json.loads(json.dumps(config.to_json()))


if __name__ == "__main__":
    main()
