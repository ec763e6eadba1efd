"""Responsibilities: the share of each component in a sum, from the logarithms of the terms.

    r_k = e^{l_k}/Σ_j e^{l_j}

Plain exponentials of very different logarithms give *subnormal* numbers, below 2.2e-308 in float64.
They have few digits, and many processors take a hundred times as long for every sum and product
with them: a matrix product with responsibilities may take 15 times as long at one noise level as at
another. So a term below `NEGLIGIBLE` times the largest one is set to exactly 0 here; in the sum of
`log_sum` it is some number below `NEGLIGIBLE`. For K components no sum changes by more than
K·`NEGLIGIBLE`.

Tables of logarithms are large, so a function whose name ends with `_` writes its result over its
argument. It does so only if no gradient is needed: a gradient needs the argument.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NEGLIGIBLE = 2.0**-64
_FALL = math.ceil(-math.log(NEGLIGIBLE))


def fall_(logs: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The largest logarithm along one axis, and all logarithms minus it; may overwrite `logs`."""
    top = logs.amax(dim, keepdim=True)
    return top, (logs - top if logs.requires_grad else logs.sub_(top))


def summands_(fall: Tensor) -> Tensor:
    """e^fall for fall ≤ 0, for use in a sum; may overwrite `fall`.

    Below `NEGLIGIBLE` it is inexact but still below.
    """
    # exp takes ten times as long where it underflows
    if fall.requires_grad:
        return fall.clamp_min(-_FALL).exp()
    return fall.clamp_min_(-_FALL).exp_()


def relative_terms_(fall: Tensor) -> Tensor:
    """e^fall for fall ≤ 0, and exactly 0 where it is below `NEGLIGIBLE`; may overwrite `fall`."""
    terms = summands_(fall)
    if terms.requires_grad:
        return torch.threshold(terms, NEGLIGIBLE, 0.0)
    return torch.threshold_(terms, NEGLIGIBLE, 0.0)


def responsibilities(logs: Tensor, dim: int) -> Tensor:
    """r_k from the logarithms along one axis: softmax, but without subnormal numbers."""
    terms = relative_terms_(logs - logs.amax(dim, keepdim=True))
    sums = terms.sum(dim, keepdim=True)
    return terms / sums if terms.requires_grad else terms.div_(sums)


def log_sum(logs: Tensor, dim: int) -> Tensor:
    """ln Σ_k e^{l_k} along one axis: logsumexp, but without subnormal numbers."""
    top = logs.amax(dim, keepdim=True)
    return (top + summands_(logs - top).sum(dim, keepdim=True).log()).squeeze(dim)
