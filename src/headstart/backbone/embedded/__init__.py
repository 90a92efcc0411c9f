"""The backbone inside the package: `embedded.safetensors`, trained by the project's own `pretrain/`, described in MODEL_CARD.md."""
