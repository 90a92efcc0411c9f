"""Progress of long work, on stderr: a live bar on a terminal, a line now and then elsewhere; or to a listener, for a page to show."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY_S = 10.0  # between two lines, where there is no terminal

_quiet: ContextVar[bool] = ContextVar("headstart_quiet", default=False)


@dataclass(frozen=True)
class Step:
    """How far one piece of work is.

    Attributes: description: what is being done, as a phrase. done, total: units; `total` is None where nobody knows. unit: what is counted.
        rate: units a second; 0 at first. note: more to show with it.
    """

    description: str
    done: int = 0
    total: int | None = None
    unit: str = ""
    rate: float = 0.0
    note: str = ""

    @property
    def left_s(self) -> float | None:
        """How long it still takes at this rate, or None where that is not known."""
        return None if self.total is None or not self.rate else max(0, self.total - self.done) / self.rate


Listener = Callable[[Step], None]

_listener: ContextVar[Listener | None] = ContextVar("headstart_listener", default=None)


class Advance:
    """Told of units done by calling it; may be called from any thread.

    Attributes: note: more to show with it, in a few words; "" for nothing. Set at any time.
    """

    def __init__(self, count: Callable[[int], None]) -> None:
        self._count = count
        self.note = ""

    def __call__(self, n: int) -> None:
        self._count(n)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress and no sentences within this block (tests, servers, inner loops)."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


@contextlib.contextmanager
def heard(listener: Listener) -> Iterator[None]:
    """Within this block, `listener` is told of progress, at once and of every unit; nothing of it goes to stderr."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def say(sentence: str) -> None:
    """Tell on stderr what was decided, before long work that follows from it."""
    if not _quiet.get() and _listener.get() is None:
        print(sentence, file=sys.stderr, flush=True)


@contextlib.contextmanager
def waiting(description: str) -> Iterator[None]:
    """On a terminal, show that something uncountable goes on ("Loading PyTorch"); nothing elsewhere, unless someone listens."""
    if not _quiet.get() and (listener := _listener.get()) is not None:
        listener(Step(description))
        yield
        return
    if _quiet.get() or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(description):
        yield


@contextlib.contextmanager
def progress(description: str, total: int | None, unit: str = "photos", *, done: int = 0) -> Iterator[Advance]:
    """Show that work goes on: how much is done, how fast, how long it still takes.

    Args:
        description: what is being done, as a phrase ("Reading photos").
        total: how many units there are, or None where nobody knows.
        unit: what is counted, in the plural.
        done: how many of them were done before, in no time.

    Yields: what to call with the number of units just done.
    """
    if _quiet.get():
        yield Advance(lambda n: None)
    elif (listener := _listener.get()) is not None:
        yield _told(listener, description, total, unit, done)
    elif sys.stderr.isatty():
        with _bar(description, total, unit, done) as advance:
            yield advance
    else:
        with _lines(description, total, unit, done) as advance:
            yield advance


def _told(listener: Listener, description: str, total: int | None, unit: str, before: int) -> Advance:
    started, done, counting = time.monotonic(), before, threading.Lock()

    def count(n: int) -> None:
        nonlocal done
        with counting:
            done += n
            rate = (done - before) / max(time.monotonic() - started, 1e-9)
            listener(Step(description, done, total, unit, rate, advance.note))

    advance = Advance(count)
    listener(Step(description, before, total, unit))
    return advance


@contextlib.contextmanager
def _bar(description: str, total: int | None, unit: str, done: int) -> Iterator[Advance]:
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

    class WithNote(Progress):
        def get_renderables(self) -> "Iterator[RenderableType]":
            yield from super().get_renderables()
            if advance.note:
                yield Text(f"  {advance.note}", overflow="ellipsis", no_wrap=True)

    columns = [
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    ]
    if total is None:
        columns = [TextColumn("{task.description:<24}"), MofNCompleteColumn(), Rate(), TimeElapsedColumn()]
    advance = Advance(lambda n: bar.advance(task, n))
    with WithNote(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, completed=done)
        yield advance


@contextlib.contextmanager
def _lines(description: str, total: int | None, unit: str, before: int = 0) -> Iterator[Advance]:
    started = last = time.monotonic()
    done = before
    counting = threading.Lock()

    def say(now: float) -> None:
        rate = (done - before) / max(now - started, 1e-9)
        of = "" if total is None else f"/{total}"
        left = "" if total is None or done == before or done >= total else f", {(total - done) / rate:.0f} s left"
        note = f" ({advance.note})" if advance.note else ""
        print(f"{description}: {done}{of} {unit}, {rate:.1f} {unit}/s{left}{note}", file=sys.stderr, flush=True)

    def count(n: int) -> None:
        nonlocal done, last
        with counting:
            done += n
            now = time.monotonic()
            if now - last >= EVERY_S:
                last = now
                say(now)

    advance = Advance(count)
    yield advance
    say(time.monotonic())
