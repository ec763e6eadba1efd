"""O5: the denoising loss without its constant, in the implicit form of the notebook N2.

    L = E w(level)·(½‖ŷ‖² − ŷ·y),   ŷ = network(u, level),   u = α·x₀ + σ·ε,

which for the score, y = −ε/σ, is N2's E w·(½‖ŷ‖² + ŷ·ε/σ) with the weight w = σ². It is related to
two known losses:

- ½·w·‖ŷ − y‖² = w·(½‖ŷ‖² − ŷ·y) + ½·w·‖y‖², and the last term has no parameters. So the gradient
  is half that of `denoising`, draw by draw, for any target;
- for the score, E[ŷ·ε/σ] = E[∇·ŷ(u)] by integration by parts in ε (Stein's lemma). So it is
  Hyvärinen's loss E w·(½‖ŷ‖² + ∇·ŷ) on the noised law (see `implicit`), without a divergence.

Its least value is −½·E w·‖E[y | u]‖². It is 0 for ŷ = 0, so the loss of a trained network is
negative.
Vincent, "A connection between score matching and denoising autoencoders", Neural Computation 2011,
Appendix; Song et al. 2021 (arXiv 2011.13456), Eq. 7, for the levels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from samplerbench.core.grids import AnyLevel
from samplerbench.core.targets import Target
from samplerbench.core.weightings import Weighting
from samplerbench.objectives.noised import NoisedObjective


def implicit_denoising_loss(
    network: Callable[[Tensor, AnyLevel], Tensor],
    target: Target,
    weighting: Weighting,
    u0: Tensor,
    eps: Tensor,
    level: AnyLevel,
) -> Tensor:
    """The mean of w(level)·(½‖ŷ‖² − ŷ·y) over a batch; arguments as in `denoising_loss`."""
    y_hat = network(level.alpha * u0 + level.sigma * eps, level)
    terms = y_hat * (0.5 * y_hat - target.regress(u0, eps, level))
    loss: Tensor = (weighting.weight(level) * terms).sum(-1).mean()
    return loss


class ImplicitVE(NoisedObjective):
    """Trains a `Learned` denoiser by the implicit loss; settings as in `NoisedObjective`."""

    averages: ClassVar[bool] = True

    def noised_loss(self, u0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        model = self.model
        return implicit_denoising_loss(model.network, model.target, self.weighting, u0, eps, level)
