"""From photos to answers: decoding on all cores beside the network, in order, in constant memory. No PyTorch.

for prediction in stream(load_bundle("runs/a"), expand(["new/"])):
    print(prediction.path, prediction.label, prediction.probability)
"""

import contextlib
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeGuard, TypeVar

import numpy as np
from PIL import Image, ImageOps

from headstart.bundle.format import Bundle
from headstart.bundle.listing import expand
from headstart.data.colour import to_rgb
from headstart.data.golden import golden_images
from headstart.data.pixels import Preprocessing, load, prepare
from headstart.data.reading import read_ahead
from headstart.errors import BundleError, ConfigError, DataError, safe_text
from headstart.evaluate import novelty
from headstart.evaluate.conformal import members
from headstart.features import runtime

__all__ = ["Photo", "Prediction", "counted", "expand", "fitting", "is_one_photo", "open_engine", "settle", "softmax", "stream"]

log = logging.getLogger("headstart")

Photo = str | os.PathLike[str] | bytes | np.ndarray | Image.Image
"""A path; a file's content; pixels uint8 [h, w, 3], RGB; or a Pillow image."""

# From here on OpenVINO's 0.5 s of import and compilation come back. Below, ONNX Runtime starts sooner.
MANY = 64

# Largest difference of a golden picture's logits from PyTorch's in fp32, in units of the largest logit: it tells a wrong answer
# from a rounded one. Not of probabilities: golden pictures look like no photo, their logits are large, and a rounding error of
# 0.4 % moved a probability by 0.11. What bf16's 8 bits do to real photos is measured in docs/formats.md.
_TOLERANCE = {"fp32": 1e-3, "bf16": 0.05}
_TOLERANCE_INT8 = (
    0.1  # whose steps each runtime rounds in its own way: 0.05 seen; wrong answers gave 0.45 and more. Source: docs/LOG.md, "Exports"
)

Item = TypeVar("Item")


