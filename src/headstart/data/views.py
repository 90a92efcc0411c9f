"""Seeded views of a photo (augmentation that can be stored and found again), and a fingerprint that tells when two photos look the same."""

import hashlib
import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.data.pixels import Pixels, Preprocessing, prepare, resample
from headstart.errors import ConfigError, did_you_mean

POLICIES = ("none", "flip", "crop-flip")
MIN_AREA = 0.35  # of the photo, per crop; torchvision's 0.08 is meant for training from nothing on a million photos
MAX_STRETCH = 4 / 3  # width to height of a crop, before it is made square

HASH_BITS = 256
_STEP = 12  # of 255: a smaller step between neighbouring cells is noise; where photos are re-encoded it comes and goes
_MIN_STEPS = 8  # fewer, of 256, and the picture is too plain to be told from another plain one


def augment(image: Pixels, sha256: str, policy: str, index: int, pre: Preprocessing) -> Pixels:
    """View number `index` of a photo, uint8 [h, w, 3] -> uint8 [px, px, 3] with px = `pre.input_px`.

    The view follows from the photo's sha256, the policy and the index alone: no seed, no order, no thread changes it.

    Args:
        image: the decoded photo, or a smaller copy of it.
        sha256: hex digest of the photo's bytes.
        policy: "none": the centre view, as `prepare` makes it. "flip": the same, mirrored in every other view. "crop-flip": a crop of
            35 to 100 % of the area, 3:4 to 4:3, anywhere, mirrored for every other photo and view at random.
        index: number of the view (>= 0).
    Raises: ConfigError: an unknown policy.
    Source: crops as in "Going Deeper with Convolutions" (Szegedy et al. 2015), section 6, with a larger least area.
    """
    if policy not in POLICIES:
        raise ConfigError(f"expected an augmentation of {', '.join(POLICIES)}, found {policy!r}", hint=did_you_mean(policy, POLICIES))
    if policy == "none":
        return prepare(image, pre)
    if policy == "flip":  # two views differ at all; which of them comes first is drawn, so that one view still mirrors half the photos
        first = _draws(sha256, policy, 0)[0] < 0.5
        view = prepare(image, pre)
        return _mirrored(view) if first == (index % 2 == 0) else view
    draws = _draws(sha256, policy, index)
    view = _crop(image, draws[1:], pre)
    return _mirrored(view) if draws[0] < 0.5 else view


def perceptual_hash(image: Pixels) -> bytes | None:
    """32 bytes that are equal for pictures that look the same, mirrored or not; None for a picture too plain to be told from others.

    A difference hash: of a 16 x 8 and an 8 x 16 grid of grey cells, which ones are clearly brighter than their left and upper
    neighbour. A picture and its mirror image give exactly the same hash. It does not see colour. No two of 1,797 handwritten digits
    of 8 x 8 px, 15,000 CIFAR-10 and 1,000 flower photos share one; of photos saved again as JPEG of quality 90, two in three keep it.
    Source: docs/concepts/pixels.md, "Likeness".
    """
    grey = Image.fromarray(image).convert("L")
    # Mirrored before it is scaled: scaling rounds, so mirroring afterwards would not always give the same bits.
    both = [_steps(grey), _steps(grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT))]
    if min(int(steps.sum()) for steps in both) < _MIN_STEPS:
        return None
    return min(np.packbits(steps).tobytes() for steps in both)


def _steps(grey: Image.Image) -> npt.NDArray[np.bool_]:
    """bool [256]: where brightness clearly rises to the right, then where it clearly rises downward."""
    across = np.asarray(grey.resize((17, 8), Image.Resampling.BILINEAR), dtype=np.int16)
    down = np.asarray(grey.resize((8, 17), Image.Resampling.BILINEAR), dtype=np.int16)
    return np.concatenate([(np.diff(across, axis=1) > _STEP).ravel(), (np.diff(down, axis=0) > _STEP).ravel()])


def _draws(sha256: str, policy: str, index: int) -> list[float]:
    """Eight numbers in 0..1, from a hash rather than a generator: NumPy may change its streams, SHA-256 does not."""
    digest = hashlib.sha256(f"{sha256} {policy} {index}".encode()).digest()
    return [int.from_bytes(digest[at : at + 4], "big") / 2**32 for at in range(0, 32, 4)]


def _crop(image: Pixels, draws: list[float], pre: Preprocessing) -> Pixels:
    height, width = image.shape[:2]
    area = (MIN_AREA + (1 - MIN_AREA) * draws[0]) * width * height
    stretch = math.exp((2 * draws[1] - 1) * math.log(MAX_STRETCH))
    crop_w, crop_h = min(width, math.sqrt(area * stretch)), min(height, math.sqrt(area / stretch))
    left, top = draws[2] * (width - crop_w), draws[3] * (height - crop_h)
    return resample(image, (left, top, min(width, left + crop_w), min(height, top + crop_h)), pre.input_px, pre.interpolation)


def _mirrored(view: Pixels) -> Pixels:
    return np.ascontiguousarray(view[:, ::-1])
