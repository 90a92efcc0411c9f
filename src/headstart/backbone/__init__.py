"""Pretrained networks: their records, weights, stages and cuts."""

from pathlib import Path

EMBEDDED_FILE = Path(__file__).parent / "embedded" / "embedded.safetensors"
"""The weights that come with headstart."""

IMAGENET_BRINGS = (
    "Networks with ImageNet weights get more photos right: on 1,000 photos of flowers, of 100 test photos mobilenetv2_100 had 88 and "
    "vit_tiny_patch16_224 had 93, the embedded one 84."
)
"""What its users should know. Source: `python bench/flowers.py`, mean of seeds 0, 1, 2."""
