"""Any mode of pixel an image file can hold -> 8-bit RGB, by fixed rules that never look at the values in the picture."""

import numpy as np
import numpy.typing as npt
from PIL import Image

_BITS_TAG, _PHOTOMETRIC_TAG, _SAMPLE_FORMAT_TAG = 258, 262, 339  # TIFF
_SIGNED = 2


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded picture in RGB: transparency over white, deep grey scaled by its bit depth, CMYK and the rest as Pillow converts them."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode[0] in "IF":  # I;16, I;16B, I;16L, I;16N, I, F: convert("RGB") would clip these at 255
        return Image.fromarray(_grey_to_eight_bits(image)).convert("RGB")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return image.convert("RGB")


def _grey_to_eight_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    """uint8 [h, w] from 12, 16 or 32 bits per pixel."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    grey = _from_float(values) if image.mode == "F" else _from_integer(values, tags)
    if tags.get(_PHOTOMETRIC_TAG) == 0:
        grey = 255 - grey  # "white is zero", which Pillow turns over only up to 8 bits
    if "transparency" in image.info:
        grey = np.where(values == image.info["transparency"], np.uint8(255), grey)
    return grey


def _from_float(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """0.0 is black and 1.0 white, beyond is clipped, not-a-number is black."""
    grey: npt.NDArray[np.uint8] = np.rint(np.clip(np.nan_to_num(values, nan=0.0), 0.0, 1.0) * 255).astype(np.uint8)
    return grey


def _from_integer(values: npt.NDArray[np.integer], tags: dict[int, tuple[int, ...]]) -> npt.NDArray[np.uint8]:
    """0 is black and the largest value of the file's bit depth white; below zero is black. 16 bits: value / 257, rounded."""
    bits = tags.get(_BITS_TAG, (16,))[0]
    signed = tags.get(_SAMPLE_FORMAT_TAG, (1,))[0] == _SIGNED
    if bits == 32 and not signed:
        values = values.view(np.uint32)  # Pillow keeps them in int32
    top = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    exact = np.clip(values.astype(np.int64), 0, top)
    grey: npt.NDArray[np.uint8] = ((exact * 255 + top // 2) // top).astype(np.uint8)
    return grey
