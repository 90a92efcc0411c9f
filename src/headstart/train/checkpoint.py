"""How far a phase has come, in one file: written whole or not at all, never pickle."""

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from headstart.config import Phase
from headstart.files import atomic_file
from headstart.train.batches import Feed

EVERY_S = 1.0  # least time between two writes

_KEY = "headstart_checkpoint"

log = logging.getLogger("headstart")


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What a training needs to go on: tensors by name, and plain facts that JSON keeps bit by bit."""

    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]


class Checkpoint:
    """A phase's file. It is a safetensors file with JSON in its metadata."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self._fingerprint = fingerprint
        self._written_at = time.monotonic()

    def read(self) -> Snapshot | None:
        """What was last written, or None: there is no file, it is damaged, or it belongs to another training (a notice says so)."""
        for left in self.path.parent.glob(f".{self.path.name}.*.part"):  # by a process that was killed while it wrote
            left.unlink(missing_ok=True)
        if not self.path.exists():
            return None
        try:
            with safetensors.safe_open(self.path, "pt") as file:
                facts = json.loads((file.metadata() or {})[_KEY])
                if facts["fingerprint"] != self._fingerprint:
                    log.warning("the checkpoint %s belongs to another training and is not used", self.path)
                    return None
                return Snapshot({name: file.get_tensor(name).clone() for name in file.keys()}, facts)  # noqa: SIM118
        except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
            log.warning("the checkpoint %s is damaged and is not used: %s", self.path, error)
            return None

    @property
    def is_due(self) -> bool:
        """Whether the last write (or the start) is long enough ago.

        Skipping a write costs a killed process only the epochs since then: they are repeated from the same state with the same draws.
        """
        return time.monotonic() - self._written_at >= EVERY_S

    def write(self, snapshot: Snapshot) -> None:
        """Replace the file. Raises: HeadstartError: the disk is full, or cannot be written."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in snapshot.tensors.items()}
        facts = {**snapshot.facts, "fingerprint": self._fingerprint}
        with atomic_file(self.path, "wb") as file:
            file.write(safetensors.torch.save(tensors, {_KEY: json.dumps(facts)}))
        self._written_at = time.monotonic()


def fingerprint(tail: nn.Module, start: str, feed: Feed, val: Feed, phase: Phase, *, precision: str) -> str:
    """Names a training: phase, seed, photos and labels in their order, preprocessing, class weights, and what made its start.

    Of the weights it starts from only names and shapes: their last bits depend on the number of threads that solved the head.
    """
    digest = hashlib.sha256()
    plain = [dataclasses.asdict(phase), feed.seed, precision, len(feed.examples.views), repr(feed.preprocessing), feed.processes.n, start]
    digest.update(json.dumps(plain, sort_keys=True).encode())
    digest.update(b"none" if feed.class_weights is None else feed.class_weights.tobytes())
    for examples in (feed.examples, val.examples):
        digest.update(json.dumps([len(examples), examples.sha256s]).encode())
        digest.update(examples.at.tobytes() + examples.labels.tobytes())
    for name, tensor in tail.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    return digest.hexdigest()


def optimiser_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's memory (moments, steps), as `number of the parameter.what`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        f"{i}.{what}": value
        for i, parameter in enumerate(parameters)
        for what, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, torch.Tensor)
    }


def restore_optimiser(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give an optimiser the memory that `optimiser_tensors` took from one over the same parameters."""
    parameters = [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]
    for name, tensor in tensors.items():
        i, what = name.split(".")
        parameter, group = parameters[int(i)]
        # In the parameter's own order of memory, as the optimiser makes it: in another, products would be rounded by other code.
        # A fused optimiser counts its steps where its parameters are, the others on the CPU.
        alike = tensor.shape == parameter.shape and tensor.ndim > 0
        beside = tensor.to(parameter.device) if group.get("fused") else tensor
        optimizer.state[parameter][what] = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor) if alike else beside
