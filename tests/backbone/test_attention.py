"""Attention in a tail: the same answers and gradients as PyTorch's own operation."""

import torch
from backbone_samples import network
from torch.nn.functional import scaled_dot_product_attention

from headstart.backbone import cut
from headstart.backbone.attention import attend


def test_written_out_attention_has_the_answers_and_gradients_of_the_fused_one() -> None:
    torch.manual_seed(0)
    given = [torch.randn(2, 3, 5, 8, requires_grad=True) for _ in range(3)]
    theirs = scaled_dot_product_attention(*given)
    mine = attend(*given)
    torch.testing.assert_close(mine, theirs)
    wanted = torch.autograd.grad(theirs.square().sum(), given)
    torch.testing.assert_close(torch.autograd.grad(mine.square().sum(), given), wanted)


def test_a_mask_or_an_order_is_kept() -> None:
    torch.manual_seed(1)
    query, key, value = (torch.randn(1, 2, 4, 8, requires_grad=True) for _ in range(3))
    mask = torch.randn(4, 4)
    torch.testing.assert_close(attend(query, key, value, mask), scaled_dot_product_attention(query, key, value, mask))
    torch.testing.assert_close(attend(query, key, value, is_causal=True), scaled_dot_product_attention(query, key, value, is_causal=True))
    torch.testing.assert_close(attend(query, key, value, scale=0.3), scaled_dot_product_attention(query, key, value, scale=0.3))


def test_a_tail_in_training_answers_as_it_does_without_gradients() -> None:
    _, tail = cut.split(network("vit_tiny_patch16_224", 64, (("depth", 2),)), "input")
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = tail(images)
    written_out = [node for node in tail.body.graph.nodes if node.target is attend]
    assert len(written_out) == 2
    torch.testing.assert_close(tail(images).detach(), expected, atol=1e-5, rtol=1e-5)


def test_weights_that_are_too_many_to_keep_are_left_to_the_fused_operation() -> None:
    for n, name in ((64, "UnsafeViewBackward0"), (1025, "ScaledDotProduct")):
        query = torch.zeros(1, 1, n, 4, requires_grad=True)
        assert name in type(attend(query, query, query).grad_fn).__name__
