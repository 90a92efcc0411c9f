"""What a person said of single photos: this one is a rose, leave that one out. Files beside the photos, which stay as they are.

`labels.json` is the journal, every word in its order, those that were taken back too; `corrections.csv` and `left-out.csv` follow from it
and are what `headstart train --corrections` and `--exclude` take.
"""

import csv
import dataclasses
import json
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headstart.errors import DataError
from headstart.files import atomic_file, write_json

FORMAT = 1
JOURNAL, CORRECTIONS, LEFT_OUT = "labels.json", "corrections.csv", "left-out.csv"


@dataclass(frozen=True)
class Said:
    """One word on one photo.

    n: its number, from 1. path: as the project lists the photo. given: the class whose folder it lies in. label: the class it is said
    to be of; `given` where that is right after all; None: leave the photo out. undone: whether it was taken back.
    """

    n: int
    at: str
    path: str
    given: str
    label: str | None
    undone: bool = False


class Labels:
    """The words on a project's photos. Every change is on disk when the call returns, whole; a killed process loses none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changing = threading.Lock()
        self._said = _read(folder / JOURNAL)

    @property
    def history(self) -> list[Said]:
        """Every word that holds, the latest first."""
        return [each for each in reversed(self._said) if not each.undone]

    @property
    def current(self) -> dict[str, Said]:
        """By path, the last word that holds."""
        return {each.path: each for each in self._said if not each.undone}

    def say(self, path: str, given: str, label: str | None) -> Said:
        """The photo at `path` is of class `label`; None: leave it out."""
        with self._changing:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            said = Said(len(self._said) + 1, now, path, given, label)
            self._write([*self._said, said])
        return said

    def undo(self, n: int) -> Said | None:
        """Take back word number `n`, wherever in the history it stands. Returns: it; None where there is no such word any more."""
        with self._changing:
            if not 1 <= n <= len(self._said) or self._said[n - 1].undone:
                return None
            taken_back = dataclasses.replace(self._said[n - 1], undone=True)
            self._write([*self._said[: n - 1], taken_back, *self._said[n:]])
        return taken_back

    def changes(self) -> list[tuple[str, str | None]]:
        """Path and label of every photo that is not what its folder says, sorted; None for those left out."""
        return sorted(((each.path, each.label) for each in self.current.values() if each.label != each.given), key=lambda each: each[0])

    def write_files(self, corrections: Path, left_out: Path) -> tuple[Path | None, Path | None]:
        """Write what `--corrections` and `--exclude` take. Returns: the files, None for one that would say nothing."""
        changes = self.changes()
        relabelled = [(path, label) for path, label in changes if label is not None]
        gone = [(path,) for path, label in changes if label is None]
        _write_csv(corrections, ("path", "label"), relabelled)
        _write_csv(left_out, ("path",), gone)
        return corrections if relabelled else None, left_out if gone else None

    def _write(self, said: list[Said]) -> None:
        """The journal first: it is what counts, and the other two are written again from it at the next change."""
        write_json(self._folder / JOURNAL, {"labels": FORMAT, "said": [dataclasses.asdict(each) for each in said]})
        self._said = said
        self.write_files(self._folder / CORRECTIONS, self._folder / LEFT_OUT)


def _read(path: Path) -> list[Said]:
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
        if record["labels"] != FORMAT:
            raise DataError(f"{path} is of another version of headstart", hint="update headstart, or move the file away")
        return [Said(**each) for each in record["said"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="move it away to begin anew; your photos are not affected") from error


def _write_csv(path: Path, header: tuple[str, ...], rows: list[Any]) -> None:
    with atomic_file(path) as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
