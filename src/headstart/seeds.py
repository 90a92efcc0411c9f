"""The only place that seeds random number generators."""

import random

import numpy as np


def seed_everything(seed: int) -> dict[str, int]:
    """Seed Python, NumPy and PyTorch; return what was set, for the record in run.json."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # CUDA and MPS devices included
    return {"python": seed, "numpy": seed % 2**32, "torch": seed}
