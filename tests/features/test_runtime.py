import importlib.metadata
import importlib.util
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from headstart.errors import ConfigError
from headstart.features import runtime
from headstart.features.onnx import to_onnx
from headstart.features.runtime import Session, open_session

PX = 96  # OpenVINO then takes 5 images a request, so that batches are cut and padded

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
PROVIDERS = ["onnxruntime", pytest.param("openvino", marks=needs_openvino)]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 5, stride=4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images.permute(0, 3, 1, 2).float() / 255)


@pytest.fixture(scope="module")
def net() -> Net:
    return Net().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def file(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    to_onnx(net, path, px=PX)
    return path


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, PX, PX, 3), np.uint8)


def opened(file: Path, provider: str) -> Session:
    return open_session(file, provider=provider, precision="fp32", threads=1)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("n", [0, 1, 4, 5, 6, 23])
def test_every_batch_size_gives_the_rows_of_pytorch(net: Net, file: Path, provider: str, n: int) -> None:
    session = opened(file, provider)
    rows = session.run(images(n))
    assert rows.dtype == np.float32
    assert rows.shape == (n, *session.output_shape) == (n, 6, 23, 23)
    np.testing.assert_allclose(rows, net(torch.from_numpy(images(n))).numpy(), atol=1e-5)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_map_gives_batches_in_order_with_empty_and_ragged_ones_among_them(file: Path, provider: str) -> None:
    session = opened(file, provider)
    sizes = [7, 0, 1, 12, 5, 0, 3, 0]
    batches = [images(size, seed) for seed, size in enumerate(sizes)]
    for batch, rows in zip(batches, session.map(iter(batches)), strict=True):
        np.testing.assert_allclose(rows, session.run(batch), atol=1e-6)


@needs_openvino
def test_a_row_does_not_depend_on_its_batch(file: Path) -> None:
    session = opened(file, "openvino")
    together = session.run(images(11))
    np.testing.assert_allclose(np.concatenate([session.run(one[None]) for one in images(11)]), together, atol=1e-6)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_map_fetches_few_batches_ahead(file: Path, provider: str) -> None:
    fetched = 0

    def batches() -> Iterator[np.ndarray]:
        nonlocal fetched
        for seed in range(40):
            fetched += 1
            yield images(10, seed)

    for n_done, _ in enumerate(opened(file, provider).map(batches())):
        assert fetched - n_done <= 4
    assert fetched == 40


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_session_serves_several_threads_and_survives_an_abandoned_map(file: Path, provider: str) -> None:
    session = opened(file, provider)
    next(session.map(iter([images(9)] * 3)))
    expected = [session.run(images(9, seed)) for seed in range(4)]
    results: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda seed=seed: results.__setitem__(seed, session.run(images(9, seed)))) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        np.testing.assert_allclose(results[seed], expected[seed], atol=1e-6)


@needs_openvino
def test_answers_do_not_change_with_the_files_that_openvinos_form_was_read_from(file: Path, tmp_path: Path) -> None:
    openvino = runtime.import_openvino()
    openvino.save_model(openvino.Core().read_model(file), tmp_path / "net.xml", compress_to_fp16=False)
    session = opened(tmp_path / "net.xml", "openvino")
    expected = session.run(images(6))
    with (tmp_path / "net.bin").open("r+b") as weights:  # in place, as a copy does
        weights.write(bytes((tmp_path / "net.bin").stat().st_size))
        weights.flush()
        np.testing.assert_array_equal(session.run(images(6)), expected)
        weights.truncate(0)
    np.testing.assert_array_equal(session.run(images(6)), expected)


@needs_openvino
def test_bf16_agrees_with_fp32_within_a_hundredth(file: Path) -> None:
    if not runtime.bf16_is_fast():
        pytest.skip("this CPU has no bf16")
    session = open_session(file, provider="openvino", precision="bf16", threads=1)
    assert session.precision == "bf16"
    exact = opened(file, "onnxruntime").run(images(8))
    assert np.abs(session.run(images(8)) - exact).max() < 0.02 * np.abs(exact).max()


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("batch", "found"), [(np.zeros((1, PX, PX, 3), np.float32), "float32"), (np.zeros((1, 8, 8, 3), np.uint8), r"\[1, 8, 8, 3\]")]
)
def test_images_of_another_kind_are_refused(file: Path, provider: str, batch: np.ndarray, found: str) -> None:
    with pytest.raises(ValueError, match=rf"expected images as uint8 \['n', 96, 96, 3\], found .*{found}"):
        opened(file, provider).run(batch)


def test_the_engine_names_provider_and_version(file: Path) -> None:
    assert opened(file, "onnxruntime").engine == f"onnxruntime {importlib.metadata.version('onnxruntime')}"


def test_names_are_checked(file: Path) -> None:
    with pytest.raises(ConfigError, match="expected a provider of auto, onnxruntime, openvino, found 'openvinno'") as caught:
        open_session(file, provider="openvinno")
    assert caught.value.hint == "did you mean 'openvino'?"
    with pytest.raises(ConfigError, match="expected a precision of auto, fp32, bf16, found 'fp16'"):
        open_session(file, precision="fp16")
    with pytest.raises(ConfigError, match="onnxruntime does not compute in bf16"):
        open_session(file, provider="onnxruntime", precision="bf16")


def test_auto_does_without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    assert runtime.resolve("auto", "auto") == ("onnxruntime", "fp32")
    with pytest.raises(ConfigError, match="'openvino' is not installed"):
        runtime.resolve("openvino", "auto")


@needs_openvino
def test_openvino_runs_without_its_telemetry(file: Path) -> None:
    code = (
        "import sys, socket\n"
        "socket.getaddrinfo = socket.socket.connect = lambda *a, **k: sys.exit('network used')\n"
        "from pathlib import Path\n"
        "from headstart.features.runtime import open_session\n"
        f"open_session(Path({str(file)!r}), provider='openvino')\n"
        "print([name for name in sys.modules if 'telemetry' in name and 'ovc' not in name])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
