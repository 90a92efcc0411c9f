import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_tail import make_tail
from torch import nn

from headstart.config import Phase
from headstart.train.optim import Schedule, optimiser, rate_factor, take_step

SCHEDULES = ("cosine", "constant", "one-cycle", "plateau")


@given(st.integers(1, 500), st.floats(0, 1))
def test_a_cosine_schedule_rises_to_the_peak_once_and_falls_to_zero(n_steps: int, warm_up: float) -> None:
    factors = [rate_factor("cosine", step, n_steps, warm_up) for step in range(n_steps + 1)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert max(factors) == pytest.approx(1)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    if round(warm_up * n_steps) < n_steps:
        assert factors[-1] == pytest.approx(0, abs=1e-9)


@given(st.integers(1, 500))
def test_one_cycle_rises_from_a_25th_for_three_tenths_of_the_steps_and_falls_to_zero(n_steps: int) -> None:
    factors = [rate_factor("one-cycle", step, n_steps, 0.1) for step in range(n_steps + 1)]
    up = round(0.3 * n_steps)
    assert factors[up] == 1
    assert factors[0] == pytest.approx(0.04 if up else 1)
    assert factors[-1] == pytest.approx(0, abs=1e-9)
    assert factors[: up + 1] == sorted(factors[: up + 1])
    assert factors[up:] == sorted(factors[up:], reverse=True)


@given(st.sampled_from(("constant", "plateau")), st.integers(1, 500), st.floats(0, 1))
def test_constant_rates_warm_up_and_stay(schedule: str, n_steps: int, warm_up: float) -> None:
    factors = [rate_factor(schedule, step, n_steps, warm_up) for step in range(n_steps)]
    n_warm = round(warm_up * n_steps)
    assert factors[n_warm:] == [1.0] * (n_steps - n_warm)
    assert factors[:n_warm] == [(step + 1) / n_warm for step in range(n_warm)]


def test_matrices_decay_and_norms_and_biases_do_not() -> None:
    for group in optimiser(make_tail(), Phase(weight_decay=0.1)).param_groups:
        assert {parameter.ndim > 1 for parameter in group["params"]} == {group["decay"] == 0.1}


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "rmsprop"])
def test_decay_shrinks_matrices_by_rate_times_decay_whatever_the_gradient(name: str) -> None:
    steps = []
    for decay in (0.0, 0.1):
        tail = make_tail()
        optimizer = optimiser(tail, Phase(optimiser=name, rate=0.5, weight_decay=decay))
        for i, parameter in enumerate(tail.parameters()):
            parameter.grad = torch.full_like(parameter, 0.1 + i)
        take_step(optimizer)
        steps.append(tail)
    for start, plain, decayed in zip(make_tail().parameters(), *(tail.parameters() for tail in steps), strict=True):
        share = 0.5 * 0.1 if start.ndim > 1 else 0.0
        torch.testing.assert_close(decayed, plain - share * start)
        assert not torch.equal(plain, start)


def test_a_frozen_parameter_is_not_optimised() -> None:
    tail = make_tail()
    tail.body.b.weight.requires_grad_(False)
    optimised = {parameter for group in optimiser(tail, Phase()).param_groups for parameter in group["params"]}
    assert optimised == set(tail.parameters()) - {tail.body.b.weight}


@pytest.mark.parametrize(("name", "kind"), [("adam", "Adam"), ("adamw", "Adam"), ("sgd", "SGD"), ("rmsprop", "RMSprop")])
def test_each_name_gives_its_optimiser_with_the_momentum_asked_for(name: str, kind: str) -> None:
    made = optimiser(make_tail(), Phase(optimiser=name, momentum=0.7))
    assert type(made).__name__ == kind
    assert made.param_groups[0].get("momentum", 0.7) == 0.7
    assert made.param_groups[0].get("nesterov", True)


def test_momentum_is_as_usual_with_each_optimiser_where_none_is_asked_for() -> None:
    usual = {name: optimiser(make_tail(), Phase(optimiser=name)).param_groups[0]["momentum"] for name in ("sgd", "rmsprop")}
    assert usual == {"sgd": 0.9, "rmsprop": 0.0}


