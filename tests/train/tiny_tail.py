"""A tail of a few hundred weights over made-up rows, and trainings of it for other processes to run."""

import json
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from headstart.backbone.cut import Tail
from headstart.config import Phase
from headstart.progress import quiet
from headstart.train import checkpoint
from headstart.train.loop import Epoch, Examples, train

D, K = 6, 3


def make_tail(*, dropout: float | None = None) -> Tail:
    """Stages `a` (with a convolution), `b` and `head`; always the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        a = nn.Sequential(nn.Unflatten(1, (D, 1, 1)), nn.Conv2d(D, 8, 1), nn.Flatten(), nn.Tanh())
        body = nn.Sequential(OrderedDict(a=a, b=nn.Linear(8, 8)))
        drop = [] if dropout is None else [nn.Dropout(dropout)]
        classifier = nn.Sequential(nn.ReLU(), *drop, nn.Linear(8, K))
    stage_of = {"body.a.1.weight": "a", "body.a.1.bias": "a", "body.b.weight": "b", "body.b.bias": "b"}
    return Tail(body, classifier, normalise=nn.Identity(), d_features=8, stage_of=stage_of)


def make_examples(n: int, *, seed: int = 0, shares: tuple[float, ...] = (0.6, 0.3, 0.1)) -> Examples:
    """Rows of K classes that overlap; a NumPy array is read just as a store's rows are."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(K, n, p=shares)
    rows = (rng.normal(size=(n, D)) + np.eye(K, D)[labels]).astype(np.float32)
    return Examples((rows,), np.arange(n), labels, tuple(f"{seed}-{i}" for i in range(n)))  # type: ignore[arg-type]


PHASE = Phase(cut="a", epochs=25, rate=0.05, batch_size=16, patience=25, ema=0.9, label_smoothing=0.1, mixup=0.2)


def train_tiny(phase: Phase, file: Path | None = None, on_epoch: Callable[[Epoch], None] | None = None, **changes: Any) -> Any:
    """One training on 50 rows, with dropout."""
    settings: dict[str, Any] = {"seed": 3, "class_weights": np.array([1.0, 2.0, 3.0]), **changes}
    tail = make_tail(dropout=0.2)
    return train(tail, make_examples(50), make_examples(20, seed=1), phase, checkpoint=file, on_epoch=on_epoch, **settings)


def without_clock(history: tuple[Epoch, ...]) -> list[tuple[Any, ...]]:
    """The history less what the clock says."""
    return [(e.phase, e.epoch, e.rate, e.train_loss, e.train_accuracy, e.val_loss, e.val_accuracy) for e in history]


def train_in_a_process(folder: Path) -> None:
    """Train with a checkpoint after every epoch, none under 20 ms; leave the result, and the epochs that this process computed."""
    torch.set_num_threads(1)
    checkpoint.EVERY_S = 0.0

    def on_epoch(epoch: Epoch) -> None:
        with (folder / "epochs.txt").open("a") as file:
            file.write(f"{epoch.epoch}\n")
        time.sleep(0.02)

    try:
        with quiet():
            trained = train_tiny(PHASE, folder / "phase.safetensors", on_epoch)
    except KeyboardInterrupt:
        sys.exit(130)
    leave(trained, folder)


def train_with_others(rank: int, n: int, port: int, folder: Path, phase: Phase) -> None:
    """Train as one of `n` processes, as `accelerate launch` would start them."""
    import os

    torch.set_num_threads(1)
    about = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n, "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    os.environ |= {"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in about.items()}
    with quiet():
        trained = train_shared(phase, folder / "phase.safetensors", off_by=rank)
        again = train_shared(phase, folder / "phase.safetensors", off_by=2 * rank)  # what the file holds: it has ended
    assert without_clock(again.history) == without_clock(trained.history)
    leave(trained, folder, f"-{rank}")
    torch.distributed.destroy_process_group()


def train_shared(phase: Phase, file: Path | None = None, *, off_by: float = 0.0) -> Any:
    """A training without dropout, whose masks would differ; the last batch has one row. off_by: added to the weights it starts from."""
    tail, weights = make_tail(), np.array([1.0, 2.0, 3.0])
    with torch.no_grad():
        for parameter in tail.parameters():
            parameter += off_by
    return train(tail, make_examples(49), make_examples(21, seed=1), phase, class_weights=weights, checkpoint=file)


def leave(trained: Any, folder: Path, name: str = "") -> None:
    """Write weights and history."""
    safetensors.torch.save_file(trained.tail.state_dict(), folder / f"tail{name}.safetensors")
    (folder / f"history{name}.json").write_text(json.dumps(without_clock(trained.history)))


if __name__ == "__main__":  # under `accelerate launch`
    with quiet():
        result = train_shared(PHASE)
    leave(result, Path(sys.argv[1]), f"-{torch.distributed.get_rank()}")
    torch.distributed.destroy_process_group()
