"""Near-duplicates: how many of 200 planted ones are found, how many pairs are found that are none, in which time and memory.

    python bench/duplicates.py [--seed N] [--sheet FILE.png]           planted into 1,000 photos of flowers
    python bench/duplicates.py --cifar N [--seed N] [--sheet FILE.png] planted into N training photos of CIFAR-10, which has its own, too

A copy is saved again (JPEG of quality 50 to 80), resized (0.5 to 1.5 times), cropped (3 to 6 % of each side), mirrored, or two of these
one after the other; the bar is 95 % of them (exit status 1 where it is missed). Pairs that were not planted are listed and, with
--sheet, drawn: whether they are duplicates is for the eye to say.
"""

import argparse
import itertools
import random
import resource
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path

from PIL import Image, ImageDraw

from headstart.data.duplicates import Pair, clusters, find_pairs
from headstart.data.scan import scan
from headstart.data.table import Photo, Table
from machine import machine, shared

N_PLANTED = 200
BAR = 0.95  # of them
KINDS = ("saved again", "resized", "cropped", "mirrored")
FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
TILE_PX = 96
MOST_TILES = 160


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=int, metavar="N", help="CIFAR-10 training photos instead of flowers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="PNG to draw the pairs to that were not planted")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        if arguments.cifar is None:
            copy_flowers(photos)
        else:
            unpack_cifar(photos, arguments.cifar, arguments.seed)
        planted = plant(photos, random.Random(arguments.seed))
        started = time.monotonic()
        table = scan(photos, cache=Path(folder) / "cache")
        print(f"{len(table):,} photos, {len(planted)} of them planted; read in {time.monotonic() - started:.1f} s")
        started, spent = time.monotonic(), time.process_time()
        pairs = find_pairs(table.photos)
        seconds, spent = time.monotonic() - started, time.process_time() - spent
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"searched in {seconds:.1f} s ({spent:.1f} s of one core); peak memory {peak:.2f} GiB, photos' facts included")
        return int(report(table, pairs, planted, arguments.sheet) < BAR)


def copy_flowers(folder: Path) -> None:
    for path in sorted((shared() / "data" / "flowers").glob("*/*.jpg")):
        to = folder / path.parent.name / path.name
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(path.read_bytes())


def unpack_cifar(folder: Path, n: int, seed: int) -> None:
    """A seeded draw of `n` training photos."""
    with tarfile.open(shared() / "data" / "cifar10.tar.xz") as archive:
        names = sorted(member.name for member in archive if member.isfile() and "/train/" in member.name)
    wanted = set(random.Random(seed).sample(names, min(n, len(names))))
    with tarfile.open(shared() / "data" / "cifar10.tar.xz") as archive:
        for member in archive:
            if member.name in wanted:
                file = archive.extractfile(member)
                assert file is not None
                to = folder.joinpath(*Path(member.name).parts[-2:])
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(file.read())


def plant(folder: Path, rng: random.Random) -> dict[str, tuple[str, str]]:
    """Write the copies. Returns: path of each -> path of its original, and what was done."""
    paths = sorted(path for path in folder.glob("*/*"))
    planted = {}
    for path in rng.sample(paths, N_PLANTED):
        done = rng.sample(KINDS, rng.choice([1, 2]))
        to = path.with_name(f"{path.stem}-copy.jpg")
        with Image.open(path) as image:
            copied, quality = image.convert("RGB"), 92
        for kind in done:
            copied = changed(copied, kind, rng)
            quality = rng.randint(50, 80) if kind == "saved again" else quality
        copied.save(to, "JPEG", quality=quality)
        planted[to.relative_to(folder).as_posix()] = path.relative_to(folder).as_posix(), " and ".join(done)
    return planted


def changed(image: Image.Image, kind: str, rng: random.Random) -> Image.Image:
    width, height = image.size
    if kind == "resized":
        by = rng.uniform(0.5, 1.5)
        return image.resize((max(1, round(width * by)), max(1, round(height * by))), rng.choice(FILTERS))
    if kind == "cropped":
        kept_width, kept_height = (round(side * (1 - rng.uniform(0.03, 0.06))) for side in (width, height))
        left, top = rng.randint(0, width - kept_width), rng.randint(0, height - kept_height)
        return image.crop((left, top, left + kept_width, top + kept_height))
    if kind == "mirrored":
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


def report(table: Table, pairs: list[Pair], planted: dict[str, tuple[str, str]], sheet: Path | None) -> float:
    """Count the planted ones by what was done to them; list and draw all other pairs, a pair for each two originals.

    Returns: the share of the planted ones that was found, 0 to 1.
    """
    number = {photo.path: i for i, photo in enumerate(table.photos)}
    together, _ = clusters(len(table), pairs)
    found = {copy for copy, (original, _) in planted.items() if together[number[copy]] == together[number[original]]}
    share = len(found) / len(planted)
    print(f"planted: {len(found)} of {len(planted)} found ({share:.1%}); the bar is {BAR:.0%}: {'reached' if share >= BAR else 'MISSED'}")
    totals, hits = Counter(done for _, done in planted.values()), Counter(planted[copy][1] for copy in found)
    for done in sorted(totals):
        print(f"    {done:<28}{hits[done]:>4} of {totals[done]}")
    others: dict[tuple[str, ...], tuple[Pair, list[Photo]]] = {}
    for pair in pairs:
        ends = [table.photos[i] for i in (pair.first, pair.second)]
        originals = tuple(sorted(planted.get(photo.path, (photo.path, ""))[0] for photo in ends))
        if originals[0] != originals[1]:
            others.setdefault(originals, (pair, ends))
    n = len({tuple(sorted(originals)) for originals in others})
    print(f"not planted: {n} pairs of originals, {n / max(1, n + len(found)):.1%} of all; look at them:")
    ranked = sorted(others.values(), key=lambda item: item[0].likeness)
    for pair, ends in itertools.islice(ranked, 40):
        print(f"    {pair.kind:<6}{pair.likeness:.3f}  {ends[0].path}  {ends[1].path}")
    if sheet is not None:
        draw(table, ranked[:MOST_TILES], sheet)
    return share


def draw(table: Table, ranked: list[tuple[Pair, list[Photo]]], sheet: Path) -> None:
    """The pairs side by side, least alike first."""
    across = 8
    page = Image.new("RGB", (across * (2 * TILE_PX + 8), max(1, -(-len(ranked) // across)) * (TILE_PX + 14)), "white")
    pen = ImageDraw.Draw(page)
    for k, (pair, ends) in enumerate(ranked):
        x, y = k % across * (2 * TILE_PX + 8), k // across * (TILE_PX + 14)
        pen.text((x, y), f"{pair.likeness:.3f} {pair.evidence:.1f}", fill="black")
        for side, photo in enumerate(ends):
            with Image.open(table.root / photo.path) as image:
                page.paste(image.convert("RGB").resize((TILE_PX, TILE_PX)), (x + side * (TILE_PX + 1), y + 12))
    page.save(sheet)
    print(f"drawn: {sheet}")


if __name__ == "__main__":
    sys.exit(main())
