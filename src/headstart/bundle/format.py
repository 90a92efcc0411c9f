"""A trained model as a folder: bundle.json, model.onnx (or OpenVINO's model.xml and model.bin), perhaps tail.safetensors.

Safe to load from a stranger; no pickle.

bundle = load_bundle("runs/a")
bundle.predict("cat.jpg").label
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from headstart.bundle.onnx_file import MalformedError, has_external_data
from headstart.bundle.record import NETWORK_FILE, TAIL_FILE, Golden, Label, LabelSets, NoneOfThese, Record, read_record
from headstart.data.golden import check_golden
from headstart.data.pixels import Preprocessing
from headstart.errors import BundleError, DataError, safe_text
from headstart.features.runtime import Session
from headstart.files import human_bytes

if TYPE_CHECKING:
    from headstart.bundle.predict import Photo, Prediction

__all__ = ["Bundle", "Golden", "Label", "load_bundle"]

RECORD_FILE = "bundle.json"
_LARGEST_RECORD_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained model, loaded and verified. It can be used from several threads at once."""

    folder: Path
    record: Record
    sessions: dict[tuple[str, str], Session] = field(default_factory=dict, repr=False)
    """networks opened so far, by provider and precision, chosen or (`auto`) asked for; `predict.open_engine` fills it"""

    @property
    def labels(self) -> tuple[Label, ...]:
        """The k classes, in the order of the network's output."""
        return self.record.labels

    @property
    def preprocessing(self) -> Preprocessing:
        """What is done to a photo before the network sees it."""
        return self.record.preprocessing

    @property
    def temperature(self) -> float:
        """Probabilities are softmax(logits / temperature)."""
        return self.record.temperature

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Label name -> least probability at which to believe it."""
        return self.record.thresholds

    @property
    def none_of_these(self) -> NoneOfThese | None:
        """When a photo is none of the labels, or None: the model does not say."""
        return self.record.none_of_these

    @property
    def conformal(self) -> LabelSets | None:
        """Which labels a photo's set holds, or None: the model has no sets."""
        return self.record.conformal

    @property
    def licence(self) -> str | None:
        """Licence of the backbone's weights."""
        return self.record.licence

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How the model came to be."""
        return self.record.provenance

    @property
    def digest(self) -> str:
        """What tells this model from any other: a sha256 of its files' and of everything in bundle.json."""
        found: str = self.record.to_json()["digest"]
        return found

    @property
    def network_file(self) -> Path:
        """model.onnx, or OpenVINO's model.xml: uint8 `image` [n, px, px, 3] -> float32 `logits` [n, k]."""
        return self.folder / self.record.network_file

    @property
    def tail_file(self) -> Path | None:
        """The trained layers for PyTorch, where the model has them."""
        return self.folder / TAIL_FILE if TAIL_FILE in self.record.files else None

    # A string is an iterable of strings as well, hence the ignored overlap; the first that fits counts.
    @overload
    def predict(self, photos: "Photo", *, top: int = ..., provider: str = ..., precision: str = ...) -> "Prediction": ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, photos: "Iterable[Photo]", *, top: int = ..., provider: str = ..., precision: str = ...) -> "list[Prediction]": ...
    def predict(
        self, photos: "Photo | Iterable[Photo]", *, top: int = 5, provider: str = "auto", precision: str = "auto"
    ) -> "Prediction | list[Prediction]":
        """What is in a photo, or in each of several. See `headstart.bundle.predict` for many: it streams.

        Args:
            photos: a path, a file's bytes, pixels uint8 [h, w, 3] or a Pillow image; or an iterable of these.
            top: answers a photo (>= 1), the most probable first.

        Returns: one Prediction, or a list in the order of `photos`. A photo that cannot be read has a `reason` and no label.
        """
        # imported here: predict builds on this file
        from headstart.bundle.predict import is_one_photo, stream

        if is_one_photo(photos):
            return next(stream(self, [photos], top=top, provider=provider, precision=precision))
        return list(stream(self, photos, top=top, provider=provider, precision=precision))  # type: ignore[arg-type]

    def stream(self, photos: "Iterable[Photo]", *, top: int = 5, provider: str = "auto", precision: str = "auto") -> "Iterator[Prediction]":
        """`predict` for any number of photos: answers come in order, while later photos are decoded, and none is kept.

        Raises: ConfigError, BundleError: as `headstart.bundle.predict.stream`.
        """
        from headstart.bundle.predict import stream

        return stream(self, photos, top=top, provider=provider, precision=precision)

    def predict_to(
        self,
        out: str | os.PathLike[str],
        photos: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        format: str | None = None,
        top: int = 5,
        provider: str = "auto",
        precision: str = "auto",
        shard: int | None = None,
    ) -> Path:
        """`headstart predict --out`: the answers for all photos go to a file; a job that was killed goes on with the same call.

        Args:
            out: the file; with `shard` a folder of files of so many photos each.
            photos: a photo, a folder of them or a glob; or several of these.
            format: `csv`, `json` or `parquet`; by default what the name of `out` ends in.

        Returns: `out`.
        Raises: HeadstartError: as `headstart.bundle.job.predict_to`, and `headstart.bundle.listing.find`.
        """
        from headstart.bundle.job import predict_to
        from headstart.bundle.listing import Paths, find

        paths = Paths(find([photos] if isinstance(photos, str | os.PathLike) else photos))
        predict_to(self, paths, Path(out), format=format, top=top, provider=provider, precision=precision, shard=shard)
        return Path(out)

    def __repr__(self) -> str:
        return f"Bundle({safe_text(str(self.folder))!r}, {len(self.labels)} classes)"


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Load a trained model from its folder, or from the run folder around it, and verify it.

    Every file's sha256 and every field of bundle.json is checked, the network may read no other file, and the golden
    pictures must decode here as they did where the model was made. What the network answers for them is
    compared when it is first opened.

    Raises: BundleError: something is missing, changed, damaged, of a newer format, or decodes differently here.
    """
    folder = _find(Path(path))
    try:
        record = read_record(_read_record_file(folder / RECORD_FILE))
        for name, expected in record.files.items():
            _verify(folder / name, expected)
        if NETWORK_FILE in record.files:  # OpenVINO's form has no way to name another file
            _refuse_external_data(folder / NETWORK_FILE)
        check_golden(record.golden.decoder_digest)
    except DataError as error:  # the golden pictures
        raise BundleError(f"{_shown(folder)}: {error.message}", hint=error.hint) from error
    except BundleError as error:
        raise BundleError(f"{_shown(folder)}: {error.message}", hint=error.hint) from error
    return Bundle(folder, record)


def _find(path: Path) -> Path:
    """The folder that holds bundle.json."""
    for folder in (path, path / "model"):
        if (folder / RECORD_FILE).is_file():
            return folder
    hint = "give the folder that `headstart train --out` wrote, or the bundle inside it"
    if (path / "run.json").is_file():
        raise BundleError(f"the run in {_shown(path)} has no model yet", hint="repeat its command to finish it")
    if not path.exists():
        raise BundleError(f"no model at {_shown(path)}: there is nothing of that name", hint=hint)
    raise BundleError(f"no model at {_shown(path)}: it has no {RECORD_FILE}", hint=hint)


def _read_record_file(path: Path) -> bytes:
    try:
        n_bytes = path.stat().st_size
        if n_bytes > _LARGEST_RECORD_BYTES:
            raise BundleError(f"{RECORD_FILE} has {human_bytes(n_bytes)}, at most {human_bytes(_LARGEST_RECORD_BYTES)} are read")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read {RECORD_FILE}: {error.strerror}", hint="check its permissions") from error


def _verify(path: Path, expected: str) -> None:
    """Raises: BundleError: the file is not there or its sha256 is another."""
    again = "copy or export the model again"
    try:
        if not path.is_file():
            raise BundleError(f"{path.name} is missing", hint=again)
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"cannot read {path.name}: {error.strerror}", hint="check its permissions") from error
    if found != expected:
        raise BundleError(f"{path.name} was changed or damaged: expected sha256 {expected[:16]}..., found {found[:16]}...", hint=again)


def _refuse_external_data(path: Path) -> None:
    try:
        outside = has_external_data(path)
    except (MalformedError, OSError) as error:
        raise BundleError(f"{path.name} is no ONNX file: {error}", hint="export the model again") from error
    if outside:
        raise BundleError(
            f"{path.name} takes weights from other files on this machine, which a model from elsewhere must not",
            hint="do not use it; export the model again with its weights inside",
        )


def _shown(path: Path) -> str:
    return safe_text(str(path))
