"""A batch in parts, each on a thread: the same logits and gradients as in one piece."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from headstart.backbone import cut, networks
from headstart.backbone.cut import Tail
from headstart.config import Phase
from headstart.train.loop import Examples, train
from headstart.train.parts import LEAST_ROWS, in_parts


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["resnet10t", "vit_tiny_patch16_224"])
def tail(request: pytest.FixtureRequest) -> Tail:
    torch.manual_seed(0)
    arguments = {"depth": 2} if request.param.startswith("vit") else {}
    network = networks.untrained(request.param, px=64, **arguments)
    return cut.split(network, "input")[1].with_head(3).train()


def photos(n: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


def gradients(tail: Tail, logits: torch.Tensor) -> list[torch.Tensor]:
    weights = [weight for weight in tail.parameters() if weight.requires_grad]
    labels = torch.arange(len(logits)) % 3
    return list(torch.autograd.grad(nn.functional.cross_entropy(logits.float(), labels), weights))


@pytest.mark.parametrize("n", [2 * LEAST_ROWS, 2 * LEAST_ROWS + 5])
def test_logits_and_gradients_are_those_of_the_whole_batch(tail: Tail, n: int) -> None:
    x = photos(n)
    divided = in_parts(tail)
    assert divided is not tail
    expected, logits = tail(x), divided(x)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)
    for mine, wanted in zip(gradients(tail, logits), gradients(tail, expected), strict=True):
        torch.testing.assert_close(mine, wanted, atol=1e-5 + 1e-4 * float(wanted.abs().max()), rtol=1e-3)


def test_the_same_again_is_the_same_to_the_last_bit(tail: Tail) -> None:
    x, divided = photos(40), in_parts(tail)
    first, again = ([*gradients(tail, logits), logits] for logits in (divided(x), divided(x)))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_autocast_holds_in_the_parts(tail: Tail) -> None:
    x, divided = photos(32), in_parts(tail)
    with torch.autocast("cpu", torch.bfloat16):
        logits, expected = divided(x), tail(x)
    assert logits.dtype is torch.bfloat16
    torch.testing.assert_close(logits.float(), expected.float(), atol=0.05 * float(expected.detach().abs().max()), rtol=0.05)
    assert all(bool(gradient.isfinite().all()) and gradient.dtype is torch.float32 for gradient in gradients(tail, logits))


def test_gradients_of_several_batches_add_up(tail: Tail) -> None:
    x, divided = photos(32), in_parts(tail)
    for _ in range(2):
        divided(x).sum().backward()
    twice = [weight.grad.clone() for weight in tail.parameters() if weight.grad is not None]
    tail.zero_grad()
    divided(x).sum().backward()
    once = [weight.grad for weight in tail.parameters() if weight.grad is not None]
    for mine, wanted in zip(twice, once, strict=True):
        torch.testing.assert_close(mine, 2 * wanted)


def test_frozen_weights_get_no_gradient(tail: Tail) -> None:
    frozen = next(iter(tail.body.parameters()))
    frozen.requires_grad_(False)
    in_parts(tail)(photos(32)).sum().backward()
    assert frozen.grad is None
    assert tail.classifier.weight.grad is not None


def test_few_rows_stay_together(tail: Tail) -> None:
    x = photos(2 * LEAST_ROWS - 1)
    assert torch.equal(in_parts(tail)(x), tail(x))


def test_what_looks_at_other_rows_or_draws_is_not_divided(tail: Tail) -> None:
    dropping = tail.with_head(3).train()
    dropping.body.add_module("drop", nn.Dropout(0.1))
    assert in_parts(dropping) is dropping
    idle = tail.with_head(3).train()
    idle.body.add_module("drop", nn.Dropout(0.0))
    assert in_parts(idle) is not idle
    frozen = tail.with_head(3).train()
    frozen.body.requires_grad_(False)
    assert in_parts(frozen) is frozen
    torch.set_num_threads(1)
    assert in_parts(tail) is tail


def test_batch_statistics_are_of_the_whole_batch() -> None:
    network = networks.untrained("resnet10t", px=64)
    tail = cut.split(network, "input", batch_statistics=True)[1].with_head(3).train()
    assert in_parts(tail) is tail


def test_other_threads_keep_their_number_of_threads(tail: Tail) -> None:
    in_parts(tail)(photos(32))
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 2


def test_training_in_parts_repeats_and_agrees_with_training_in_one_piece() -> None:
    network = networks.untrained("resnet10t", px=32)
    tail = cut.split(network, "input")[1].with_head(2)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    examples = Examples((pixels,), np.arange(40), np.arange(40) % 2, tuple(map(str, range(40))))  # type: ignore[arg-type]
    phase = Phase(cut="input", epochs=2, rate=1e-3, batch_size=20, augment="none")

    def losses(n_threads: int) -> list[float]:
        torch.set_num_threads(n_threads)
        trained = train(tail, examples, examples, phase, seed=1, preprocessing=network.preprocessing)
        return [loss for epoch in trained.history for loss in (epoch.train_loss, epoch.val_loss or 0.0)]

    divided = losses(2)
    assert losses(2) == divided
    assert losses(1) == pytest.approx(divided, rel=1e-3)


class Counting(nn.Module):
    """Passes on what it gets, and keeps how many rows and how many threads there were."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen: list[tuple[int, int]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append((len(x), torch.get_num_threads()))
        return x * self.weight


def test_few_parts_share_all_cores() -> None:
    torch.set_num_threads(4)
    body = Counting()
    tail = Tail(body, nn.Linear(3, 2), normalise=nn.Identity(), d_features=3, stage_of={"body.weight": "a"}).train()
    in_parts(tail)(torch.ones(2 * LEAST_ROWS, 3)).sum().backward()
    assert body.seen == [(LEAST_ROWS, 2)] * 2
    assert torch.get_num_threads() == 4
