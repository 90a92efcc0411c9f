"""Reading many files ahead of their use: in threads, in order, with bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int) -> Iterator[Result]:
    """`map(function, items)` with up to `ahead` results being made before they are asked for.

    Pillow and hashlib release the GIL, so threads decode on all cores, and nothing is copied between processes.

    Args:
        threads: how many work at once (>= 1).
        ahead: how many results may wait (>= 1); with it, memory is bounded however long `items` is.

    Yields: results in the order of `items`. What `function` raises is raised here, at its item's turn.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="headstart-read")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also on Ctrl-C, or when the caller stops early: what has not started never will
        pool.shutdown(wait=True, cancel_futures=True)
