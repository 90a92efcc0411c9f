"""Attention in a tail: PyTorch's fused operation where it is fast, written out where its gradients are slow."""

import math
from typing import Any

import torch
from torch import fx
from torch.nn.functional import scaled_dot_product_attention

WEIGHTS_AT_MOST = 2**20  # in one block: ViT-Large at 224 px has 0.6 million, ViT-Small at 384 px has 2.0


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> torch.Tensor:
    """`torch.nn.functional.scaled_dot_product_attention`: queries [..., n, d], keys and values [..., m, d] to [..., n, d].

    Plain attention on a CPU that will be asked for gradients is computed as the product, softmax and product that it is: the fused
    operation's backward pass takes half of a vision transformer's training there, more than all of its matrix products
    (docs/LOG.md, "Training on a CPU"). It keeps all weights for that, which the fused one does not: more than `WEIGHTS_AT_MOST` of a
    photo are too many to keep.
    """
    is_plain = attn_mask is None and not dropout_p and not is_causal and not options
    is_small = query.shape[:-1].numel() * key.shape[-2] <= WEIGHTS_AT_MOST * len(query)
    if not is_plain or not is_small or query.device.type != "cpu" or not torch.is_grad_enabled():
        attended: torch.Tensor = scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, **options)
        return attended
    return ((query / math.sqrt(query.shape[-1])) @ key.transpose(-2, -1)).softmax(-1) @ value


def write_out(body: fx.GraphModule) -> None:
    """Let every attention of a traced module be computed by `attend`."""
    for node in body.graph.nodes:
        if node.op == "call_function" and node.target is scaled_dot_product_attention:
            node.target = attend
    body.recompile()
