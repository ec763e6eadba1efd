"""O2: sliced score matching.

    L = E[vᵀ·∇s(x)·v + ½(vᵀ·s(x))²],   E[v·vᵀ] = I,

This is Hyvärinen's loss for the projections of the score on k random directions v per datum (Song,
Garg, Shi, Ermon, "Sliced score matching: a scalable approach to density and score estimation", UAI
2019, arXiv 1905.07088, Section 3). Both terms are quadratic in v, so probes with covariance I give
the expectation of `implicit`. The mean of the second term over v is ½‖s‖². `hutchinson` uses this
mean instead, so its gradient has a smaller variance.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from samplerbench.objectives.derivatives import probe_pairs, score_and_form
from samplerbench.objectives.probed import ProbedObjective


def sliced_loss(
    score: Callable[[Tensor], Tensor], x: Tensor, probes: Tensor, chunk: int = 1
) -> Tensor:
    """The mean of vᵀ·∇s·v + ½(vᵀ·s)² over a batch and its probes, as in `hutchinson_loss`."""
    left, right = probe_pairs(probes)
    s, estimate = score_and_form(score, x, left, right, chunk)
    square = ((left * s).sum(-1) * (right * s).sum(-1)).sum(0)
    return (estimate + 0.5 * square).mean()


class Sliced(ProbedObjective):
    """Trains the score of the data's own law on random projections."""

    def probed_loss(self, u: Tensor, probes: Tensor) -> Tensor:
        return sliced_loss(self.score, u, probes, self.chunk)
