"""What a server counts, for Prometheus. docs/guides/serving.md lists it."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST

_REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STEP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """One registry a server, so that several in a process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        here: Any = {"registry": self.registry}
        self.requests = Counter("headstart_requests", "Requests answered.", ("route", "status"), **here)
        self.request_s = Histogram(
            "headstart_request_seconds", "From a request's head to its answer.", ("route",), buckets=_REQUEST_S, **here
        )
        self.photos = Counter(
            "headstart_photos", "Photos answered: read, unreadable, dropped (nobody waits).", ("model", "outcome"), **here
        )
        self.batch = Histogram("headstart_batch_photos", "Photos in one pass of the network.", ("model",), buckets=_BATCH, **here)
        self.decode_s = Histogram("headstart_decode_seconds", "Decoding one photo.", buckets=_STEP_S, **here)
        self.network_s = Histogram("headstart_network_seconds", "One batch through the network.", ("model",), buckets=_STEP_S, **here)
        self.queue = Gauge("headstart_queue_photos", "Photos accepted and not answered yet.", **here)
        self.queue_limit = Gauge("headstart_queue_limit_photos", "How many of them there may be.", **here)
        self.held_bytes = Gauge("headstart_held_bytes", "Bodies in memory.", **here)
        self.reloads = Counter("headstart_reloads", "Models loaded again.", ("model", "result"), **here)
        self.loaded = Gauge("headstart_model_loaded_timestamp_seconds", "When a model was loaded.", ("model", "version"), **here)

    def watch(self, queue: Callable[[], float], queue_limit: int, held_bytes: Callable[[], float]) -> None:
        """Read these whenever someone asks."""
        self.queue.set_function(queue)
        self.queue_limit.set(queue_limit)
        self.held_bytes.set_function(held_bytes)

    def text(self) -> bytes:
        """Everything, in Prometheus's text format."""
        return generate_latest(self.registry)
