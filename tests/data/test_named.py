import hashlib
import io
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from headstart.data import named
from headstart.data.folders import list_folder
from headstart.errors import DataError


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def small_cifar10(path: Path, *, per_file: int = 3, leave_out: str = "", cut: int = 0) -> dict[str, list[tuple[int, np.ndarray]]]:
    """An archive of the published form with few photos. Returns what is in it."""
    rng = np.random.default_rng(0)
    contents = {}
    with tarfile.open(path, "w:gz") as packed:
        packed.addfile(tarfile.TarInfo("cifar-10-batches-bin/readme.html"))
        for name in named.CIFAR10_FILES:
            if name == leave_out:
                continue
            records = [(int(rng.integers(10)), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(per_file)]
            contents[name] = records
            data = b"".join(bytes([label]) + image.transpose(2, 0, 1).tobytes() for label, image in records)
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(data) - cut
            packed.addfile(info, io.BytesIO(data[: len(data) - cut]))
    return contents


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_digits_are_the_published_pictures_in_class_folders(tmp_path):
    folder = named.fetch("digits", tmp_path)
    data = load_digits()
    assert sorted(path.name for path in folder.iterdir()) == list("0123456789")
    for i in (0, 1, 1796):
        with Image.open(folder / str(data.target[i]) / f"{i:04d}.png") as image:
            assert np.array_equal(np.asarray(image), np.round(data.images[i] * 255 / 16))
    before = folder.stat().st_mtime_ns
    assert named.fetch("digits", tmp_path) == folder
    assert folder.stat().st_mtime_ns == before


def test_cifar10_from_a_server_becomes_folders_of_the_same_pixels(tmp_path):
    (tmp_path / "www").mkdir()
    packed = tmp_path / "www" / "cifar-10-binary.tar.gz"
    contents = small_cifar10(packed)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(tmp_path / "www"))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/{packed.name}"
        folder = named.cifar10(tmp_path / "cache", url=url, md5=md5(packed))
        server.shutdown()
        thread.join()
    found = list_folder(folder, "cifar10")
    assert len(found.candidates) == 18
    assert {c.split for c in found.candidates} == {"train", "test"}
    for name, records in contents.items():
        for i, (label, image) in enumerate(records):
            path = folder / named.CIFAR10_FILES[name] / named.CIFAR10_CLASSES[label] / f"{name[:-4]}_{i:05d}.png"
            with Image.open(path) as stored:
                assert np.array_equal(np.asarray(stored), image)
    assert named.cifar10(tmp_path / "cache", url="http://nowhere.invalid", md5=md5(packed)) == folder


def test_the_mirror_of_the_environment_is_used_and_must_be_the_published_file(tmp_path, monkeypatch):
    small_cifar10(tmp_path / "mirror.tar.gz")
    monkeypatch.setenv("HEADSTART_CIFAR10_URL", (tmp_path / "mirror.tar.gz").as_uri())
    with pytest.raises(
        DataError, match=rf"mirror\.tar\.gz is not the published file: expected MD5 {named.CIFAR10_MD5}.*\nhint: set HEADSTART_CIFAR10_URL"
    ):
        named.fetch("cifar10", tmp_path / "cache")


def test_an_incomplete_archive_leaves_no_folder(tmp_path):
    packed = tmp_path / "x.tar.gz"
    small_cifar10(packed, leave_out="data_batch_4.bin")
    with pytest.raises(DataError, match=r"found no data_batch_4\.bin"):
        named.cifar10(tmp_path / "cache", url=packed.as_uri(), md5=md5(packed))
    small_cifar10(packed, cut=5)
    with pytest.raises(DataError, match=r"data_batch_1\.bin of cifar10 is damaged"):
        named.cifar10(tmp_path / "cache", url=packed.as_uri(), md5=md5(packed))
    assert list((tmp_path / "cache" / "datasets").iterdir()) == []
