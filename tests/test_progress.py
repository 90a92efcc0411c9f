import io
import re
import sys
import threading
import time

import pytest

from headstart import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _say(monkeypatch: pytest.MonkeyPatch, total: int | None, stream: io.StringIO, *, note: str = "", done: int = 0) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    token = progress._quiet.set(False)
    try:
        with progress.progress("Reading photos", total, done=done) as advance:
            advance(3)
            advance.note = note
            advance(4)
    finally:
        progress._quiet.reset(token)
    return stream.getvalue()


def test_without_a_terminal_progress_is_a_line_with_count_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(r"Reading photos: 7/7 photos, [\d.]+ photos/s\n", _say(monkeypatch, 7, io.StringIO()))
    assert re.fullmatch(r"Reading photos: 7 photos, [\d.]+ photos/s\n", _say(monkeypatch, None, io.StringIO()))


def test_on_a_terminal_progress_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    assert "7/7" in _say(monkeypatch, 7, Terminal())


def test_a_note_is_shown_with_the_line_and_under_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    note = "epoch 2/3, train 0.312 (90.1%), val 0.420 (87.3%), rate 0.001"
    assert _say(monkeypatch, 7, io.StringIO(), note=note).endswith(f" photos/s ({note})\n")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    shown = _say(monkeypatch, 7, Terminal(), note=note)
    assert "7/7" in shown
    assert note in shown


def test_what_was_done_before_counts_but_not_for_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.5, 1.0, 2.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert _say(monkeypatch, 1007, io.StringIO(), done=1000) == "Reading photos: 1007/1007 photos, 3.5 photos/s\n"


def test_without_a_terminal_lines_come_now_and_then_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 10.0, 10.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    said = _say(monkeypatch, 14, io.StringIO(), note="rate 1").splitlines()
    assert said == ["Reading photos: 7/14 photos, 0.7 photos/s, 10 s left (rate 1)"] * 2


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.quiet(), progress.progress("Reading photos", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


class Slow(int):
    """One photo whose addition takes long enough for other threads to come in between."""

    def __radd__(self, done: int) -> int:
        time.sleep(0.002)
        return done + int(self)


def test_threads_that_advance_at_once_lose_no_count(capsys: pytest.CaptureFixture[str]) -> None:
    with progress._lines("Reading photos", None, "photos") as advance:
        threads = [threading.Thread(target=lambda: [advance(Slow(1)) for _ in range(5)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert capsys.readouterr().err.startswith("Reading photos: 40 photos, ")


def test_waiting_is_shown_on_a_terminal_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for stream, said in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        token = progress._quiet.set(False)
        try:
            with progress.waiting("Loading PyTorch"):
                pass
        finally:
            progress._quiet.reset(token)
        assert ("Loading PyTorch" in stream.getvalue()) == said


def test_who_listens_is_told_at_once_and_of_every_unit_and_stderr_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[progress.Step] = []
    token = progress._quiet.set(False)
    try:
        with progress.heard(told.append):
            with progress.waiting("Solving a head"):
                progress.say("it will take long")
            with progress.progress("Reading photos", 4, done=1) as advance:
                advance.note = "epoch 1"
                advance(2)
        with progress.quiet(), progress.heard(told.append), progress.progress("Inner loop", 1) as advance:
            advance(1)
    finally:
        progress._quiet.reset(token)
    assert [(step.description, step.done, step.total, step.note) for step in told] == [
        ("Solving a head", 0, None, ""),
        ("Reading photos", 1, 4, ""),
        ("Reading photos", 3, 4, "epoch 1"),
    ]
    assert told[1].left_s is None
    assert told[2].left_s == pytest.approx(1 / told[2].rate)
    assert capsys.readouterr().err == ""
