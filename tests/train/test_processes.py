"""Several processes train one tail: to the same weights as one process would, within rounding."""

import dataclasses
import itertools
import json
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_tail import PHASE, train_shared, train_with_others, without_clock

from headstart.config import Phase
from headstart.train.processes import Processes


@given(st.integers(0, 100), st.integers(0, 40), st.integers(1, 7))
def test_the_shares_of_a_batch_are_all_of_it_once_and_keep_pairs_together(start: int, n: int, n_processes: int) -> None:
    shares = []
    for rank in range(n_processes):
        processes = Processes("cpu")
        processes.rank, processes.n = rank, n_processes
        shares.append(processes.share(slice(start, start + n)))
    assert [place for share in shares for place in range(share.start, share.stop)] == list(range(start, start + n))
    assert all((share.stop - share.start) % 2 == 0 for share in shares[:-1])
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 3


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _check(folder: Path, phase: Phase) -> None:
    alone = train_shared(phase)
    states = [safetensors.torch.load_file(folder / f"tail-{rank}.safetensors") for rank in (0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0]), "the processes ended with different weights"
    for name, tensor in alone.tail.state_dict().items():
        torch.testing.assert_close(states[0][name], tensor, rtol=1e-4, atol=1e-5)
    histories = [json.loads((folder / f"history-{rank}.json").read_text()) for rank in (0, 1)]
    assert histories[0] == histories[1]
    for found, expected in itertools.zip_longest(histories[0], without_clock(alone.history)):
        assert found[1:] == pytest.approx(list(expected[1:]), rel=1e-4)  # accuracies: no row is counted twice or left out


@pytest.mark.skipif(sys.platform == "win32", reason="needs a fork server")
def test_two_processes_train_as_one_does_from_the_weights_that_the_first_has(tmp_path: Path) -> None:
    phase = dataclasses.replace(PHASE, epochs=4, accumulate=2, clip=1.0, batch_size=12)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["headstart.train.loop"])
    port = _free_port()
    both = [context.Process(target=train_with_others, args=(rank, 2, port, tmp_path, phase)) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    _check(tmp_path, phase)


@pytest.mark.slow
def test_accelerate_launch_trains_as_one_process_does(tmp_path: Path) -> None:
    # `--cpu --num_processes 2` starts one process only: its CPU launcher leaves the others to mpirun. `--multi_gpu` means torchrun; what
    # each process computes on is the training's own choice.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    port = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(_free_port())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("tiny_tail.py")
    done = subprocess.run([*launch, *port, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    _check(tmp_path, PHASE)
