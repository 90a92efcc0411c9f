"""Stage names that users and recipes rely on."""

import json

import pytest
import torch
from backbone_samples import FAMILIES, network
from torch import nn

from headstart.backbone import listing
from headstart.backbone.cut import stages
from headstart.backbone.graph import trace
from headstart.backbone.stages import lay_out
from headstart.errors import ConfigError

RESNET = ["conv1", "layer1", "layer2", "layer3", "layer4", "head"]
EXPECTED = {
    "resnet18": RESNET,
    "resnet50": RESNET,
    "resnet50_keras_v1": RESNET,
    "inception_v3": [
        *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "Mixed_5b", "Mixed_5c", "Mixed_5d"),
        *("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c", "head"),
    ],
    "mobilenetv2_100": ["conv_stem", *(f"blocks.{i}" for i in range(7)), "conv_head", "head"],
    "mobilenetv3_small_100": ["conv_stem", *(f"blocks.{i}" for i in range(6)), "head"],
    "mobilenetv4_conv_small": ["conv_stem", *(f"blocks.{i}" for i in range(5)), "head"],
    "efficientnet_b0": ["conv_stem", *(f"blocks.{i}" for i in range(7)), "conv_head", "head"],
    "convnext_atto": ["stem", *(f"stages.{i}" for i in range(4)), "head"],
    "vit_tiny_patch16_224": ["patch_embed", *(f"blocks.{i}" for i in range(4)), "head"],
    "vit_small_patch14_dinov2.lvd142m": ["patch_embed", "blocks.0", "blocks.1", "head"],
    "regnetx_002": ["stem", "s1", "s2", "s3", "s4", "head"],
    "densenet121": [
        *("features.conv0", "features.denseblock1", "features.transition1", "features.denseblock2", "features.transition2"),
        *("features.denseblock3", "features.transition3", "features.denseblock4", "head"),
    ],
}


@pytest.mark.parametrize(("name", "px", "arguments"), FAMILIES, ids=[name for name, *_ in FAMILIES])
def test_stages_have_their_documented_names(name: str, px: int, arguments: tuple) -> None:
    assert stages(network(name, px, arguments)) == EXPECTED[name]


@pytest.mark.parametrize("name", ["embedded", "mobilenetv3_large_100", "resnet50"])
def test_short_list_is_what_the_networks_say(name: str) -> None:
    known = {facts["name"]: facts for facts in json.loads(listing._FILE.read_text(encoding="utf-8"))}
    assert tuple(known) == listing.SHORT_LIST
    assert listing.describe(name) == known[name], "make it anew: python -m headstart.backbone.listing"


@pytest.mark.slow
@pytest.mark.parametrize("name", listing.SHORT_LIST)
def test_whole_short_list_is_what_the_networks_say(name: str) -> None:
    test_short_list_is_what_the_networks_say(name)


class Skipping(nn.Module):
    """Its middle part ends while the first part's output is still needed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.fc = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first(x)
        joined = self.last(self.middle(first)) + first
        return self.fc(joined.mean((2, 3)))


def test_a_part_that_ends_where_more_is_needed_joins_the_next() -> None:
    layout = lay_out(trace(Skipping(), 8), "fc")
    assert layout.names == ["first", "head"]


def test_sizes_are_numbers_and_the_batch_stays_open() -> None:
    class Flattening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n, _, height, width = x.shape
            torch._assert(height == 8, "8 px only")
            return self.fc(self.conv(x).reshape(n, 4, height * width).mean(-1))

    module = Flattening()
    traced = trace(module, 8)
    x = torch.rand(5, 3, 8, 8)
    assert torch.equal(traced.whole()(x), module(x))
    assert not any("_assert" in str(node.target) for node in traced.graph.nodes)
    with pytest.raises(ConfigError, match="cannot take images of 9 px: 8 px only"):
        trace(module, 9)


def test_code_that_depends_on_values_is_refused() -> None:
    class Deciding(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ConfigError, match="cannot be traced, so it cannot be cut"):
        trace(Deciding(), 8)


def test_in_place_writes_whose_result_nobody_names_are_refused() -> None:
    class Writing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            y.clamp_(0, 1)
            return y.mean((2, 3))

    with pytest.raises(ConfigError, match="changes a tensor in place"):
        trace(Writing(), 8)
