"""Files that are either the old one or the new one, whenever the process is killed."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to; what lies there at the end is flushed to disk and takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    yield temporary
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write one safetensors file."""
    with replaced(path) as temporary:
        save_file({name: value.detach().contiguous() for name, value in tensors.items()}, temporary, dict(metadata))
        temporary.chmod(0o644)  # safetensors makes its files private


def with_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Those whose names begin so, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
