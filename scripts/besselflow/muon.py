"""Muon, which orthogonalises all matrices of one shape at once.

PyTorch's takes them one by one, in dozens of operations each, which are so small that a GPU waits
for the processor to ask for the next.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` with the same settings, states and steps, but for rounding.

    Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step along the gradients that the matrices have."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike[matrix.shape, matrix.device].append(matrix)
            for matrices in alike.values():
                self._move(matrices, group)
        return loss

    def _move(self, matrices: list[torch.Tensor], group: dict[str, Any]) -> None:
        """Move matrices of one shape."""
        rate, momentum = float(group["lr"]), group["momentum"]
        gradients = [matrix.grad for matrix in matrices]
        for matrix in matrices:
            if "momentum_buffer" not in self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix.grad)
        averages = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        wanted = averages
        if group["nesterov"]:
            wanted = torch._foreach_lerp(gradients, averages, momentum)
        steps = orthogonal(
            torch.stack(wanted), group["ns_coefficients"], group["ns_steps"], group["eps"]
        )
        torch._foreach_mul_(matrices, 1 - rate * group["weight_decay"])
        rows, columns = matrices[0].shape
        torch._foreach_add_(
            matrices, list(steps.float().unbind()), alpha=-rate * math.sqrt(max(1, rows / columns))
        )


def orthogonal(
    matrices: torch.Tensor, coefficients: tuple[float, float, float], iterations: int, eps: float
) -> torch.Tensor:
    """Bring the singular values of matrices (n, rows, columns) near to 1, in bfloat16.

    A Newton-Schulz iteration with the polynomial a x + b x^3 + c x^5, after PyTorch's for a single
    matrix.
    """
    a, b, c = coefficients
    found = matrices.bfloat16()
    upright = found.shape[1] > found.shape[2]
    if upright:
        found = found.mT
    found = found / torch.linalg.matrix_norm(found, keepdim=True).clamp(min=eps)
    for _ in range(iterations):
        gram = found @ found.mT
        update = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        found = torch.baddbmm(found, update, found, beta=a)
    return found.mT if upright else found
