"""Data sets that are known by name: made or fetched once, kept in the cache as a folder of class folders."""

import itertools
import os
import tarfile
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from headstart.data.archive import new_folder
from headstart.data.fetch import fetch_file
from headstart.errors import DataError
from headstart.progress import progress

NAMES = ("cifar10", "digits")

# Source: https://www.cs.toronto.edu/~kriz/cifar.html, "CIFAR-10 binary version"; its MD5 stands on that page.
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_FILES = {**{f"data_batch_{i}.bin": "train" for i in range(1, 6)}, "test_batch.bin": "test"}
CIFAR10_PX = 32
CIFAR10_HUB_ID = "uoft-cs/cifar10"  # the same photos on the Hugging Face Hub


def fetch(name: str, cache: Path) -> Path:
    """The folder of the data set `name`, made on first use.

    Raises: DataError: the data set cannot be fetched, or what is needed to make it is not installed.
    """
    if name == "digits":
        return digits(cache)
    url = os.environ.get("HEADSTART_CIFAR10_URL")
    return cifar10(cache, url=CIFAR10_URL if url is None else url)


def digits(cache: Path) -> Path:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 px grey, as PNG files in ten class folders. Needs no network."""
    folder = cache / "datasets" / "digits-1"
    if os.path.isdir(folder):
        return folder
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "the data set 'digits' comes with scikit-learn, which is not installed", hint="pip install 'headstart[train]'"
        ) from error
    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)  # published as 0..16
    with new_folder(folder) as temporary:
        for i, (image, label) in enumerate(zip(images, data.target, strict=True)):
            _write_png(temporary / str(label) / f"{i:04d}.png", image)
    return folder


def cifar10_folder(md5: str = CIFAR10_MD5) -> str:
    """Name of the folder that CIFAR-10 is unpacked to; by it a run's photos are known to be the published ones."""
    return f"cifar10-{md5}-1"


def cifar10(cache: Path, *, url: str = CIFAR10_URL, md5: str = CIFAR10_MD5) -> Path:
    """CIFAR-10 as PNG files: 50,000 train and 10,000 test photos of 32 x 32 px in ten classes.

    The binary version is used: the other two are pickles and MATLAB files.

    Args: url: where cifar-10-binary.tar.gz is fetched, 170 MB; md5: of that file.
    Raises: DataError: it cannot be fetched, or is not the published file.
    """
    folder = cache / "datasets" / cifar10_folder(md5)
    if os.path.isdir(folder):
        return folder
    hint = "set HEADSTART_CIFAR10_URL to a mirror or to file:///... of cifar-10-binary.tar.gz, or give a folder of your own"
    packed = fetch_file(url, cache / "downloads" / f"cifar-10-binary-{md5}.tar.gz", md5=md5, hint=hint)
    try:
        with tarfile.open(packed) as archive, new_folder(folder) as temporary:
            _write_cifar10(archive, temporary)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{packed} cannot be unpacked: {error}", hint="remove it and run the same command again") from error
    packed.unlink(missing_ok=True)
    return folder


def _write_cifar10(archive: tarfile.TarFile, folder: Path) -> None:
    left = dict(CIFAR10_FILES)
    with progress("Unpacking cifar10", None) as advance:
        for member in archive:
            file = archive.extractfile(member)
            name = os.path.basename(member.name)
            if file is None or name not in left:
                continue
            split = left.pop(name)
            for i in itertools.count():
                record = _read_record(file, name)
                if record is None:
                    break
                label, image = record
                _write_png(folder / split / CIFAR10_CLASSES[label] / f"{name.removesuffix('.bin')}_{i:05d}.png", image)
                advance(1)
    if left:
        raise DataError(f"expected {', '.join(CIFAR10_FILES)} in the archive of cifar10, found no {', '.join(left)}")


def _read_record(file: IO[bytes], name: str) -> tuple[int, np.ndarray] | None:
    """One photo: a byte of label, then the red, green and blue planes. Returns label and uint8 [32, 32, 3]."""
    n_bytes = 1 + 3 * CIFAR10_PX * CIFAR10_PX
    record = file.read(n_bytes)
    if not record:
        return None
    if len(record) != n_bytes or record[0] >= len(CIFAR10_CLASSES):
        raise DataError(f"{name} of cifar10 is damaged", hint="remove it from the cache and run the same command again")
    planes = np.frombuffer(record, np.uint8, offset=1).reshape(3, CIFAR10_PX, CIFAR10_PX)
    return record[0], planes.transpose(1, 2, 0)


def _write_png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(image)).save(path, compress_level=1)
