"""3x3 convolutions over small maps as matrix products: the same numbers, a fraction of the time.

On maps of a few pixels PyTorch's kernels spend most of their time around the arithmetic: the weight gradient of 512 to 512 channels over
192 maps of 2 x 2 px takes 90 ms of one core, as a product of two matrices 6 ms (docs/LOG.md).
"""

from typing import Any

import torch

functional = torch.nn.functional

FEW_PIXELS = 16
"""Up to so many pixels of a map the answers and the gradients of the input are products, from `WIDE` channels on."""
SOME_PIXELS = 36
"""Up to so many pixels of the answer's map the gradients of the weights are."""
WIDE = 512


def with_products(network: torch.nn.Module) -> torch.nn.Module:
    """The network with `Convolution` in the place of its widest 3x3 convolutions; parameters and their names stay."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Conv2d) and _fits(child):
                setattr(module, name, Convolution.of(child))
    return network


def _fits(conv: torch.nn.Conv2d) -> bool:
    plain = conv.padding == (1, 1) and conv.dilation == (1, 1) and conv.groups == 1 and conv.bias is None
    return conv.kernel_size == (3, 3) and plain and conv.padding_mode == "zeros" and conv.out_channels >= WIDE // 2


class Convolution(torch.nn.Conv2d):
    """A 3x3 convolution with padding 1 and without bias."""

    @classmethod
    def of(cls, conv: torch.nn.Conv2d) -> "Convolution":
        made = cls(conv.in_channels, conv.out_channels, 3, stride=conv.stride, padding=1, bias=False, device="meta")  # type: ignore[arg-type]
        made.weight = conv.weight
        return made

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            x_nchw, weight = x_nchw.to(kind), self.weight.to(kind)
        else:
            weight = self.weight
        y: torch.Tensor = _Convolution.apply(x_nchw, weight, self.stride[0])
        return y


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_nchw: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
        ctx.save_for_backward(x_nchw, weight)
        ctx.stride = stride
        h, w = _answer_size(x_nchw, stride)
        if h * w <= FEW_PIXELS and len(weight) >= WIDE:
            return _maps(_patches(x_nchw, stride) @ _rows(weight).T, len(x_nchw), h, w)
        return functional.conv2d(x_nchw, weight, None, stride, 1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:  # type: ignore[override]
        x_nchw, weight = ctx.saved_tensors
        wants_x, wants_weight = ctx.needs_input_grad[:2]
        n, _, h, w = x_nchw.shape
        by_product = h * w <= FEW_PIXELS and weight.shape[1] >= WIDE and ctx.stride == 1
        of_x = of_weight = None
        if wants_x and by_product:
            turned = weight.permute(2, 3, 0, 1).reshape(9, *weight.shape[:2]).flip(0).reshape(-1, weight.shape[1])
            of_x, wants_x = _maps(_patches(grad, 1) @ turned, n, h, w), False
        if wants_weight and grad.shape[2] * grad.shape[3] <= SOME_PIXELS:
            rows = grad.permute(0, 2, 3, 1).reshape(-1, len(weight)).T @ _patches(x_nchw, ctx.stride)
            of_weight, wants_weight = rows.view(len(weight), 3, 3, -1).permute(0, 3, 1, 2), False
        if wants_x or wants_weight:
            strides = [ctx.stride] * 2
            others = torch.ops.aten.convolution_backward(
                grad, x_nchw, weight, None, strides, [1, 1], [1, 1], False, [0, 0], 1, [wants_x, wants_weight, False]
            )
            of_x, of_weight = (others[0] if wants_x else of_x), (others[1] if wants_weight else of_weight)
        return of_x, of_weight, None


def _answer_size(x_nchw: torch.Tensor, stride: int) -> tuple[int, int]:
    return (x_nchw.shape[2] - 1) // stride + 1, (x_nchw.shape[3] - 1) // stride + 1


def _patches(x_nchw: torch.Tensor, stride: int) -> torch.Tensor:
    """What each pixel of the answer looks at: [n h w, 3 x 3 x channels]."""
    x_nhwc = functional.pad(x_nchw.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    n, _, _, c = x_nhwc.shape
    h, w = _answer_size(x_nchw, stride)
    image, row, pixel, channel = x_nhwc.stride()
    return x_nhwc.as_strided((n, h, w, 3, 3, c), (image, row * stride, pixel * stride, row, pixel, channel)).reshape(n * h * w, 9 * c)


def _rows(weight: torch.Tensor) -> torch.Tensor:
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _maps(rows: torch.Tensor, n: int, h: int, w: int) -> torch.Tensor:
    return rows.view(n, h, w, -1).permute(0, 3, 1, 2)