def test_without_momentum_sgd_is_plain() -> None:
    tail = make_tail()
    optimizer = optimiser(tail, Phase(optimiser="sgd", momentum=0.0, rate=2.0, weight_decay=0.0))
    for parameter in tail.parameters():
        parameter.grad = torch.ones_like(parameter)
    take_step(optimizer)
    assert all(torch.equal(new, old - 2) for new, old in zip(tail.parameters(), make_tail().parameters(), strict=True))


def _rates(phase: Phase, step: int, n_steps: int) -> dict[nn.Parameter, float]:
    tail = make_tail()
    optimizer = optimiser(tail, phase)
    Schedule(optimizer, phase, n_steps).apply(step)
    names = {parameter: name for name, parameter in tail.named_parameters()}
    return {names[parameter]: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_each_stage_has_a_share_of_the_next_ones_rate(schedule: str) -> None:
    phase = Phase(rate=0.1, rate_decay=0.5, schedule=schedule)
    rates = _rates(phase, 40, 100)
    peak = 0.1 * rate_factor(schedule, 40, 100, 0.1)
    for name, rate in rates.items():
        distance = 2 if name.startswith("body.a.") else 1 if name.startswith("body.b.") else 0
        assert rate == pytest.approx(peak * 0.5**distance)
    assert set(_rates(dataclasses.replace(phase, rate_decay=1.0), 40, 100).values()) == {peak}


def test_a_stage_that_is_named_has_its_own_share_and_the_others_follow_rate_decay() -> None:
    rates = _rates(Phase(rate=0.1, rate_decay=0.5, stage_rates={"a": 0.8, "head": 0.0}, schedule="constant", warm_up=0.0), 0, 100)
    found = {name.split(".")[1] if name.startswith("body.") else "head": rate for name, rate in rates.items()}
    assert found == pytest.approx({"a": 0.08, "b": 0.05, "head": 0.0})


@pytest.mark.parametrize(("name", "high"), [("adamw", 0.95), ("sgd", 0.9), ("rmsprop", 0.9)])
def test_one_cycle_lowers_momentum_while_the_rate_rises(name: str, high: float) -> None:
    phase = Phase(optimiser=name, schedule="one-cycle", rate=0.1, momentum=0.9 if name == "rmsprop" else None)
    optimizer = optimiser(make_tail(), phase)
    schedule, momentum = Schedule(optimizer, phase, 100), []
    for step in range(100):
        schedule.apply(step)
        group = optimizer.param_groups[0]
        momentum.append(group["betas"][0] if "betas" in group else group["momentum"])
    assert (momentum[0], momentum[30]) == (pytest.approx(high), pytest.approx(high - 0.1))
    assert momentum[:31] == sorted(momentum[:31], reverse=True)
    assert momentum[30:] == sorted(momentum[30:])


def test_a_plateau_takes_a_fifth_after_three_epochs_without_a_better_loss_and_only_then() -> None:
    phase = Phase(schedule="plateau", rate=1.0, warm_up=0.0)
    schedule = Schedule(optimiser(make_tail(), phase), phase, 100)
    rates = []
    for loss in (5, 4, 4, 4.5, 3, 3, 3, 3, 9, 9, 9):
        schedule.observe(loss)
        rates.append(schedule.rate(50))
    assert rates == pytest.approx([1] * 7 + [0.2] * 3 + [0.04])
    other = Schedule(optimiser(make_tail(), phase), phase, 100)
    other.restore(schedule.facts())
    for loss in (9, 9, 9):
        schedule.observe(loss)
        other.observe(loss)
        assert other.rate(50) == schedule.rate(50)


def test_only_a_plateau_looks_at_the_loss() -> None:
    phase = Phase(schedule="constant", rate=1.0, warm_up=0.0)
    schedule = Schedule(optimiser(make_tail(), phase), phase, 100)
    for _ in range(9):
        schedule.observe(1.0)
    assert schedule.rate(50) == 1.0
