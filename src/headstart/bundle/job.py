"""Predictions of many photos, to a file or a folder of files, as a job that a kill cannot undo. No PyTorch.

predict_to(load_bundle("runs/a"), Paths(find(["new/"])), Path("answers.parquet"))

While it runs, finished answers lie in parts beside the file, or in the folder of the files; whoever is killed, at whatever moment, has
lost the seconds since the last part. The same call goes on from there and leaves the same bytes as one that nothing stopped:
docs/formats.md, "A job's parts".
"""

import contextlib
import itertools
import json
import os
import re
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.bundle.format import Bundle
from headstart.bundle.joining import join
from headstart.bundle.listing import Paths
from headstart.bundle.predict import Prediction, counted, open_engine, settle, stream
from headstart.bundle.writers import check_format, write
from headstart.data.table import some
from headstart.errors import ConfigError, DataError, safe_text
from headstart.files import cannot_write, only_here, write_json
from headstart.progress import progress, say

__all__ = ["FORMATS", "predict_to"]

FORMATS = ("csv", "json", "parquet")

_PART_PHOTOS = 4096  # the most in a part
_PART_S = 10.0  # or what is done in this time: as much may be lost
_FEW = 20  # photos, below which there is no bar to look at
_RECORD, _LOCK = "job.json", "lock"
# All that a job makes in its folder, `files.atomic_file`'s temporaries included. What is called otherwise is the user's, and stays.
_OWN_NAMES = re.compile(r"lock|job\.json|unnamed|joined|\.(job\.json|unnamed|joined)\..+\.part|\d{10,}-\d{10,}\.(csv|json|parquet)")
_SHARDS_RECORD, _SHARDS_PARTS = "_job.json", "_parts"  # readers of folders of Parquet or CSV files pass over names that begin so


def predict_to(
    bundle: Bundle,
    photos: Paths,
    out: Path,
    *,
    format: str | None = None,
    top: int = 5,
    provider: str = "auto",
    precision: str = "auto",
    shard: int | None = None,
) -> None:
    """Answer all photos and leave the answers at `out`; an unfinished job of the same kind is continued.

    Args:
        format: `csv`, `json` or `parquet`; by default what the name of `out` ends in.
        top, provider, precision: as `stream`; `auto` goes by the number of all photos, also where few are left to do.
        shard: photos a file (>= 1): `out` is then a folder of files 00000, 00001, ..., each there once it is complete, and `_job.json`,
            which is there once all are.

    Raises:
        ConfigError: no such format, provider or precision; `out` holds something else; an unfinished job there is of another model, of
            other photos or other options, or another process is working on it.
        BundleError: the network does not run here.
        HeadstartError: what is written cannot be written.
    """
    format = check_format(format_of(out) if format is None else format, FORMATS)
    if not len(photos):
        raise DataError("no photos to predict")
    job = _Job(out, _parts_folder(out, shard), format, len(photos), shard)
    _check_place(job)
    session = open_engine(bundle, *settle(bundle, len(photos), provider, precision))
    record = {
        "format": 1,
        "model": bundle.digest,
        "photos": {"n": len(photos), "sha256": photos.sha256},
        "options": {"format": format, "top": top, "shard": shard, "engine": session.engine, "precision": session.precision},
    }
    with _claimed(job, record):
        done = job.tidy()
        # Whole batches again: an answer may depend, in its last digits, on the others of its batch.
        start = done - done % session.batch_size
        answers = stream(bundle, itertools.islice(photos, start, None), top=top, provider=session.provider, precision=session.precision)
        with contextlib.closing(answers):  # type: ignore[type-var]
            for _ in itertools.islice(answers, done - start):
                pass
            _work(job, answers, done, top)
        job.finish(record)


@dataclass(frozen=True)
class _Job:
    """Where a job's files are."""

    out: Path
    folder: Path
    format: str
    n: int
    shard: int | None

    def ends(self) -> Iterator[tuple[int, Path]]:
        """For each file to be made: how many photos it and those before it have, and where it goes."""
        size = self.n if self.shard is None else self.shard
        for i, start in enumerate(range(0, self.n, size)):
            yield min(start + size, self.n), self.out if self.shard is None else self.out / f"{i:05d}.{self.format}"

    def parts(self) -> list[tuple[int, int, Path]]:
        """Parts that are there: first photo, the one after the last, file; in order."""
        found = []
        for path in self.folder.glob(f"*-*.{self.format}"):
            if _is_own(path):
                first, _, last = path.stem.partition("-")
                found.append((int(first), int(last), path))
        return sorted(found)

    def tidy(self) -> int:
        """Remove what was being written, and parts that are in a finished file already or behind a gap. Returns: photos that are done."""
        kept = {_RECORD, _LOCK, *(path.name for _, _, path in self.parts())}
        self.clear(kept)
        done = 0
        if self.shard is not None:
            for end, path in self.ends():
                if not path.exists():
                    break
                done = end
        for first, last, path in self.parts():
            if first == done:
                done = last
            else:
                path.unlink()
        return done

    def join(self, start: int, end: int, target: Path) -> None:
        """Make a file of the parts that hold photos `start` to `end`, which are all there."""
        paths = [path for first, last, path in self.parts() if start <= first and last <= end]
        joined = self.folder / "joined"
        join(paths, joined, self.format)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(joined, target)
        except OSError as error:
            raise cannot_write(target, error) from error
        if self.shard is not None:
            for path in paths:
                path.unlink()

    def finish(self, record: dict[str, Any]) -> None:
        """Note that all files are there, and remove what only an unfinished job needs."""
        if self.shard is not None:
            write_json(self.out / _SHARDS_RECORD, record)
        (self.folder / _RECORD).unlink()  # first: without it the rest is nobody's
        self.clear({_LOCK})

    def clear(self, kept: Collection[str]) -> None:
        """Remove what a job made in the job's folder but for the names in `kept`; nothing else."""
        for path in self.folder.iterdir():
            if path.name not in kept and _is_own(path):
                path.unlink()


