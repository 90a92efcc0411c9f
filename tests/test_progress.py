import io
import re
import sys

import pytest

from headstart import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _say(monkeypatch: pytest.MonkeyPatch, total: int | None, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    token = progress._quiet.set(False)
    try:
        with progress.progress("Reading photos", total) as advance:
            advance(3)
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


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.quiet(), progress.progress("Reading photos", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")
