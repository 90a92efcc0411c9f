"""What is known of each set of pretrained weights: one record, from the weights file's own header, from timm, or from here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from headstart.backbone import EMBEDDED_FILE, keras
from headstart.backbone.reading import read_header
from headstart.data.pixels import Preprocessing
from headstart.errors import ConfigError, HeadstartError, WeightsError, nearest

EMBEDDED = "embedded"
KERAS_RESNET50, KERAS_INCEPTION_V3 = keras.RESNET50, keras.INCEPTION_V3

# Which of timm's sets of weights a plain name means, where not timm's own default. Sets trained with long recipes, strong
# augmentation and label smoothing score better on ImageNet but often transfer worse with the network frozen; these two are the
# original recipes, from which most published transfer results come. To be measured: the choice is a default, any tag can be named.
_DEFAULT_TAGS = {"resnet50": "tv_in1k", "inception_v3": "tv_in1k"}

_HEADER_KEYS = ("timm_architecture", "input_px", "crop", "interpolation", "mean", "std")


@dataclass(frozen=True)
class Record:
    """One set of weights.

    Attributes:
        name: what users call it.
        architecture: the network's name in timm, without a tag.
        model_args: arguments for building it that differ from timm's.
        n_classes: classes of its own classifier (0: none).
        complete_through: last stage the weights cover; None: all.
        background_class: class 0 is none of ImageNet's.
        class_names, class_ids: its classes in order, where they are not ImageNet's 1,000; the ids are WordNet's.
        hub_id: Hugging Face repository of the file, where it can be fetched.
        bn_folded: batch norms were folded into the convolutions: what is left of them must not be re-estimated.
        source: where the weights come from.
        record_source: who says all this: `file`, `timm` or `headstart`.
    """

    name: str
    architecture: str
    preprocessing: Preprocessing
    model_args: Mapping[str, Any] = field(default_factory=dict)
    licence: str = "unknown"
    bn_folded: bool = False
    n_classes: int = 1000
    complete_through: str | None = None
    background_class: bool = False
    class_names: tuple[str, ...] | None = None
    class_ids: tuple[str, ...] | None = None
    hub_id: str | None = None
    source: str = ""
    record_source: str = "timm"


def find(name: str) -> Record:
    """The record of `name`: `embedded`, `resnet50_keras_v1`, `inception_v3_keras` or any network of timm, with or without a tag.

    Raises:
        ConfigError: no such network; the hint gives the nearest name.
        WeightsError: `embedded`, and this installation lacks the file.
    """
    if name == EMBEDDED:
        return _embedded()
    if name == KERAS_RESNET50:
        return _keras_resnet50()
    if name == KERAS_INCEPTION_V3:
        return _keras_inception_v3()
    import timm.models as timm_models  # takes seconds to import

    full_name = f"{name}.{_DEFAULT_TAGS[name]}" if name in _DEFAULT_TAGS else name
    try:
        known = timm_models.get_pretrained_cfg(full_name)
    except RuntimeError:  # a known network, an unknown tag
        known = None
    if known is None or not timm_models.is_model(known.architecture):
        raise _unknown(name)
    return _from_timm(known)


def from_header(header: Mapping[str, Any], where: str) -> Record:
    """The record that a weights file carries under the metadata key `headstart`.

    Args: where: the file, for messages.
    Raises: WeightsError: a key is absent or not of its kind.
    """
    absent = [key for key in _HEADER_KEYS if key not in header]
    if absent:
        raise WeightsError(f"the 'headstart' metadata of {where} lacks {', '.join(absent)}", hint="see docs/guides/weights.md for its keys")
    try:
        names, ids = _classes(header.get("class_names"))
        n_classes = int(header.get("classes", 0))
        return Record(
            name=str(header.get("architecture", header["timm_architecture"])),
            architecture=str(header["timm_architecture"]).split(".")[0],
            preprocessing=Preprocessing.from_json(header),
            model_args={key: value for key, value in dict(header.get("model_args", {})).items() if key != "num_classes"},
            licence=str(header.get("licence", "unknown")),
            bn_folded=bool(header.get("bn_folded", False)),
            n_classes=n_classes,
            complete_through=header.get("complete_through"),
            background_class=n_classes == 1001,
            class_names=names,
            class_ids=ids,
            source=str(header.get("source", "")),
            record_source="file",
        )
    except (KeyError, TypeError, ValueError, HeadstartError) as error:
        text = error.message if isinstance(error, HeadstartError) else f"{type(error).__name__}: {error}"
        raise WeightsError(f"the 'headstart' metadata of {where} cannot be used: {text}", hint="see docs/guides/weights.md") from error


def classifier_name(architecture: str) -> str | None:
    """Name of the layer that turns features into logits, where the network has exactly one."""
    import timm.models as timm_models

    known = timm_models.get_pretrained_cfg(architecture)
    return known.classifier if known is not None and isinstance(known.classifier, str) else None


def _classes(listed: Any) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Names and WordNet ids from a header's list of names, or of objects with `name` and `id`; a text only describes them."""
    if not isinstance(listed, list):
        return None, None
    if all(isinstance(entry, Mapping) for entry in listed):
        return tuple(str(entry["name"]) for entry in listed), tuple(str(entry.get("id", "")) for entry in listed)
    return tuple(map(str, listed)), None


