"""The JavaScript example in Node.js and in a browser, beside `predict`. Packages come from the npm registry, into a temporary folder."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import headstart
from browser import chromium
from headstart.data.pixels import prepare
from headstart.runs import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with onnxruntime-web and sharp beside it."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = headstart.export(run.folder, out=tmp_path_factory.mktemp("javascript") / "onnx").folder
    (folder / "package.json").write_text('{"private": true}')
    words = ["npm", "install", "--no-audit", "--no-fund", "--silent", "onnxruntime-web", "sharp"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"npm cannot install onnxruntime-web: {done.stderr[-200:]}")
    return folder


@pytest.fixture(scope="module")
def photos(exported: Path) -> list[Path]:
    """Soft pictures as photos are, two of them turned by EXIF, one PNG with transparency; inside the folder, for the browser."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(8):
        pixels = rng.integers(0, 256, (70 + 10 * i, 120 - 5 * i, 3), np.uint8)
        image = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(3)).point(lambda value: max(0, min(255, 3 * value - 256)))
        exif = Image.Exif()
        exif[0x0112] = (1, 6, 1, 3)[i % 4]
        found.append(exported / f"photo-{i}.jpg")
        image.save(found[-1], exif=exif, quality=92)
    image.putalpha(120)
    image.save(exported / "clear.png")
    return [*found, exported / "clear.png"]


def answers(model: Path, photos: list[Path]) -> list[list[tuple[str, float]]]:
    found = headstart.load(model).predict(photos, top=3, provider="onnxruntime", precision="fp32")
    return [list(one.top) for one in found]


def read(text: str) -> list[tuple[str, float]]:
    return [(label, float(p)) for label, p in re.findall(r"^\d: (.+) (\d\.\d\d)$", text, re.MULTILINE)]


def assert_alike(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    assert dict(found) == pytest.approx(dict(expected), abs=0.02)


def test_node_answers_as_predict_does(exported: Path, photos: list[Path]) -> None:
    done = subprocess.run(["node", "example.mjs", *map(str, photos)], cwd=exported, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    parts = re.split("|".join(re.escape(str(photo)) for photo in photos), done.stdout)[1:]
    for part, expected in zip(parts, answers(exported, photos), strict=True):
        assert_alike(read(part), expected)


def test_node_refuses_a_network_that_its_labels_are_not_of(exported: Path, photos: list[Path], tmp_path: Path) -> None:
    for name in ("example.mjs", "bundle.json", "model.onnx"):
        shutil.copyfile(exported / name, tmp_path / name)
    (tmp_path / "node_modules").symlink_to(exported / "node_modules")
    with (tmp_path / "model.onnx").open("ab") as file:
        file.write(b"\x0a\x00")
    done = subprocess.run(["node", "example.mjs", str(photos[0])], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "model.onnx is not the one that bundle.json was written for" in done.stderr


def test_javascript_resizes_as_pillow_does(exported: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (90, 130, 3), np.uint8)
    for interpolation in ("bilinear", "bicubic", "lanczos", "box", "hamming"):
        for crop in (0.875, 1.0):
            pre = headstart.load(exported).preprocessing
            pre = type(pre)(32, crop, interpolation, pre.mean, pre.std)
            expected = prepare(pixels, pre)
            code = (
                "import {prepare} from './example.mjs'; import {readFileSync} from 'node:fs';"
                "const picture = {width: 130, height: 90, data: readFileSync('pixels.bin'), channels: 3};"
                f"console.log(JSON.stringify(Array.from(prepare(picture, {json.dumps(pre.to_json())}))))"
            )
            (exported / "pixels.bin").write_bytes(pixels.tobytes())
            done = subprocess.run(["node", "--input-type=module", "-e", code], cwd=exported, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            found = np.array(json.loads(done.stdout), np.int64).reshape(32, 32, 3)
            assert np.abs(found - expected).max() <= 1


@pytest.fixture
def address(exported: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(exported))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_browser_answers_as_predict_does(exported: Path, photos: list[Path], address: str, tmp_path: Path) -> None:
    program = chromium()
    for photo, expected in zip(photos, answers(exported, photos), strict=True):
        words = [program, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--virtual-time-budget=60000"]
        done = subprocess.run(
            [*words, "--dump-dom", f"{address}/example.html?photo={photo.name}"], capture_output=True, text=True, timeout=300
        )
        assert 'data-done="yes"' in done.stdout, done.stdout[-500:]
        output = re.search(r"<output[^>]*>(.*?)</output>", done.stdout, re.DOTALL)
        assert_alike(read(output[1]), expected)
