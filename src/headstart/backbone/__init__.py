"""Pretrained networks: their records, weights, stages and cuts."""

from pathlib import Path

EMBEDDED_FILE = Path(__file__).parent / "embedded" / "embedded.safetensors"
"""The weights that come with headstart."""