def _embedded() -> Record:
    """The record of the backbone that comes with headstart: the header of its file."""
    if not EMBEDDED_FILE.is_file():
        raise WeightsError(
            f"this installation of headstart lacks its embedded backbone ({EMBEDDED_FILE})",
            hint="install headstart again, or name another with --backbone",
        )
    header = read_header(EMBEDDED_FILE)
    if header is None:
        raise WeightsError(f"the embedded backbone {EMBEDDED_FILE} lacks its 'headstart' metadata", hint="install headstart again")
    return replace(from_header(header, str(EMBEDDED_FILE)), name=EMBEDDED)


def _keras_resnet50() -> Record:
    """ResNet-50 with the strides, the pixels and the numbers of keras.applications.

    Source: keras/src/applications/resnet.py and imagenet_utils.py: BGR minus 103.939, 116.779, 123.68 (in 0..255).
    """
    mean = (123.68 / 255, 116.779 / 255, 103.939 / 255)
    return Record(
        name=KERAS_RESNET50,
        architecture="resnet50",
        preprocessing=Preprocessing(224, 1.0, "bilinear", mean, (1 / 255, 1 / 255, 1 / 255)),
        licence="MIT",
        source="keras.applications ResNet50, imagenet",
        record_source="headstart",
    )


def _keras_inception_v3() -> Record:
    """Inception-v3 with the pooling, the pixels and the numbers of keras.applications.

    Source: keras/src/applications/inception_v3.py and imagenet_utils.py: RGB in -1..1.
    """
    return Record(
        name=KERAS_INCEPTION_V3,
        architecture="inception_v3",
        preprocessing=Preprocessing(299, 1.0, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        licence="Apache-2.0",
        source="keras.applications InceptionV3, imagenet",
        record_source="headstart",
    )


def _from_timm(known: Any) -> Record:
    """timm's pretrained configuration as a record."""
    name = known.architecture if known.tag in (None, "") else f"{known.architecture}.{known.tag}"
    return Record(
        name=name,
        architecture=known.architecture,
        preprocessing=Preprocessing(
            input_px=known.input_size[-1],
            crop=known.crop_pct if known.crop_pct <= 1 else 1.0,
            interpolation=known.interpolation if known.interpolation in ("bilinear", "bicubic", "lanczos") else "bicubic",
            mean=tuple(known.mean),
            std=tuple(known.std),
        ),
        licence="unknown" if known.license is None else known.license,
        n_classes=known.num_classes,
        background_class=known.num_classes == 1001,
        hub_id=known.hf_hub_id,
        source="" if known.origin_url is None else known.origin_url,
    )


def _unknown(name: str) -> ConfigError:
    import timm.models as timm_models

    base, _, tag = name.partition(".")
    tagged = timm_models.list_pretrained(f"{base}.*") if tag and re.fullmatch(r"\w+", base) else []
    near = nearest(name, [EMBEDDED, KERAS_RESNET50, KERAS_INCEPTION_V3, *timm_models.list_models(), *tagged])
    hint = "`headstart backbones PATTERN` lists the names" if near is None else f"did you mean '{near}'?"
    return ConfigError(f"no backbone is called '{name}'", hint=hint)
