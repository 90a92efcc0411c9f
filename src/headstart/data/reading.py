"""Reading many files ahead of their use: in threads, in order, with bounded memory. And reading one that must not have changed."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from headstart.errors import DataError, safe_text

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


def read_unchanged(path: Path, sha256: str) -> bytes:
    """A photo's bytes, which must still be the ones that were scanned: what is known of it is known by them.

    Raises: DataError: the file vanished or its content is another.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {safe_text(str(path))} any more: {error.strerror}", hint="run the same command again") from error
    if hashlib.sha256(source).hexdigest() != sha256:
        raise DataError(f"{safe_text(str(path))} changed while the run was reading it", hint="run the same command again")
    return source
