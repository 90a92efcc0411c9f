"""A studio for tests: in this process without its worker, as a process of its own, and a browser where there is one."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from studio_tools import Running

from browser import Tab, new_tab


@pytest.fixture
def start(tmp_path: Path, tiny_weights: Path) -> Iterator[Callable[..., Running]]:
    """A function that starts `headstart studio FOLDER` as a process: `start(folder, network=options)`; it is ended afterwards."""
    started: list[Running] = []

    def starting(folder: Path, *, network: tuple[str, ...] = ("--weights", str(tiny_weights))) -> Running:
        errors = tmp_path / f"studio {len(started)}.err"
        words = ["studio", str(folder), "--no-browser", "--port", "0", *network]
        command = [sys.executable, "-m", "headstart.cli.main", *words]
        with errors.open("wb") as file:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert process.stdout is not None
        link = re.search(r"http://127\.0\.0\.1:(\d+)/\?token=\S+", process.stdout.readline())
        assert link is not None, errors.read_text()
        started.append(Running(process, link[0], int(link[1]), errors))
        return started[-1]

    yield starting
    for each in started:
        if each.process.poll() is None:
            each.process.send_signal(signal.SIGTERM)
    for each in started:
        try:
            each.process.wait(30)
        finally:
            each.process.kill()
            each.process.wait()
            if each.process.stdout is not None:
                each.process.stdout.close()


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    with new_tab(tmp_path) as tab:
        yield tab
