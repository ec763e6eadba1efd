"""Regression targets with less variance: means over the data that a noised state may come from.

The target of a state u = α·x₀ + σ·ε is affine in (x₀, ε). Take a set of m data {x₁, …, x_m} of the
batch, with the datum of u among them. Given u and the set, without its order, this datum is x_j
with the probability

    w_j ∝ exp(−‖u − α·x_j‖²/(2σ²)),

so the mean of its value is x̄ = Σ w_j·x_j, and that of its noise is ε̄ = (u − α·x̄)/σ. They replace
x₀ and ε in the target. This is a conditional expectation (Rao and Blackwell): given u alone, target
and mean have the same expectation, so the gradient of a loss that is quadratic or linear in the
target keeps its expectation, and its variance falls. The more data of the set lie within σ of each
other, the more it falls; in many dimensions with little noise w is 1 for one datum, and nothing
changes.

Xu, Tong, Jaakkola, "Stable target field for reduced variance score estimation in diffusion models",
ICLR 2023 (arXiv 2302.00670), where one reference batch serves all states of a step. The argument
needs that the state's own datum is in its set, and that all data of the set are drawn alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from samplerbench.core.grids import AnyLevel
from samplerbench.core.responsibilities import relative_terms_


@torch.no_grad()
def posterior_means(u0: Tensor, eps: Tensor, level: AnyLevel, size: int) -> tuple[Tensor, Tensor]:
    """x̄ and ε̄ of every state, with α·x̄ + σ·ε̄ = α·x₀ + σ·ε.

    Args:
        u0: clean data, shape (*batch, dim).
        eps: standard normal numbers, same shape.
        level: the level of the states, with tensors that broadcast to (*batch, 1).
        size: m; each m consecutive rows are a set, and the last set may be smaller.
    """
    ratio = torch.as_tensor(level.alpha / level.sigma).expand(*u0.shape[:-1], 1)
    columns = [one.reshape(-1, one.shape[-1]) for one in (u0, eps, ratio.to(u0))]
    whole = len(columns[0]) // size * size
    found = []
    with torch.autocast(u0.device.type, enabled=False):  # in bfloat16 it would have no digits
        for part, rows in ((slice(whole), size), (slice(whole, None), len(columns[0]) - whole)):
            if len(columns[0][part]) > 0:
                sets = (one[part].view(-1, rows, one.shape[-1]) for one in columns)
                found.append([one.flatten(0, 1) for one in _means(*sets)])
    mean, noise = (torch.cat(parts).view(u0.shape) for parts in zip(*found, strict=True))
    return mean, noise


def _means(x: Tensor, eps: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """x̄ and ε̄ of the states of sets, shape (sets, m, dim); ratio is α/σ, shape (sets, m, 1)."""
    # −½·‖ε_i + r_i·(x_i − x_j)‖² without the terms that all j share, as one product; in double
    # precision, since for small σ the difference of the squares has few digits left
    data, r = x.double(), ratio.double()
    square = data.square().sum(-1, keepdim=True)
    logs = torch.cat([r * (eps + r * data), -0.5 * r.square()], -1)
    logs = logs @ torch.cat([data, square], -1).mT
    terms = relative_terms_(logs.sub_(logs.amax(-1, keepdim=True)).to(x))
    # sums and their total as long rows: three times as fast as a product with the columns of x
    sums = torch.cat([x, torch.ones_like(x[..., :1])], -1).mT @ terms.mT
    mean = (sums[:, :-1] / sums[:, -1:]).mT
    return mean, eps + ratio * (x - mean)
