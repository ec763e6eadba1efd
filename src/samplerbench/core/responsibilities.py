"""Responsibilities: the share of each component in a sum, from the logarithms of the terms.

    r_k = e^{l_k}/Σ_j e^{l_j}

Plain exponentials of very different logarithms give *subnormal* numbers, below 2.2e-308 in float64.
They have few digits, and many processors take a hundred times as long for every sum and product
with them: a matrix product with responsibilities may take 15 times as long at one noise level as at
another. So a term below `NEGLIGIBLE` times the largest one is set to exactly 0 here; in the sum of
`log_sum` it is some number below `NEGLIGIBLE`. For K components no sum changes by more than
K·`NEGLIGIBLE`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NEGLIGIBLE = 2.0**-64
_FALL = math.ceil(-math.log(NEGLIGIBLE))


def summands(fall: Tensor) -> Tensor:
    """e^fall for fall ≤ 0, for use in a sum: below `NEGLIGIBLE` it is inexact but still below."""
    # exp takes ten times as long where it underflows
    return fall.clamp_min(-_FALL).exp_()


def relative_terms(fall: Tensor) -> Tensor:
    """e^fall for fall ≤ 0, and exactly 0 where it is below `NEGLIGIBLE`."""
    return torch.threshold(summands(fall), NEGLIGIBLE, 0.0)


def responsibilities(logs: Tensor, dim: int) -> Tensor:
    """r_k from the logarithms along one axis: softmax, but without subnormal numbers."""
    terms = relative_terms(logs - logs.amax(dim, keepdim=True))
    return terms / terms.sum(dim, keepdim=True)


def log_sum(logs: Tensor, dim: int) -> Tensor:
    """ln Σ_k e^{l_k} along one axis: logsumexp, but without subnormal numbers."""
    top = logs.amax(dim, keepdim=True)
    return (top + summands(logs - top).sum(dim, keepdim=True).log()).squeeze(dim)
