"""What training costs on this machine."""

import contextlib

import numpy as np
import pytest
import torch

from headstart.backbone import networks
from headstart.train import survey


def test_the_clock_of_another_device_stops_when_its_work_is_done(network: networks.Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device `meta`, which computes nothing, any accelerator is asked to finish what is timed."""
    waited_for: list[str] = []
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # it does not know the device `meta`
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda place: waited_for.append(place.type))
    sample = survey.Sample(np.zeros((2, 32, 32, 3), np.uint8), 0.0, None, 3)
    survey.measure(network, "layer4", sample)
    assert waited_for == []
    survey.measure(network, "layer4", survey.Sample(sample.images, 0.0, None, 3, device="meta"))
    assert set(waited_for) == {"meta"}
    assert len(waited_for) >= 3 * 2, "trunk, tail and step, once to warm up and at least once more"
