"""Photos of many requests through one network: decoded in threads, gathered into batches, answered in the event loop.

What the event loop does for a photo is counting. It accepts photos up to a limit and refuses the rest at once; everything that takes
time happens in threads, in Pillow's and the runtime's own code, which leave Python's lock to others.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from headstart.bundle.predict import Prediction, Read, predictions, read
from headstart.features.runtime import cores
from headstart.serve.metrics import Metrics
from headstart.serve.models import Loaded
from headstart.serve.refusals import busy
from headstart.serve.settings import Settings

log = logging.getLogger("headstart.serve")

_NETWORK_THREADS = 2  # while one hands answers over and takes the next photos, the other keeps the network busy
_RATE_S = 10.0  # how far back the rate looks that Retry-After is reckoned from


@dataclass(eq=False)
class Call:
    """The photos of one request, on their way."""

    model: Loaded
    top: int
    answered: "asyncio.Future[list[Prediction]]"
    results: list[Prediction | None]
    n_open: int
    given_up: bool = False
    """nobody waits for the answer any more; what has not begun is dropped"""


@dataclass(eq=False)
class _Job:
    call: Call
    index: int
    photo: bytes
    seen: Read = field(default_factory=lambda: Read(""))


Answer = tuple[_Job, Prediction | BaseException]


class Batcher:
    """Made and used in an event loop; `close` it when no call is left."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._loop = asyncio.get_running_loop()
        self.n_waiting = 0
        """photos accepted and not answered; changed by the event loop alone"""
        self._rate, self._rated_at = 0.0, time.monotonic()
        self._more = threading.Condition()  # guards the three below
        self._ready: deque[_Job] = deque()  # decoded, oldest first
        self._n_coming = 0  # accepted and not decoded
        self._closed = False
        self._decoders = ThreadPoolExecutor(cores(), thread_name_prefix="headstart-decode")
        self._networks = [
            threading.Thread(target=self._answer_batches, name=f"headstart-network-{i}", daemon=True) for i in range(_NETWORK_THREADS)
        ]
        for thread in self._networks:
            thread.start()

    @property
    def alive(self) -> bool:
        return not self._closed and all(thread.is_alive() for thread in self._networks)

    def check_room(self, n_photos: int = 1) -> None:
        """Raises: Refused: 429, that many photos more than the queue holds."""
        if self.n_waiting + n_photos > self._settings.queue:
            raise busy(self.retry_after_s())

    def submit(self, model: Loaded, photos: Sequence[bytes], top: int) -> Call:
        """Accept photos; `answered` of the result has a Prediction for each, in order.

        Raises: Refused: 429, as `check_room`.
        """
        self.check_room(len(photos))
        call = Call(model, top, self._loop.create_future(), [None] * len(photos), len(photos))
        self.n_waiting += len(photos)
        with self._more:
            self._n_coming += len(photos)
        for index, photo in enumerate(photos):
            self._decoders.submit(self._decode, _Job(call, index, photo))
        return call

    def retry_after_s(self) -> int:
        """Whole seconds until what waits now should be answered, at the rate of the last seconds; 1 to 60."""
        rate = self._rate * math.exp((self._rated_at - time.monotonic()) / _RATE_S)
        return max(1, min(60, math.ceil(self.n_waiting / rate))) if rate > 0 else 1

    def close(self) -> None:
        """End the threads. Photos that are still waiting are not answered."""
        with self._more:
            self._closed = True
            self._more.notify_all()
        self._decoders.shutdown(wait=False, cancel_futures=True)
        for thread in self._networks:
            thread.join(timeout=5)

    def _decode(self, job: _Job) -> None:
        """In a decoding thread: bytes to pixels, or to the reason why not."""
        answer: Prediction | BaseException | None = None
        if job.call.given_up:
            answer = Prediction("", reason="nobody waits for it")
        else:
            started = time.monotonic()
            try:
                job.seen = read(job.photo, job.call.model.bundle.preprocessing, max_pixels=self._settings.max_pixels)
                answer = None if job.seen.reason is None else Prediction("", reason=job.seen.reason)
            except Exception as error:  # a bug: the request fails, the thread lives on
                answer = error
            self._metrics.decode_s.observe(time.monotonic() - started)
        job.photo = b""
        with self._more:
            self._n_coming -= 1
            if answer is None:
                self._ready.append(job)
            self._more.notify_all()
        if answer is not None:
            self._hand_over([(job, answer)])

    def _answer_batches(self) -> None:
        """In a network thread: until closed."""
        while batch := self._next_batch():
            try:
                answers = self._answers(batch)
            except Exception as error:  # the requests of this batch fail, the thread lives on
                answers = [(job, error) for job in batch]
            self._hand_over(answers)

    def _next_batch(self) -> list[_Job]:
        """The oldest decoded photo, and those for the same model that are or soon will be decoded; none once closed."""
        with self._more:
            while not self._ready and not self._closed:
                self._more.wait()
            if self._closed:
                return []
            deadline = time.monotonic() + self._settings.wait_s
            batch = [self._ready.popleft()]
            model = batch[0].call.model
            while True:
                self._take(model, batch)
                left_s = deadline - time.monotonic()
                if len(batch) == model.session.batch_size or self._n_coming == 0 or left_s <= 0 or self._closed:
                    return batch
                self._more.wait(left_s)

    def _take(self, model: Loaded, batch: list[_Job]) -> None:
        """Move the photos of `model` that are decoded into the batch, as many as fit. The others keep their order."""
        others: list[_Job] = []
        while self._ready and len(batch) < model.session.batch_size:
            job = self._ready.popleft()
            (batch if job.call.model is model else others).append(job)
        self._ready.extendleft(reversed(others))

    def _answers(self, batch: list[_Job]) -> list[Answer]:
        model, started = batch[0].call.model, time.monotonic()
        logits = model.session.run(np.stack([job.seen.pixels for job in batch if job.seen.pixels is not None]))
        self._metrics.network_s.labels(model.name).observe(time.monotonic() - started)
        self._metrics.batch.labels(model.name).observe(len(batch))
        found = predictions(model.bundle, [Read("") for _ in batch], logits, max(job.call.top for job in batch))
        return [(job, _shortened(one, job.call.top)) for job, one in zip(batch, found, strict=True)]

    def _hand_over(self, answers: list[Answer]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, answers)
        except RuntimeError:  # the loop is closed: the server was told twice to stop
            log.warning("photos left unanswered", extra={"facts": {"photos": len(answers)}})

    def _deliver(self, answers: list[Answer]) -> None:
        """In the event loop."""
        self.n_waiting -= len(answers)
        now = time.monotonic()
        self._rate = self._rate * math.exp((self._rated_at - now) / _RATE_S) + len(answers) / _RATE_S
        self._rated_at = now
        for job, answer in answers:
            call = job.call
            self._metrics.photos.labels(call.model.name, _outcome(call, answer)).inc()
            if call.answered.done():
                continue
            if isinstance(answer, BaseException):
                call.answered.set_exception(answer)
                continue
            call.results[job.index] = answer
            call.n_open -= 1
            if call.n_open == 0:
                call.answered.set_result([one for one in call.results if one is not None])


def _shortened(prediction: Prediction, top: int) -> Prediction:
    """The first `top` answers; a batch is computed with as many as any of its requests wants."""
    if len(prediction.top) <= top:
        return prediction
    return replace(prediction, top=prediction.top[:top], top_ids=prediction.top_ids[:top])


def _outcome(call: Call, answer: Prediction | BaseException) -> str:
    if isinstance(answer, BaseException):
        return "failed"
    if call.given_up:
        return "dropped"
    return "read" if answer.reason is None else "unreadable"