@dataclass(frozen=True)
class Prediction:
    """The answer for one photo. Where it could not be read: `reason` says why, and there is no label."""

    path: str
    """as given; empty for bytes, pixels and Pillow images"""
    index: int | None = None
    """of the label in the model's order, from 0"""
    label: str | None = None
    id: str | None = None
    """the label's lasting name, such as ImageNet's synset, where the model has one"""
    probability: float | None = None
    """0 to 1, calibrated"""
    top: tuple[tuple[str, float], ...] = ()
    """label and probability of the most probable classes, best first"""
    top_ids: tuple[str | None, ...] = ()
    """their lasting names, in the same order"""
    reason: str | None = None
    """why the photo could not be read: `truncated`, `not an image (text)`, ..."""
    known: bool | None = None
    """False: it looks like none of the labels, of which `label` is the nearest. None where the model does not say"""
    labels: tuple[str, ...] = ()
    """a set that holds the right label for a stated share of photos (`Bundle.conformal`), the most probable first; empty where the
    model has no sets"""
    probabilities: np.ndarray | None = field(default=None, repr=False, compare=False)
    """float32 [k], of every class in the model's order; only when asked for"""

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file, without `probabilities`."""
        return {
            "path": self.path,
            "index": self.index,
            "label": self.label,
            "id": self.id,
            "probability": self.probability,
            "top": [
                {"label": label, "id": lasting, "probability": probability}
                for (label, probability), lasting in zip(self.top, self.top_ids, strict=True)
            ],
            "reason": self.reason,
            "known": self.known,
            "labels": list(self.labels),
        }


def stream(
    bundle: Bundle,
    photos: Iterable[Photo],
    *,
    top: int = 5,
    all_probabilities: bool = False,
    provider: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Iterator[Prediction]:
    """Answer each photo, in order, while later ones are being decoded. Never raises for a photo: it gets a `reason`.

    Args:
        top: answers a photo (>= 1), the most probable first.
        all_probabilities: also keep the probability of every class.
        provider: `onnxruntime`, `openvino`, or `auto`: ONNX Runtime for fewer than 64 photos, else OpenVINO where it is installed.
        precision: `fp32`, `bf16`, or `auto`: bf16 where it is fast. The two agree within what docs/formats.md states.
        threads: for decoding, and for the network; by default as many as there are cores.

    Raises:
        ConfigError: `top` below 1, an unknown or absent provider.
        BundleError: the network does not run here, or answers the golden pictures otherwise than where it was made.
    """
    if top < 1:
        raise ConfigError(f"expected at least 1 answer a photo, found top = {top}")
    photos = iter(photos)
    first = list(itertools.islice(photos, MANY))
    session = open_engine(bundle, *settle(bundle, len(first), provider, precision), threads=threads)
    return _answers(bundle, session, itertools.chain(first, photos), top, all_probabilities, threads)


def settle(bundle: Bundle, n: int, provider: str, precision: str) -> tuple[str, str]:
    """Provider and precision for `n` photos, where 64 stand for any more: what starts soonest where `auto` was asked for few.

    Raises: ConfigError: the model's network is not made for what was asked.
    """
    provider, precision = fitting(bundle, provider, precision)
    few = provider == "auto" and n < MANY and precision != "bf16"
    return ("onnxruntime", "fp32") if few else (provider, precision)


def counted(predictions: Iterable[Prediction], advance: Callable[[int], None]) -> Iterator[Prediction]:
    """`predictions`, telling a progress bar of each."""
    for prediction in predictions:
        advance(1)
        yield prediction


def is_one_photo(value: object) -> TypeGuard[Photo]:
    """Whether `value` is a photo rather than several."""
    return isinstance(value, str | os.PathLike | bytes | np.ndarray | Image.Image)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities float32 [n, k] of logits [n, k], computed in float64 so that rows sum to 1 within 1e-6."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)  # type: ignore[no-any-return]


def open_engine(bundle: Bundle, provider: str = "auto", precision: str = "auto", *, threads: int | None = None) -> runtime.Session:
    """The bundle's network, ready to run and checked on the golden pictures; opened once for each provider and precision.

    What `auto` chose and does not work here is replaced, with a warning, by what always does: ONNX Runtime, fp32.

    Raises: ConfigError, BundleError: as `stream`.
    """
    provider, precision = fitting(bundle, provider, precision)
    asked, chosen = (provider, precision), runtime.resolve(provider, precision)
    for key in (chosen, asked):
        if key in bundle.sessions:
            return bundle.sessions[key]
    try:
        bundle.sessions[chosen] = _open_checked(bundle, *chosen, threads)
        return bundle.sessions[chosen]
    except BundleError as error:
        if "auto" not in asked or chosen == ("onnxruntime", "fp32"):
            raise
        fallback = "onnxruntime" if provider == "auto" else provider
        log.warning("%s; using %s in fp32", error.message, fallback)
    bundle.sessions[asked] = _open_checked(bundle, fallback, "fp32", threads)
    return bundle.sessions[asked]


def fitting(bundle: Bundle, provider: str, precision: str) -> tuple[str, str]:
    """What was asked for, less what this model's network is not made for. Raises: ConfigError: exactly that was asked for."""
    what = safe_text(str(bundle.network_file))
    if bundle.network_file.suffix == ".xml":
        if provider == "onnxruntime":
            raise ConfigError(f"{what} is in OpenVINO's form, which onnxruntime does not run", hint="use provider openvino")
        provider = "openvino"
    if precision not in ("auto", *bundle.record.computed_in) and precision in runtime.PRECISIONS:
        raise ConfigError(
            f"{what} is not to be computed in {precision}: it gave too many other answers there when it was exported, or was not tried",
            hint="use precision fp32",
        )
    return provider, "fp32" if precision == "auto" and "bf16" not in bundle.record.computed_in else precision


def _open_checked(bundle: Bundle, provider: str, precision: str, threads: int | None) -> runtime.Session:
    where = f"the network in {bundle.network_file}"
    try:
        session = runtime.open_session(bundle.network_file, provider=provider, precision=precision, threads=threads)
        px, k = bundle.preprocessing.input_px, len(bundle.labels)
        if session.input_shape != (px, px, 3) or session.output_shape != (k,):
            found = f"{list(session.input_shape)} to {list(session.output_shape)}"
            raise BundleError(f"{where} does not fit its bundle.json: expected [{px}, {px}, 3] to [{k}], found {found}")
        answers = session.run(golden_images(px))
    except (BundleError, ConfigError):
        raise
    except Exception as error:  # each runtime has its own kinds, all of them for a graph it cannot run
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise BundleError(f"{provider} cannot run {where}: {reason}", hint="update it, or export the model again") from error
    expected = bundle.record.golden.logits
    if expected.shape != answers.shape:
        raise BundleError(f"{where} does not fit its golden answers: expected {len(answers)} of them, found {len(expected)}")
    difference = float(np.abs(expected - answers).max() / max(float(np.abs(expected).max()), 1e-12))
    tolerance = _TOLERANCE[precision] if bundle.record.precision == "fp32" else _TOLERANCE_INT8
    if not difference <= tolerance:
        raise BundleError(
            f"{where} answers otherwise here than where it was made: logits of the golden pictures differ by {difference:.2g} of the "
            f"largest, at most {tolerance:g} allowed ({session.engine}, {precision})",
            hint="use another provider or precision, or update the runtime",
        )
    return session


