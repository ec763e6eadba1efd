"""A denoiser whose calls are replayed as a CUDA graph.

A small network is a dozen small kernels, and starting one takes the processor longer than the GPU
takes to run it. A CUDA graph is the whole call recorded once and started as one piece. What it
reads lies at fixed places, so state and level are copied there first; the level is written out as a
tensor, since a number would be recorded with the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from samplerbench.core.grids import AnyLevel, Level, Levels
from samplerbench.core.models import Denoiser

WARM_UP = 3
"""Calls before a recording: libraries choose their kernels in the first ones."""

Call = Callable[[Tensor, AnyLevel], Tensor]


@dataclass(frozen=True, eq=False)
class Recording:
    """A recorded call.

    Args:
        graph: the call.
        x: where it reads the state, shape (*batch, dim).
        level: where it reads the level, of tensors of shape (*batch, 1).
        result: where it leaves what it returns, shape (*batch, dim).
    """

    graph: torch.cuda.CUDAGraph
    x: Tensor
    level: Level[Tensor]
    result: Tensor

    def replay(self, x: Tensor, level: Level[float]) -> Tensor:
        """The call at another state and level; the result is the caller's own."""
        self.x.copy_(x)
        fill(self.level, level)
        self.graph.replay()
        return self.result.clone()


class Graphed(Denoiser):
    """Answers as the wrapped denoiser does, from a recording for each shape and type of state.

    A call with a level for each sample is passed on as it is.

    Args:
        model: on a CUDA device, and not to be trained any more.
    """

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.model = model
        self.schedule = model.schedule
        self.trained_noise = model.trained_noise
        self._recordings: dict[tuple[str, torch.Size, torch.dtype], Recording] = {}

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        """The wrapped denoiser's x̂₀."""
        return self._answer("denoiser", self.model.denoiser, x, level)

    def score(self, x: Tensor, level: AnyLevel) -> Tensor:
        """The wrapped denoiser's score."""
        return self._answer("score", self.model.score, x, level)

    def why_incompatible(self, levels: Levels) -> str | None:
        return self.model.why_incompatible(levels)

    def _answer(self, name: str, call: Call, x: Tensor, level: AnyLevel) -> Tensor:
        if isinstance(level.t, Tensor):
            return call(x, level)
        plain = Level(float(level.t), float(level.alpha), float(level.sigma))
        key = (name, x.shape, x.dtype)
        if key not in self._recordings:
            self._recordings[key] = record(call, x, plain)
        return self._recordings[key].replay(x, plain)


def written_out(x: Tensor, level: Level[float]) -> Level[Tensor]:
    """The level as tensors of the state's type, shape (*batch, 1), for a graph to read."""
    t, alpha, sigma = (x.new_empty(*x.shape[:-1], 1) for _ in range(3))
    place = Level(t, alpha, sigma)
    fill(place, level)
    return place


def fill(place: Level[Tensor], level: Level[float]) -> None:
    """Write a level's numbers into tensors."""
    place.t.fill_(level.t)
    place.alpha.fill_(level.alpha)
    place.sigma.fill_(level.sigma)


@torch.no_grad()
def record(call: Call, x: Tensor, level: Level[float]) -> Recording:
    """Record a call at states like `x`, on their CUDA device."""
    with torch.cuda.device(x.device):
        x, place = x.clone(), written_out(x, level)
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                call(x, place)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = call(x, place)
        return Recording(graph, x, place, result)
