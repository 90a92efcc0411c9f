"""Work shared out among the threads of a pool, each with one thread of PyTorch's own."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Entry = TypeVar("Entry")
Answer = TypeVar("Answer")


def share(pool: ThreadPoolExecutor, work: Callable[[Entry], Answer], entries: Iterable[Entry]) -> list[Answer]:
    """`work` on each entry, without gradients unless it asks for them; the answers in the entries' order."""

    def alone(entry: Entry) -> Answer:
        torch.set_num_threads(1)  # a setting of the calling thread
        with torch.no_grad():  # so is this
            return work(entry)

    return list(pool.map(alone, entries))
