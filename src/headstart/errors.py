"""Every error headstart raises on purpose.

    HeadstartError           catch this one for all of them
    ├── ConfigError          a name, key or value of the configuration
    ├── DataError            photos, labels, tables, archives, splits
    ├── WeightsError         a backbone's weights: absent, corrupt, of another network, incomplete
    ├── StoreError           the feature store: disk full, damaged, locked
    ├── BundleError          a trained model's folder: damaged, changed, of a newer version
    └── ExportError          an exported model that does not answer as the original does

The command line prints such an error as one line and exits with 1; anything else that reaches a user is a bug of headstart.
"""

import difflib
from collections.abc import Iterable

_FEWEST_LETTERS = 3  # the beginning of too many names otherwise


class HeadstartError(Exception):
    """Base class. The text says what was expected and what was found; `hint` says what to do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class ConfigError(HeadstartError):
    """A configuration key, value or name that cannot be used."""


class DataError(HeadstartError):
    """Photos or labels that cannot be used."""


class WeightsError(HeadstartError):
    """Weights that are absent, damaged, incomplete or of another network."""


class StoreError(HeadstartError):
    """The feature store cannot be read or written."""


class BundleError(HeadstartError):
    """A trained model that cannot be loaded as it was saved."""


class ExportError(HeadstartError):
    """A model in another form that does not answer as the original does, and so was not kept."""


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that `name` is most likely meant to be: the shortest that starts with it, else the one spelled most like it.

    None where none comes close.

    >>> nearest("resnet5", ["resnet50", "inception_v3"])
    'resnet50'
    >>> nearest("vit_tiny", ["gcvit_tiny", "vit_tiny_patch16_384", "vit_tiny_patch16_224"])
    'vit_tiny_patch16_224'
    """
    choices = list(choices)
    longer = [choice for choice in choices if choice.startswith(name)] if len(name) >= _FEWEST_LETTERS else []
    if longer:
        return min(longer, key=lambda choice: (len(choice), choice))
    found = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(name: str, choices: Iterable[str]) -> str | None:
    """A ready `hint` for a misspelled name, or None where no choice comes close."""
    found = nearest(name, choices)
    return None if found is None else f"did you mean '{found}'?"


def safe_text(text: str) -> str:
    """`text` fit for one line of a terminal or log: control characters and undecodable bytes are escaped.

    >>> safe_text("a\\nb.jpg")
    'a\\\\nb.jpg'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
