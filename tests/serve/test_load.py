"""Many at once: batches, a bounded queue, reloads under load."""

import dataclasses
import hashlib
import importlib.util
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from serve_tools import Answer, Running, Serve, ask, form, photo, slow_photo

from headstart.bundle.format import Bundle, load_bundle
from headstart.exporting.forms import write_openvino
from headstart.files import write_json

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")


def _at_once(running: Running, n: int, body: bytes, path: str = "/v1/predict") -> list[Answer]:
    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(lambda _: running.ask(path, body, "image/png"), range(n)))


def _sample(running: Running, name: str, **labels: str) -> float:
    found = running.server.metrics.registry.get_sample_value(name, labels)
    assert found is not None
    return found


def test_photos_of_several_requests_share_a_batch_and_each_gets_its_own_answer(serve: Serve, bundle: Bundle) -> None:
    running = serve({"tiny": bundle}, wait_s=0.5)
    rng = np.random.default_rng(0)
    photos = [photo(tuple(map(int, rng.integers(0, 256, 3)))) for _ in range(24)]
    with ThreadPoolExecutor(24) as pool:
        found = list(pool.map(lambda one: running.ask("/v1/predict?top=1", one, "image/png").json["predictions"][0], photos))
    expected = [one.to_json() for one in bundle.predict(photos, top=1, provider="onnxruntime")]
    for one, other in zip(found, expected, strict=True):
        assert one["label"] == other["label"]
        assert abs(one["probability"] - other["probability"]) < 1e-5
    assert _sample(running, "headstart_batch_photos_count", model="tiny") < 24


def test_one_photo_alone_waits_for_no_other(serve: Serve, bundle: Bundle) -> None:
    running = serve({"tiny": bundle}, wait_s=30.0)
    assert running.ask("/v1/predict", photo()).seconds < 15


def test_a_full_queue_answers_429_at_once_and_everything_accepted_is_answered(serve: Serve, bundle: Bundle) -> None:
    running = serve({"tiny": bundle}, queue=2, max_photos=2)
    found = _at_once(running, 16, slow_photo(3000))
    statuses = [one.status for one in found]
    assert set(statuses) == {200, 429}
    refused = [one for one in found if one.status == 429]
    assert all(int(one.headers["retry-after"]) >= 1 and one.json["error"] == "the server is busy" for one in refused)
    assert _sample(running, "headstart_photos_total", model="tiny", outcome="read") == statuses.count(200)
    assert running.ask("/v1/predict", *form(photo(), photo())).status == 200, "the room is given back"


def test_bodies_that_are_too_many_together_answer_429(serve: Serve, bundle: Bundle) -> None:
    running = serve({"tiny": bundle})
    held = running.server.held
    held.n_bytes = running.server.settings.max_held_bytes  # as many large requests would
    found = running.ask("/v1/predict", photo())
    assert (found.status, found.headers["retry-after"]) == (429, "1")
    held.n_bytes = 0
    assert running.ask("/v1/predict", photo()).status == 200


def test_heat_maps_that_are_too_many_answer_429(serve: Serve, bundle: Bundle) -> None:
    running = serve({"tiny": bundle})
    found = _at_once(running, 12, photo(), "/v1/explain")
    assert {one.status for one in found} <= {200, 429}
    assert [one.status for one in found].count(200) >= 4


class _Asking:
    """Requests one after the other from several threads, until told to stop."""

    def __init__(self, port: int, n_threads: int = 3) -> None:
        self.answers: list[Answer] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(port,)) for _ in range(n_threads)]
        for thread in self._threads:
            thread.start()

    def _ask(self, port: int) -> None:
        while not self._stop.is_set():
            self.answers.append(ask(port, "/v1/predict", photo(), "image/png"))

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def _until(condition: object, what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_a_model_whose_files_change_answers_anew_and_no_request_is_lost(serve: Serve, folder: Path, other_built: Path) -> None:
    running = serve({"tiny": load_bundle(folder)}, watch_s=0.05)
    before = running.ask("/v1/models").json["models"][0]["version"]
    asking = _Asking(running.port)
    try:
        for name in ("model.onnx", "bundle.json"):  # in place, one after the other, as a copy does
            shutil.copyfile(other_built / name, folder / name)
        _until(lambda: running.ask("/v1/models").json["models"][0]["version"] != before, "the model was not loaded again")
        after = running.ask("/v1/models").json["models"][0]["version"]
        n = len(asking.answers)
        _until(lambda: len(asking.answers) > n + 10, "no more answers")
    finally:
        asking.close()
    assert {one.status for one in asking.answers} == {200}
    assert {one.json["version"] for one in asking.answers} == {before, after}
    expected = load_bundle(other_built).predict(photo(), provider="onnxruntime")
    assert asking.answers[-1].json["predictions"][0]["probability"] == expected.probability
    assert _sample(running, "headstart_reloads_total", model="tiny", result="done") == 1


def _in_openvinos_form(built: Path, folder: Path) -> Path:
    """A bundle at `folder` that is `built` with model.xml and model.bin in place of model.onnx."""
    record = load_bundle(built).record
    folder.mkdir()
    write_openvino(built / "model.onnx", folder, record, None)
    files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    write_json(folder / "bundle.json", dataclasses.replace(record, files=files).to_json())
    return folder


@needs_openvino
def test_a_model_of_several_files_is_loaded_again_once_the_last_is_there(
    serve: Serve, built: Path, other_built: Path, tmp_path: Path
) -> None:
    folder, other = _in_openvinos_form(built, tmp_path / "a"), _in_openvinos_form(other_built, tmp_path / "b")
    running = serve({"tiny": load_bundle(folder)}, watch_s=0.05, provider="openvino")
    before = running.ask("/v1/predict", photo()).json
    shutil.copyfile(other / "bundle.json", folder / "bundle.json")
    _until(lambda: _failed(running), "never tried")
    assert running.ask("/v1/predict", photo()).json == before
    for name in ("model.xml", "model.bin"):
        shutil.copyfile(other / name, folder / name)
    _until(lambda: running.ask("/v1/models").json["models"][0]["version"] != before["version"], "the model was not loaded again")
    expected = load_bundle(other).predict(photo(), provider="openvino")
    assert running.ask("/v1/predict", photo()).json["predictions"][0]["probability"] == expected.probability


def _failed(running: Running) -> float:
    """How often the model `tiny` could not be loaded again."""
    return running.server.metrics.registry.get_sample_value("headstart_reloads_total", {"model": "tiny", "result": "failed"}) or 0.0


def test_a_damaged_model_does_not_replace_the_one_that_runs(serve: Serve, folder: Path, other_built: Path) -> None:
    running = serve({"tiny": load_bundle(folder)}, watch_s=0.05)
    before = running.ask("/v1/models").json
    (folder / "model.onnx").write_bytes(b"half a file")
    _until(lambda: _failed(running), "never tried")
    assert running.ask("/v1/models").json == before
    assert running.ask("/v1/predict", photo()).status == 200
    shutil.rmtree(folder)
    time.sleep(0.2)
    assert running.ask("/v1/predict", photo()).status == 200
    shutil.copytree(other_built, folder)
    _until(lambda: running.ask("/v1/models").json != before, "the repaired model was not loaded")
