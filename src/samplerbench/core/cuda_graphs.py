"""A denoiser whose calls are replayed as CUDA graphs.

A small network is a dozen small kernels. The processor needs more time to start a kernel than the
GPU needs to run it. A CUDA graph is a recording of a whole call, which is started at once. It reads
from fixed memory, so state and level are copied there first. The level is written as tensors,
because numbers would be recorded as constants.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.core.grids import AnyLevel, Level, Levels
from samplerbench.core.models import Call, Denoiser

#: The number of warm-up calls before a recording: in them libraries choose their kernels.
WARM_UP = 3


@dataclass(frozen=True, eq=False)
class Recording:
    """A recorded call."""

    graph: torch.cuda.CUDAGraph
    x: Tensor  # the memory of its state, shape (*batch, dim)
    level: Level[Tensor]  # the memory of its level, tensors of shape (*batch, 1)
    result: Tensor  # the memory of its result, shape (*batch, dim)

    def replay(self, x: Tensor, level: Level[float]) -> Tensor:
        """Run the call at another state and level; return a copy of the result."""
        self.x.copy_(x)
        fill(self.level, level)
        self.graph.replay()
        return self.result.clone()


class Graphed(Denoiser):
    """Wraps a denoiser and replays its calls, with one recording for each shape and dtype.

    A call with a level for each sample goes to the wrapped denoiser.

    Args:
        model: the denoiser, on a CUDA device; its weights must not change any more.
    """

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.model = model
        self.schedule = model.schedule
        self.trained_noise = model.trained_noise
        self.has_covariance = model.has_covariance
        self._recordings: dict[tuple[str, torch.Size, torch.dtype], Recording] = {}

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        return self._replayed("denoiser", self.model.denoiser, x, level)

    def score(self, x: Tensor, level: AnyLevel) -> Tensor:
        return self._replayed("score", self.model.score, x, level)

    def why_incompatible(self, levels: Levels) -> str | None:
        return self.model.why_incompatible(levels)

    def _replayed(self, name: str, call: Call, x: Tensor, level: AnyLevel) -> Tensor:
        if isinstance(level.t, Tensor):
            return call(x, level)
        plain = Level(float(level.t), float(level.alpha), float(level.sigma))
        key = (name, x.shape, x.dtype)
        if key not in self._recordings:
            self._recordings[key] = record(call, x, plain)
        return self._recordings[key].replay(x, plain)


def written_out(x: Tensor, level: Level[float]) -> Level[Tensor]:
    """The level as tensors of shape (*batch, 1) and the dtype of the state."""
    t, alpha, sigma = (x.new_empty(*x.shape[:-1], 1) for _ in range(3))
    place = Level(t, alpha, sigma)
    fill(place, level)
    return place


def fill(place: Level[Tensor], level: Level[float]) -> None:
    """Write the numbers of a level into tensors."""
    place.t.fill_(level.t)
    place.alpha.fill_(level.alpha)
    place.sigma.fill_(level.sigma)


@torch.no_grad()
def record(call: Call, x: Tensor, level: Level[float]) -> Recording:
    """Record a call at states like `x`, on their CUDA device."""
    with torch.cuda.device(x.device):
        x, place = x.clone(), written_out(x, level)
        warm_up = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        warm_up.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm_up):
            for _ in range(WARM_UP):
                call(x, place)
        torch.cuda.current_stream().wait_stream(warm_up)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = call(x, place)
        return Recording(graph, x, place, result)
