"""An optimiser whose steps turn every direction of a kernel alike: fewer photos to the same loss than SGD (docs/LOG.md).

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; kernels of fixed norm as in Jordan 2024,
"94% on CIFAR-10 in 3.29 seconds on a single GPU". Batch norm follows every kernel, so that its norm has no meaning of its own.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from pretrain.threads import share


class Muon(torch.optim.Optimizer):
    """Kernels (4 dimensions): orthogonalised momentum; a step turns a kernel by about `lr` radians. Others: SGD with Nesterov momentum.

    Args: kernels, others: parameters. lr: of the kernels, a schedule scales both. other_lr: learning rate of the others.
        weight_decay: of matrices among the others. threads: among which the parameters are shared out.
    """

    def __init__(
        self, kernels: list[torch.nn.Parameter], others: list[torch.nn.Parameter], *, lr: float, other_lr: float, momentum: float,
        weight_decay: float, threads: int = 1,
    ) -> None:  # fmt: skip
        matrices, vectors = [p for p in others if p.ndim > 1], [p for p in others if p.ndim <= 1]
        groups = [
            {"params": kernels, "lr": lr, "full_lr": lr, "weight_decay": 0.0, "kernels": True},
            {"params": matrices, "lr": other_lr, "full_lr": other_lr, "weight_decay": weight_decay, "kernels": False},
            {"params": vectors, "lr": other_lr, "full_lr": other_lr, "weight_decay": 0.0, "kernels": False},
        ]
        super().__init__([group for group in groups if group["params"]], {"momentum": momentum})
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="muon")

    def scale(self, share: float) -> None:
        """Set every learning rate to `share` of its peak."""
        for group in self.param_groups:
            group["lr"] = group["full_lr"] * share

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        work = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        work.sort(key=lambda entry: -entry[0].numel())
        share(self.pool, self._turn, work)

    def _turn(self, entry: tuple[torch.nn.Parameter, dict[str, Any]]) -> None:
        p, group = entry
        assert p.grad is not None
        grad = p.grad.add(p, alpha=group["weight_decay"]) if group["weight_decay"] else p.grad
        if "momentum" not in self.state[p]:
            self.state[p]["momentum"] = torch.zeros_like(p)
        momentum = self.state[p]["momentum"]
        momentum.mul_(group["momentum"]).add_(grad)
        step = grad.add(momentum, alpha=group["momentum"])
        if group["kernels"]:
            p.mul_(len(p) ** 0.5 / p.norm())
            rows = step.permute(0, 2, 3, 1)  # no copy where channels are last in memory; the order of columns does not matter
            step = orthogonal(rows.flatten(1)).view(rows.shape).permute(0, 3, 1, 2)
        p.add_(step, alpha=-group["lr"])


def orthogonal(matrix: torch.Tensor, iterations: int = 4) -> torch.Tensor:
    """The nearest matrix with all singular values about 1 (0.7 to 1.2), by a quintic Newton-Schulz iteration in bf16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16() if matrix.numel() > 4096 else matrix.float()
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(iterations):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)
