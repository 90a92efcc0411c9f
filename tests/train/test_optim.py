import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from headstart.config import Phase
from headstart.train.optim import optimiser, rate_factor, rate_schedule


@given(st.integers(1, 500))
def test_a_cosine_schedule_rises_to_the_peak_once_and_falls_to_zero(n_steps: int) -> None:
    factors = [rate_factor("cosine", step, n_steps) for step in range(n_steps + 1)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert max(factors) == pytest.approx(1)
    assert factors[-1] == pytest.approx(0, abs=1e-9) or n_steps == 1
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


def test_matrices_decay_and_norms_and_biases_do_not() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    groups = optimiser(network, Phase(weight_decay=0.1)).param_groups
    assert [(sorted(p.ndim for p in group["params"]), group["weight_decay"]) for group in groups] == [([2, 4], 0.1), ([1, 1, 1, 1], 0.0)]


def test_a_frozen_parameter_is_not_optimised() -> None:
    network = nn.Linear(2, 2)
    network.weight.requires_grad_(False)
    groups = optimiser(network, Phase(optimiser="sgd", rate=0.5)).param_groups
    assert [len(group["params"]) for group in groups] == [0, 1]
    assert isinstance(optimiser(network, Phase(optimiser="sgd")), torch.optim.SGD)


def test_the_schedule_sets_the_rate_of_each_step() -> None:
    optimizer = optimiser(nn.Linear(2, 2), Phase(rate=0.5, schedule="constant"))
    schedule = rate_schedule(optimizer, Phase(rate=0.5, schedule="constant"), 3)
    optimizer.step()
    schedule.step()
    assert schedule.get_last_lr() == [0.5, 0.5]
