"""The journal of jobs: accepted is on disk; what was left undone is found again; a damaged file costs one job."""

import logging
from pathlib import Path

import pytest

from headstart.studio.jobs import MOST_ATTEMPTS, Journal


def accepted(journal: Journal, n: int = 1):
    return [journal.accept(journal.number(), "train", {"recipe": "quick"}) for _ in range(n)]


def test_an_accepted_job_is_found_by_the_next_studio_in_its_order(tmp_path: Path) -> None:
    accepted(Journal(tmp_path), 3)
    found = Journal(tmp_path).recover()
    assert [(job.id, job.state, job.asked) for job in found] == [(n, "queued", {"recipe": "quick"}) for n in (1, 2, 3)]


def test_what_ran_when_the_studio_was_killed_waits_again_and_what_ended_stays(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    states = ("running", "done", "failed", "cancelled")
    for job, state in zip(accepted(journal, 4), states, strict=True):
        journal.change(job, state=state, attempts=1)
    again = Journal(tmp_path)
    assert [job.id for job in again.recover()] == [1]
    assert [job.state for job in again.jobs] == ["cancelled", "failed", "done", "queued"]


def test_a_job_that_ends_the_studio_every_time_is_given_up(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    (job,) = accepted(journal)
    for attempt in range(1, MOST_ATTEMPTS + 1):
        assert [each.id for each in Journal(tmp_path).recover()] == [1]
        job = journal.change(job, state="running", attempts=attempt)
    again = Journal(tmp_path)
    assert again.recover() == []
    assert "ended 3 times" in again.jobs[0].error


def test_a_damaged_file_is_passed_over_and_its_number_is_not_used_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    accepted(Journal(tmp_path), 2)
    (tmp_path / "0002.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        journal = Journal(tmp_path)
    assert [job.id for job in journal.jobs] == [1]
    assert "0002.json is passed over" in caplog.text
    assert accepted(journal)[0].id == 3
    assert (tmp_path / "0002.json").read_text() == "{"
