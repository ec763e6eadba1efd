"""The exact denoiser of a mixture with very many components, in bounded memory.

`IsotropicMixtureOracle` makes tables with one number per component and state. Here it gets a few
states at a time, so that a table has at most `ENTRIES` numbers (4 MB), for any number of components
and any batch. Tables that fit into the processor's cache are also faster.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from samplerbench.core.grids import AnyLevel, Level
from samplerbench.core.models import Denoiser, IsotropicMixtureOracle

ENTRIES = 2**19


class ChunkedMixtureOracle(Denoiser):
    """An `IsotropicMixtureOracle` that gets a few states at a time.

    Args:
        mixture: the oracle with K components.
        entries: largest number of states × components at a time, at least one state.
    """

    def __init__(self, mixture: IsotropicMixtureOracle, entries: int = ENTRIES) -> None:
        super().__init__()
        self.mixture = mixture
        self.schedule = mixture.schedule
        self._rows = max(1, entries // len(mixture.means))

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        return self._in_chunks(self.mixture.denoiser, x, level).reshape(x.shape)

    def derivative(self, x: Tensor, level: AnyLevel) -> tuple[Tensor, Tensor]:
        """x̂₀ and J of states (n, dim), by the mixture's formula."""
        parts = [
            self.mixture.derivative(part, at)
            for part, at in zip(*self._chunks(x, level), strict=True)
        ]
        x0_hat, derivative = zip(*parts, strict=True)
        return torch.cat(x0_hat), torch.cat(derivative)

    def log_density(self, x: Tensor, level: AnyLevel) -> Tensor:
        return self._in_chunks(self.mixture.log_density, x, level).reshape(x.shape[:-1])

    def _in_chunks(
        self, function: Callable[[Tensor, AnyLevel], Tensor], x: Tensor, level: AnyLevel
    ) -> Tensor:
        """Evaluate the function on x flattened to (n, dim), `_rows` states at a time."""
        return torch.cat([function(*part) for part in zip(*self._chunks(x, level), strict=True)])

    def _chunks(self, x: Tensor, level: AnyLevel) -> tuple[list[Tensor], list[AnyLevel]]:
        """Parts of x flattened to (n, dim), with `_rows` states at most, and their levels."""
        parts = list(torch.split(x.reshape(-1, x.shape[-1]), self._rows))
        if not (isinstance(level.alpha, Tensor) or isinstance(level.sigma, Tensor)):
            return parts, [level] * len(parts)
        columns = (_column(value, x) for value in (level.t, level.alpha, level.sigma))
        rows = zip(*(torch.split(column, self._rows) for column in columns), strict=True)
        return parts, [Level(*row) for row in rows]


def _column(value: float | Tensor, x: Tensor) -> Tensor:
    """The value as one number per state, shape (n, 1)."""
    column = torch.as_tensor(value, dtype=torch.float64, device=x.device)
    return column.expand(*x.shape[:-1], 1).reshape(-1, 1)
