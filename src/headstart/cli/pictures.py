"""Pictures that commands write."""

from pathlib import Path
from typing import TYPE_CHECKING

from headstart.errors import ConfigError, safe_text
from headstart.files import atomic_file

if TYPE_CHECKING:
    from PIL import Image

KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def check_name(path: Path, option: str) -> None:
    """Whether `path`, given as `option`, is named like a picture. Raises: ConfigError: it is not."""
    if path.suffix.lower() not in KINDS:
        raise ConfigError(f"expected a picture's name for {option} ({', '.join(KINDS)}), found '{safe_text(str(path))}'")


def save(picture: "Image.Image", path: Path) -> None:
    """Write a picture to `path`, whose name says its kind. Raises: HeadstartError: it cannot be written."""
    with atomic_file(path, "wb") as file:
        picture.save(file, KINDS[path.suffix.lower()])
