"""Run folders: claimed before the work starts, filled by it, read back afterwards."""

import contextlib
import functools
import hashlib
import html
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.config import Config
from headstart.data.folders import is_junk
from headstart.errors import ConfigError, DataError, safe_text
from headstart.files import cache_folder, names_in_out, write_json
from headstart.values import flat

if TYPE_CHECKING:
    from headstart.bundle.format import Bundle
    from headstart.bundle.predict import Prediction

CHECKPOINTS = "checkpoint"
DIFFERENCES = 5  # between configurations that are named
UNFINISHED, TESTED, FINISHED = "unfinished", "tested", "finished"  # tested: all but the report is there


class OtherPhotosError(ConfigError):
    """An unfinished run cannot go on: its photos, or their split, are not those it began with."""


class BusyRunError(ConfigError):
    """Another process is working on the run."""


def check(folder: Path, config: Config) -> None:
    """Whether `folder` can take a run with this configuration, before any work is done.

    An absent or empty folder becomes a new run; an unfinished run of the same configuration is continued.

    Raises: ConfigError: the folder holds anything else, or has a name that cannot be written to files.
    """
    names = [name for name in names_in_out(folder, "the run") if not is_junk(name)]
    if not names:
        return
    try:
        record = read_record(folder)
    except DataError:
        raise ConfigError(f"{folder} is not empty and holds no run", hint="choose another --out, or an empty folder") from None
    if record.get("status") == FINISHED:
        raise ConfigError(f"{folder} already holds a finished run", hint="choose another --out, or remove that folder first")
    asked, now = record.get("asked"), json.loads(json.dumps(config.to_json()))
    if asked != now:
        command = record.get("command")
        raise ConfigError(
            f"{folder} holds an unfinished run with another configuration: {_differences(asked, now)}",
            hint=f"repeat its command to continue it{f' ({command})' if command else ''}, choose another --out, or remove that folder",
        )


def _differences(before: Any, now: Any) -> str:
    """The first keys in which two configurations differ, in words."""
    there, here = dict(flat(before)), dict(flat(now))
    found = [
        f"{name} was {there.get(name, 'not given')}, is {here.get(name, 'not given')}"
        for name in dict.fromkeys([*there, *here])
        if there.get(name) != here.get(name)
    ]
    more = [f"{len(found) - DIFFERENCES} more"] if len(found) > DIFFERENCES else []
    return "; ".join([*found[:DIFFERENCES], *more])


@contextlib.contextmanager
def claimed(folder: Path, config: Config, data_digest: str, *, command: str | None = None) -> Iterator[None]:
    """Make `folder`, which `check` found fit, the place of this run on these photos, while the block lasts for this process alone.

    Raises: OtherPhotosError: the unfinished run in `folder` was started on other photos or another split. BusyRunError: it runs now.
    """
    left = read_record(folder) if (folder / "run.json").exists() else {}
    if left.get("data_digest", data_digest) != data_digest:
        raise OtherPhotosError(
            f"the photos or the split changed since the unfinished run in {folder} started",
            hint="choose another --out, or remove that folder",
        )
    from headstart.features.lock import Lock  # needs a library that reading a run does not

    locks = cache_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = Lock(locks / hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32])
    if not lock.try_exclusive():
        raise BusyRunError(f"another process is working on the run in {folder}", hint="wait for it, or choose another --out")
    try:
        asked = config.to_json()
        about = {"data_digest": data_digest, "command": command, "commit": _commit()}
        plan = {"plan": left["plan"]} if "plan" in left else {}  # made before the interruption: the run goes on as it began
        write_json(folder / "run.json", {"status": UNFINISHED, "asked": asked, "config": asked, **about, **plan})
        yield
    finally:
        lock.release()


def note(folder: Path, facts: dict[str, Any]) -> None:
    """Add facts to run.json of an unfinished run."""
    write_json(folder / "run.json", {**read_record(folder), **facts})


def finish(folder: Path) -> None:
    """Mark the run as finished: the last thing written, so a folder marked so is complete. Checkpoints go after it.

    Between the two, nothing is lost: a run that lost its checkpoints unfinished would train anew.
    """
    note(folder, {"status": FINISHED})
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def read_record(folder: Path) -> dict[str, Any]:
    """The content of run.json. Raises: DataError: there is none, or it is not JSON."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"no run at {folder}: it has no run.json", hint="give the folder that `headstart train --out` wrote") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{folder / 'run.json'} cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"{folder / 'run.json'} is not the record of a run")
    return record


def next_folder(name: str, parent: Path = Path("runs")) -> Path:
    """A folder for a run whose place was not given: runs/NAME, else runs/NAME-2, ..."""
    taken = {path.name for path in parent.iterdir()} if parent.is_dir() else set()
    numbered = (name if n == 1 else f"{name}-{n}" for n in range(1, len(taken) + 2))
    return parent / next(candidate for candidate in numbered if candidate not in taken)


def _commit() -> str | None:
    """The commit of the working folder, for the record: data and code of a project often live in one repository."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


class Run:
    """A finished run: its numbers, its report, its model."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.record = read_record(self.folder)
        if self.record.get("status") != FINISHED:
            raise DataError(f"the run in {self.folder} is unfinished", hint="repeat its command to continue it")

    @functools.cached_property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json: `test`, `val`, `seconds`."""
        value: dict[str, Any] = json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))
        return value

    @property
    def accuracy(self) -> float:
        """Share of test photos answered right, 0 to 1."""
        return float(self.metrics["test"]["accuracy"])

    @property
    def report(self) -> Path:
        """The report, one self-contained HTML file."""
        return self.folder / "report.html"

    @functools.cached_property
    def bundle(self) -> "Bundle":
        """The trained model."""
        from headstart.bundle.format import load_bundle

        return load_bundle(self.folder)

    def predict(self, photos: Any, *, top: int = 5) -> "Prediction | list[Prediction]":
        """Answers for one photo or several; see `Bundle.predict`."""
        answer: Prediction | list[Prediction] = self.bundle.predict(photos, top=top)
        return answer

    def headline(self) -> str:
        """The result in one line: `0.927 of 150 test photos right (95 %: 0.874 to 0.959)`."""
        test = self.metrics["test"]
        low, high = test["accuracy_ci95"]
        return f"{test['accuracy']:.3f} of {test['n']} test photos right (95 %: {low:.3f} to {high:.3f})"

    def __repr__(self) -> str:
        return f"Run({safe_text(str(self.folder))!r}: {self.headline()})"

    def _repr_html_(self) -> str:
        test = self.metrics["test"]
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{_share(row['precision'])}</td><td>{_share(row['recall'])}</td><td>{row['n']}</td></tr>"
            for name, row in list(test["per_class"].items())[:20]
        )
        more = len(test["per_class"]) - 20
        return (
            f"<b>{html.escape(self.headline())}</b>"
            f"<table><tr><th>class</th><th>precision</th><th>recall</th><th>photos</th></tr>{rows}</table>"
            + (f"<p>and {more} more classes</p>" if more > 0 else "")
            + f"<p>Report: <a href='{html.escape(self.report.as_posix())}'>{html.escape(str(self.report))}</a></p>"
        )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
