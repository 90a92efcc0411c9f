"""Tiny ImageNet as its sheets hold it: one AVIF file per class, 64 px tiles in rows, read once into a memory-mapped array."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pretrain.files import replaced

TILE_PX = 64
VAL_PER_CLASS = 50
"""Photos of each class that training never sees. The original's own validation photos are not in the sheets."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Photos:
    """All photos, class after class in the order of their synset ids.

    Fields: pixels: uint8 [n, px, px, 3] RGB, memory-mapped. labels: int64 [n]. synsets, names: one per class.
    train, val: int64 positions, disjoint, together all n.
    """

    pixels: Pixels
    labels: npt.NDArray[np.int64]
    synsets: tuple[str, ...]
    names: tuple[str, ...]
    train: npt.NDArray[np.int64]
    val: npt.NDArray[np.int64]


def read_photos(data: Path, work: Path, *, tile_px: int = TILE_PX, val_per_class: int = VAL_PER_CLASS) -> Photos:
    """Read the sheets under `data/train`, or the array that an earlier call left under `work`.

    The array is taken again only while the sheets' names and sizes are those it was made from. Which photos are held out depends
    on the synset id alone, so that every run, seed and later script holds out the same ones.

    Raises: FileNotFoundError: no sheets under `data/train`. ValueError: a sheet is not made of whole tiles.
    """
    sheets = sorted((data / "train").glob("*.avif"))
    if not sheets:
        raise FileNotFoundError(f"expected sheets <synset>.avif under {data / 'train'}, found none")
    facts = {"tile_px": tile_px, "sheets": [[sheet.name, sheet.stat().st_size] for sheet in sheets]}
    cached, index = work / "photos.npy", work / "photos.json"
    if not (cached.exists() and index.exists() and json.loads(index.read_text("utf-8"))["facts"] == facts):
        counts = _cut_all(sheets, cached, tile_px)
        with replaced(index) as temporary:
            temporary.write_text(json.dumps({"facts": facts, "counts": counts}), "utf-8")
    counts = json.loads(index.read_text("utf-8"))["counts"]
    pixels = np.load(cached, mmap_mode="r")
    synsets = tuple(sheet.stem for sheet in sheets)
    train, val = _hold_out(synsets, counts, val_per_class)
    return Photos(
        pixels=pixels,
        labels=np.repeat(np.arange(len(sheets)), counts),
        synsets=synsets,
        names=_names(data, synsets),
        train=train,
        val=val,
    )


def cut_sheet(sheet: Path, tile_px: int) -> Pixels:
    """The tiles of one sheet, row by row: uint8 [n, tile_px, tile_px, 3]."""
    with Image.open(sheet) as image:
        pixels = np.asarray(image.convert("RGB"))
    h, w, _ = pixels.shape
    if h % tile_px or w % tile_px:
        raise ValueError(f"{sheet}: expected whole tiles of {tile_px} px, found {w} x {h} px")
    tiles = pixels.reshape(h // tile_px, tile_px, w // tile_px, tile_px, 3).swapaxes(1, 2)
    return tiles.reshape(-1, tile_px, tile_px, 3)


def _cut_all(sheets: list[Path], cached: Path, tile_px: int) -> list[int]:
    parts = [cut_sheet(sheet, tile_px) for sheet in sheets]
    with replaced(cached) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate(parts))
    return [len(part) for part in parts]


def _hold_out(synsets: tuple[str, ...], counts: list[int], val_per_class: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    train, val = [], []
    start = 0
    for synset, n in zip(synsets, counts, strict=True):
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(synset.encode()).digest()[:8], "little"))
        order = start + rng.permutation(n)
        val.append(np.sort(order[:val_per_class]))
        train.append(np.sort(order[val_per_class:]))
        start += n
    return np.concatenate(train), np.concatenate(val)


def _names(data: Path, synsets: tuple[str, ...]) -> tuple[str, ...]:
    table = data / "classes.tsv"
    known = dict(line.split("\t", 1) for line in table.read_text("utf-8").splitlines() if "\t" in line) if table.exists() else {}
    return tuple(known.get(synset, synset).strip() for synset in synsets)
