"""O2: implicit score matching with Hutchinson's estimate of the divergence.

    L = E[vᵀ·∇s(x)·v + ½‖s(x)‖²],   E[v·vᵀ] = I,

the mean over k probes v for each datum. Its expectation is the loss of `implicit`, since
E[vᵀ·J·v] = tr J. It is also the variance-reduced form of sliced score matching, which takes the
mean of ½(vᵀ·s)² over v in closed form (Song, Garg, Shi, Ermon, "Sliced score matching", UAI 2019,
arXiv 1905.07088, Section 3). conf/objective has both names.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from samplerbench.objectives.derivatives import probe_pairs, score_and_form
from samplerbench.objectives.probed import ProbedObjective


def hutchinson_loss(
    score: Callable[[Tensor], Tensor], x: Tensor, probes: Tensor, chunk: int = 1
) -> Tensor:
    """The mean of vᵀ·∇s·v + ½‖s‖² over a batch and its probes, a scalar.

    Costs min(k, dim) vector-Jacobian products.

    Args:
        score: x ↦ s, row by row.
        x: shape (n, dim).
        probes: v, shape (k, n, dim).
        chunk: number of products at a time.
    """
    s, estimate = score_and_form(score, x, *probe_pairs(probes), chunk)
    return (estimate + 0.5 * s.square().sum(-1)).mean()


class Hutchinson(ProbedObjective):
    """Trains the score of the data's own law, with an estimate of the divergence."""

    def probed_loss(self, u: Tensor, probes: Tensor) -> Tensor:
        return hutchinson_loss(self.score, u, probes, self.chunk)
