"""Networks with random weights, small inputs; built once a run."""

from functools import cache
from typing import Any

import torch

from headstart.backbone import networks
from headstart.backbone.networks import Network

# name, side of the input, arguments: families that differ in how they are written, at the smallest size they take.
FAMILIES: tuple[tuple[str, int, tuple[tuple[str, Any], ...]], ...] = (
    ("resnet18", 32, ()),
    ("resnet50", 32, (("layers", (2, 2, 2, 2)),)),
    ("resnet50_keras_v1", 32, (("layers", (2, 2, 2, 2)),)),
    ("inception_v3", 80, ()),
    ("mobilenetv2_100", 32, (("pad_type", "same"),)),
    ("mobilenetv3_small_100", 32, ()),
    ("mobilenetv4_conv_small", 32, ()),
    ("efficientnet_b0", 32, ()),
    ("convnext_atto", 32, ()),
    ("vit_tiny_patch16_224", 64, (("depth", 4),)),
    ("vit_small_patch14_dinov2.lvd142m", 56, (("depth", 2),)),
    ("regnetx_002", 32, ()),
    ("densenet121", 32, ()),
)


@cache
def network(name: str, px: int, arguments: tuple[tuple[str, Any], ...] = (), stop: str | None = None) -> Network:
    """Random weights, with batch norms that are not the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = networks.untrained(name, px=px, stop=stop, **dict(arguments))
        for module in made.module.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return made


def photos(px: int, n: int = 2) -> torch.Tensor:
    """Noise, uint8 [n, px, px, 3]."""
    return torch.randint(0, 256, (n, px, px, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
