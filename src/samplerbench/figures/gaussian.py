"""Shared parts of pictures of exact laws on Gaussians: the runs with such a law, and the law."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from samplerbench.bench.scene import SamplerRun, Scene
from samplerbench.bench.spectra import output_spectrum, why_not_gaussian
from samplerbench.core.starts import for_samplers
from samplerbench.datasets.gaussian_spectrum import GaussianSpectrum
from samplerbench.figures.base import Picture


@dataclass(frozen=True, kw_only=True)
class GaussianPicture(Picture):
    """A picture of the law of a sampler's states on a Gaussian, without samples."""

    start: str | None = None  # the name of one of the job's starts; null is the first

    def why_incompatible(self, scene: Scene) -> str | None:
        if not isinstance(scene.dataset, GaussianSpectrum):
            return "it needs a Gaussian: law=gaussian_twin makes one of any data set"
        reason = scene.why_no_runs(start=self.start)
        if reason is None and not self.runs_with_law(scene):
            return "no sampler with fixed steps runs on denoiser=oracle from a Gaussian start"
        return reason

    def runs_with_law(self, scene: Scene, steps: int | None = None) -> list[SamplerRun]:
        """The runs whose law is known, on one denoiser; None for the largest number of steps."""
        known = [
            run
            for run in scene.runs(start=self.start, steps=steps)
            if why_not_gaussian(
                run.sampler,
                scene.denoisers[run.denoiser],
                for_samplers(scene.starts, run.sampler.holds)[run.start],
            )
            is None
        ]
        return [run for run in known if run.denoiser == known[0].denoiser]


def state_law(scene: Scene, run: SamplerRun, steps: int) -> tuple[Tensor, Tensor]:
    """Means and variances of the coordinates after `steps` steps of a run, shape (dim,) each."""
    law = scene.dataset
    assert isinstance(law, GaussianSpectrum)  # see why_incompatible
    levels = scene.levels(run.steps, run.sampler)
    start = for_samplers(scene.starts, run.sampler.holds)[run.start]
    first = start.moments(law.mean, law.variances, levels.rows[0])
    if steps == 0:
        return first
    model = scene.denoisers[run.denoiser]
    mean, variances = output_spectrum(run.sampler, model, levels, *first, steps)
    return mean.cpu(), variances.cpu()