def _work(job: _Job, answers: Iterator[Prediction], done: int, top: int) -> None:
    """Write the answers behind the first `done` as parts, and join these where a file is complete."""
    bar = progress("Predicting", job.n, done=done) if job.n >= _FEW else contextlib.nullcontext(lambda n: None)
    try:
        with bar as advance:
            told = counted(answers, advance)
            start = 0
            for end, target in job.ends():
                while done < end:
                    done = _write_part(job, told, done, end, top)
                if end > start and (job.shard is None or not target.exists()):
                    job.join(start, end, target)
                start = end
    except KeyboardInterrupt:
        say(f"\n{done:,} of {job.n:,} answers are kept in {safe_text(str(job.folder))}; the same command continues")
        raise


def _write_part(job: _Job, answers: Iterator[Prediction], done: int, end: int, top: int) -> int:
    """Write the next part. Returns: how many photos are done with it."""
    n = 0
    until = time.monotonic() + _PART_S

    def part() -> Iterator[Prediction]:
        nonlocal n
        for one in itertools.islice(answers, min(_PART_PHOTOS, end - done)):
            n += 1
            yield one
            if time.monotonic() >= until:
                return

    unnamed = job.folder / "unnamed"
    write(part(), format=job.format, out=unnamed, top=top)
    os.replace(unnamed, job.folder / f"{done:010d}-{done + n:010d}.{job.format}")
    return done + n


def format_of(out: Path) -> str:
    """The format that a file's name ends in. Raises: ConfigError: in none."""
    ending = out.suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise ConfigError(
            f"expected a file whose name ends in {', '.join(f'.{name}' for name in FORMATS)}, found {safe_text(str(out))}",
            hint="or name the format",
        )
    return ending


def _parts_folder(out: Path, shard: int | None) -> Path:
    """Where parts lie: on the disk of what is made of them, so that a rename puts it in its place.

    Raises: ConfigError: `out` is a folder and should be a file.
    """
    if shard is not None:
        return out / _SHARDS_PARTS  # `out` may be another disk's, mounted or linked
    if out.is_dir():
        shown = safe_text(str(out))
        raise ConfigError(f"expected a file for the answers, found a folder: {shown}", hint="choose another, or ask for shards")
    return out.with_name(f"{out.name}.parts")


def _is_own(path: Path) -> bool:
    return _OWN_NAMES.fullmatch(path.name) is not None and path.is_file()


def _check_place(job: _Job) -> None:
    """Raises: ConfigError: what is at the job's places is not to be replaced or continued."""
    out, shard = job.out, job.shard
    shown = safe_text(str(out))
    is_unfinished = (job.folder / _RECORD).exists()
    others = [] if is_unfinished or not job.folder.is_dir() else [path for path in job.folder.iterdir() if not _is_own(path)]
    if others:
        names = some(sorted(safe_text(path.name) for path in others))
        raise ConfigError(
            f"expected no folder {safe_text(str(job.folder))}, or one with an unfinished job, found one with {names}",
            hint="answers are collected there: choose another --out, or rename that folder",
        )
    if shard is None:
        return
    if shard < 1:
        raise ConfigError(f"expected at least 1 photo a shard, found {shard}")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"expected a folder for the shards, found a file: {shown}", hint="choose another, or remove it")
    if (out / _SHARDS_RECORD).exists():
        raise ConfigError(f"{shown} already holds the answers of a finished job", hint="choose another folder, or remove that one first")
    if out.is_dir() and any(path != job.folder for path in out.iterdir()) and not is_unfinished:
        raise ConfigError(f"{shown} is not empty and holds no unfinished job", hint="choose another folder, or an empty one")


@contextlib.contextmanager
def _claimed(job: _Job, record: dict[str, Any]) -> Iterator[None]:
    """Make the job's folder, or find it as an equal job left it; while the block lasts it is this process's alone."""
    shown = safe_text(str(job.folder))
    with only_here(job.folder / _LOCK) as alone:
        if not alone:
            raise ConfigError(f"another process is working on the job in {shown}", hint="wait for it, or choose another file")
        try:
            left = json.loads((job.folder / _RECORD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            left = None
            job.clear({_LOCK})  # of what a job left that was killed in the last moment
        except (ValueError, OSError) as error:
            raise ConfigError(f"{shown} holds no job that can be read", hint="remove that folder to start anew") from error
        if left is None:
            write_json(job.folder / _RECORD, record)
        elif left != record:
            kept = max((last for _, last, _ in job.parts()), default=0)
            raise ConfigError(
                f"{shown} holds {kept:,} answers of an unfinished job {_difference(left, record)}",
                hint="repeat its command to continue it, or remove that folder to start anew",
            )
        yield


def _difference(left: Any, record: dict[str, Any]) -> str:
    """In what an unfinished job differs from this one, for people: "with another model"."""
    if not isinstance(left, dict) or left.get("format") != record["format"]:
        return "of another version of headstart"
    if left.get("model") != record["model"]:
        return "with another model"
    if left.get("photos") != record["photos"]:
        n = dict(left.get("photos", {})).get("n")
        return f"on other photos ({n:,} then, {record['photos']['n']:,} now)" if isinstance(n, int) else "on other photos"
    before, now = dict(left.get("options", {})), record["options"]
    return "with " + ", ".join(f"{key} {before.get(key)} (now {now[key]})" for key in now if before.get(key) != now[key])
