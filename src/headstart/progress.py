"""Progress of long work, on stderr: a live bar on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Advance = Callable[[int], None]

_quiet: ContextVar[bool] = ContextVar("headstart_quiet", default=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress within this block (tests, servers, inner loops)."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


@contextlib.contextmanager
def waiting(description: str) -> Iterator[None]:
    """On a terminal, show that something uncountable goes on ("Loading PyTorch"); nothing elsewhere."""
    if _quiet.get() or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(description):
        yield


@contextlib.contextmanager
def progress(description: str, total: int | None, unit: str = "photos") -> Iterator[Advance]:
    """Show that work goes on: how much is done, how fast, how long it still takes.

    Args:
        description: what is being done, as a phrase ("Reading photos").
        total: how many units there are, or None where nobody knows.
        unit: what is counted, in the plural.

    Yields: a function to call with the number of units just done. It may be called from any thread.
    """
    if _quiet.get():
        yield lambda n: None
    elif sys.stderr.isatty():
        with _bar(description, total, unit) as advance:
            yield advance
    else:
        with _lines(description, total, unit) as advance:
            yield advance


@contextlib.contextmanager
def _bar(description: str, total: int | None, unit: str) -> Iterator[Advance]:
    # rich takes 50 ms to import: only where a bar is shown.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed if task.finished_speed is not None else task.speed
            return Text("" if speed is None else f"{speed:,.0f} {unit}/s" if speed >= 10 else f"{speed:.1f} {unit}/s")

    columns = [
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    ]
    if total is None:
        columns = [TextColumn("{task.description:<24}"), MofNCompleteColumn(), Rate(), TimeElapsedColumn()]
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)
        yield lambda n: bar.advance(task, n)


@contextlib.contextmanager
def _lines(description: str, total: int | None, unit: str, every_s: float = 10.0) -> Iterator[Advance]:
    started = last = time.monotonic()
    done = 0
    counting = threading.Lock()

    def say(now: float) -> None:
        rate = done / max(now - started, 1e-9)
        of = "" if total is None else f"/{total}"
        left = "" if total is None or not done or done >= total else f", {(total - done) / rate:.0f} s left"
        print(f"{description}: {done}{of} {unit}, {rate:.1f} {unit}/s{left}", file=sys.stderr, flush=True)

    def advance(n: int) -> None:
        nonlocal done, last
        with counting:
            done += n
            now = time.monotonic()
            if now - last >= every_s:
                last = now
                say(now)

    yield advance
    say(time.monotonic())
