"""The table of `headstart backbones`. The short list comes from a file made ahead: building its networks takes half a minute.

`python -m headstart.backbone.listing` makes that file anew; a test compares it with the networks themselves.
"""

import fnmatch
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.backbone.catalog import EMBEDDED, KERAS_INCEPTION_V3, KERAS_RESNET50, find
from headstart.backbone.weights import local_file
from headstart.errors import ConfigError, did_you_mean
from headstart.files import write_json
from headstart.progress import progress

log = logging.getLogger("headstart")

SHORT_LIST = (
    EMBEDDED,
    KERAS_RESNET50,
    "resnet18",
    "resnet50",
    "inception_v3",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_small",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_small_patch14_dinov2.lvd142m",
)
MOST_ROWS = 40

_FILE = Path(__file__).parent / "known.json"


@dataclass(frozen=True)
class Row:
    """One network, for people to choose from. `n_params` counts parameters without the classifier's."""

    name: str
    n_params: int
    input_px: int
    stages: tuple[str, ...]
    licence: str
    weights_at_hand: str


def rows(pattern: str | None = None) -> list[Row]:
    """The short list; or up to `MOST_ROWS` networks whose name has `pattern` in it (with * and ?: matches it).

    Raises: ConfigError: nothing matches.
    """
    if pattern is None:
        return [_row(facts) for facts in json.loads(_FILE.read_text(encoding="utf-8"))]
    found = _matching(pattern)
    if len(found) > MOST_ROWS:
        log.warning("%d networks match '%s'; these are the first %d", len(found), pattern, MOST_ROWS)
    listed = []
    with progress("Building networks", len(found[:MOST_ROWS]), "networks") as advance:
        for name in found[:MOST_ROWS]:
            listed.append(_row(describe(name)))
            advance(1)
    return listed


def describe(name: str) -> dict[str, Any]:
    """The facts of a network that do not depend on this machine, found by building it without its weights."""
    import torch

    from headstart.backbone.catalog import classifier_name
    from headstart.backbone.graph import trace
    from headstart.backbone.networks import create
    from headstart.backbone.stages import lay_out

    record = find(name)
    px = record.preprocessing.input_px
    try:
        with torch.device("meta"):  # shapes without numbers
            module = create(record, n_classes=0, px=px)
    except ConfigError:  # a few constructors need numbers
        module = create(record, n_classes=0, px=px)
    try:
        stages = lay_out(trace(module, px), classifier_name(record.architecture)).names
    except ConfigError:  # such a network can be listed, not used
        stages = []
    return {
        "name": name,
        "record": record.name,
        "n_params": sum(parameter.numel() for parameter in module.parameters()),
        "input_px": px,
        "stages": stages,
        "licence": record.licence,
        "hub_id": record.hub_id,
    }


def _row(facts: dict[str, Any]) -> Row:
    name, hub_id = facts["name"], facts["hub_id"]
    if name == EMBEDDED:
        at_hand = "yes: comes with headstart"
    elif (path := local_file((name, facts["record"]), hub_id)) is not None:
        at_hand = f"yes: {path}"
    else:
        at_hand = "no: needs --weights FILE" if hub_id is None else "no: would be downloaded"
    return Row(name, facts["n_params"], facts["input_px"], tuple(facts["stages"]), facts["licence"], at_hand)


def _matching(pattern: str) -> list[str]:
    import timm.models as timm_models  # takes seconds to import

    plain = [EMBEDDED, KERAS_RESNET50, KERAS_INCEPTION_V3, *timm_models.list_models()]
    names = [*plain, *timm_models.list_pretrained()] if "." in pattern else plain
    wanted = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    found = [name for name in dict.fromkeys(names) if fnmatch.fnmatchcase(name, wanted)]
    if not found:
        raise ConfigError(f"no backbone matches '{pattern}'", hint=did_you_mean(pattern.strip("*?"), names))
    return found


if __name__ == "__main__":
    write_json(_FILE, [describe(name) for name in SHORT_LIST])
