"""The projects that this studio may touch: the folder it was opened with, or those in its own folder of projects."""

import os
from pathlib import Path

from headstart.data.folders import is_junk
from headstart.errors import DataError, HeadstartError, safe_text
from headstart.features.lock import Lock
from headstart.files import cannot_write
from headstart.studio.project import OWN, Project, class_name, identifier


def projects_folder() -> Path:
    """Where projects lie that were made in the studio: `HEADSTART_STUDIO` if set, else `headstart studio` in the home folder."""
    given = os.environ.get("HEADSTART_STUDIO")
    return Path(given).expanduser() if given else Path.home() / "headstart studio"


class Shelf:
    """Projects by identifier. Each is locked while it is here, so that two studios never write to one."""

    def __init__(self, home: Path | None, opened: Path | None) -> None:
        """Open `opened` alone; or `home` with all projects in it, which is made where it is absent.

        Raises: HeadstartError: a folder that is not there, cannot be written, or is open in another studio.
        """
        self.home = home
        self.projects: dict[str, Project] = {}
        self.busy: list[str] = []
        self._locks: list[Lock] = []
        if opened is not None:
            if not opened.is_dir():
                what = "a file" if opened.exists() else "nothing"
                raise DataError(
                    f"expected a folder of photos at {safe_text(str(opened))}, found {what}", hint="make it first, or leave FOLDER out"
                )
            self._open(opened)
        if home is not None:
            try:
                home.mkdir(parents=True, exist_ok=True)
                names = sorted(entry.name for entry in os.scandir(home) if entry.is_dir() and not is_junk(entry.name))
            except OSError as error:
                raise cannot_write(home, error) from error
            for name in names:
                try:
                    self._open(home / name)
                except HeadstartError:
                    self.busy.append(name)

    def make(self, name: str) -> Project:
        """A new, empty project. Raises: DataError: a name no folder can have, or one that is taken."""
        assert self.home is not None
        folder = self.home / class_name(name)
        try:
            folder.mkdir()
        except FileExistsError:
            raise DataError(f"there is a project '{safe_text(folder.name)}' already", hint="open it, or choose another name") from None
        except OSError as error:
            raise cannot_write(folder, error) from error
        return self._open(folder)

    def _open(self, folder: Path) -> Project:
        own = folder.absolute() / OWN
        try:
            own.mkdir(exist_ok=True)
            lock = Lock(own / "lock")
        except OSError as error:
            raise cannot_write(own, error) from error
        if not lock.try_exclusive():
            raise DataError(f"{safe_text(str(folder))} is open in another studio", hint="use that one, or end it first")
        project = Project(folder)
        self._locks.append(lock)
        self.projects[identifier(str(project.folder))[:12]] = project
        return project