@dataclass(frozen=True)
class Read:
    """A photo on its way to the network: pixels or the reason why there are none."""

    path: str
    pixels: np.ndarray | None = None
    reason: str | None = None


def read(photo: Photo, preprocessing: Preprocessing, *, max_pixels: int | None = None) -> Read:
    """The photo as the network takes it, or the reason why not; never raises for a photo. A file may have at most `max_pixels`."""
    path = os.fsdecode(photo) if isinstance(photo, str | os.PathLike) else ""
    try:
        if isinstance(photo, np.ndarray):
            return Read(path, prepare(photo, preprocessing))
        if isinstance(photo, Image.Image):
            return Read(path, prepare(_upright(photo), preprocessing))
        if isinstance(photo, str | os.PathLike | bytes):
            return Read(path, load(path or photo, preprocessing, max_pixels=max_pixels))
    except DataError as error:
        return Read(path, reason=getattr(error, "reason", error.message))
    return Read(path, reason=f"not a photo but {type(photo).__name__}")


def _upright(image: Image.Image) -> np.ndarray:
    """Pixels of a Pillow image, uint8 [h, w, 3]. Raises: DataError: its file is damaged or closed."""
    try:
        upright = ImageOps.exif_transpose(image)
        upright.load()
    except Exception as error:  # it is decoded only now, and decoders raise whatever they like
        raise DataError(f"cannot be read ({str(error) or type(error).__name__})") from error
    return np.asarray(to_rgb(upright))


def _answers(
    bundle: Bundle, session: runtime.Session, photos: Iterable[Photo], top: int, all_probabilities: bool, threads: int | None
) -> Iterator[Prediction]:
    size, px = session.batch_size, bundle.preprocessing.input_px
    waiting: deque[list[Read]] = deque()  # batches whose answers are not out yet; the session keeps them few

    def batches(images: Iterator[Read]) -> Iterator[np.ndarray]:
        while some := list(itertools.islice(images, size)):
            good = [one.pixels for one in some if one.pixels is not None]
            waiting.append([Read(one.path, None, one.reason) for one in some])  # pixels now live in the batch
            yield np.stack(good) if good else np.zeros((0, px, px, 3), np.uint8)

    # Each thread holds one decoded photo; what waits is px x px, so that as many more as there are threads cost little.
    n_threads = runtime.cores() if threads is None else threads
    reading = read_ahead(lambda photo: read(photo, bundle.preprocessing), photos, threads=n_threads, ahead=4 * size + n_threads)
    with contextlib.closing(reading):  # type: ignore[type-var]
        for logits in session.map(batches(reading)):
            yield from predictions(bundle, waiting.popleft(), logits, top, all_probabilities)


def predictions(
    bundle: Bundle, photos: list[Read], logits: np.ndarray, top: int = 5, all_probabilities: bool = False
) -> Iterator[Prediction]:
    """One Prediction for each photo of a batch; `logits` [n, k] has a row for each that has no `reason`."""
    probabilities = softmax(logits / bundle.temperature) if len(logits) else np.zeros((0, len(bundle.labels)), np.float32)
    rows = zip(probabilities, *_certainty(bundle, logits, probabilities), strict=True)
    for photo in photos:
        if photo.reason is not None:
            yield Prediction(photo.path, reason=photo.reason)
            continue
        probs, known, n_possible = next(rows)
        if not np.isfinite(probs).all():
            yield Prediction(photo.path, reason="the network's answer is not a number")
            continue
        ranked = np.argsort(-probs, kind="stable")[: max(top, n_possible)].tolist()
        order = ranked[:top]
        labels = [bundle.labels[i] for i in order]
        yield Prediction(
            path=photo.path,
            index=order[0],
            label=labels[0].name,
            id=labels[0].id,
            probability=float(probs[order[0]]),
            top=tuple((label.name, float(probs[i])) for label, i in zip(labels, order, strict=True)),
            top_ids=tuple(label.id for label in labels),
            known=known,
            labels=tuple(bundle.labels[i].name for i in ranked[:n_possible]),
            probabilities=probs if all_probabilities else None,
        )


def _certainty(bundle: Bundle, logits: np.ndarray, probabilities: np.ndarray) -> tuple[list[bool | None], list[int]]:
    """Of each photo, whether it is of a class the model knows, and how many labels its set holds; from [n, k] both."""
    known: list[bool | None] = [None] * len(logits)
    n_possible = [0] * len(logits)
    if len(logits) and bundle.none_of_these is not None:
        known = (novelty.energy(logits) <= bundle.none_of_these.threshold).tolist()
    if bundle.conformal is not None:
        n_possible = members(probabilities, bundle.conformal.threshold).sum(axis=1).tolist()
    return known, n_possible
