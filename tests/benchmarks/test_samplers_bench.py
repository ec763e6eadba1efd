"""What a step of a sampler costs beside its network: ours, azula's, diffusers', and a bare loop.

The network returns its input. Batch 2 000 × 2, float32, one thread, 50 steps, none of them to the
data. All run by turns, so that a busy machine slows all; µs of the processor's time per step, the
least of all rounds, and in brackets their ratio to ours. `bare` is the same method with its
coefficients as floats before the clock starts. Counted for ours: everything from the levels as
tensors on. Not counted for diffusers: `set_timesteps`, and scaling the network's input.

The stochastic rows draw from torch's generator, all three; what keyed draws cost is a line of its
own. azula's DDIM draws noise at η = 0 too; its Euler is the same method without. Run with
`make bench ARGS="-k samplers_bench"`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from helpers import by_turns
from samplerbench.core.grids import AnyLevel, Levels
from samplerbench.core.models import Denoiser
from samplerbench.core.noise import KeyedNoise, torch_generator
from samplerbench.core.schedules import EDM, NoiseSchedule, VPCosine
from samplerbench.samplers.adams_bashforth import AdamsBashforth
from samplerbench.samplers.base import final_state
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.deis import DEISLogRho, DEISRho
from samplerbench.samplers.dpm_solver_pp import DPMSolverPP
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.multistep import constant_weights, data_weights, half_weights
from samplerbench.samplers.unipc import UniPC

pytestmark = pytest.mark.bench

STEPS, BATCH, ROUNDS = 50, 2000, 100

Network = Callable[[Tensor], Tensor]  # x ↦ x̂₀
Loop = Callable[[Tensor], Tensor]  # the first state ↦ the last one


def identity(x):
    return x


class TorchNoise:
    """Numbers in sequence from torch's global generator, as the others draw them."""

    def normal(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        return torch.randn_like(like)

    def uniform(self, like: Tensor, step: int, draw: int = 0) -> Tensor:
        return torch.rand_like(like)


class Stub(Denoiser):
    def __init__(self, schedule: NoiseSchedule, network: Network) -> None:
        super().__init__()
        self.schedule, self.network = schedule, network

    def denoiser(self, x: Tensor, level: AnyLevel) -> Tensor:
        return self.network(x)


@dataclass(frozen=True)
class Path:
    """50 steps, even in azula's time, along one of their schedules.

    Args:
        schedule: ours; its time matters to Heun only.
        azulas: the name and the settings of theirs.
        scales: t, shape (steps + 1,) ↦ α, σ.
        start: the first time.
        stop: the last one.
    """

    schedule: NoiseSchedule
    azulas: tuple[str, dict[str, float]]
    scales: Callable[[Tensor], tuple[Tensor, Tensor]]
    start: float
    stop: float

    def levels(self) -> Levels:
        t = torch.linspace(self.start, self.stop, STEPS + 1, dtype=torch.float64)
        alpha, sigma = self.scales(t)
        return Levels(self.schedule.time_at(sigma / alpha), alpha, sigma)


COSINE = Path(
    VPCosine(),
    ("CosineSchedule", {"alpha_min": 0.0, "sigma_min": 0.0}),
    lambda t: ((0.5 * math.pi * t).cos(), (0.5 * math.pi * t).sin()),
    0.95,
    0.05,
)
EXPLODING = Path(  # the only path here on which our Heun and theirs have the same time, σ/α
    EDM(10.0),
    ("VESchedule", {"sigma_min": 0.05, "sigma_max": 10.0}),
    lambda t: (torch.ones_like(t), 10.0**t * 0.05 ** (1 - t)),
    1.0,
    0.0,
)


def ours(sampler, path=COSINE):
    def way(network):
        model, levels, noise = Stub(path.schedule, network), path.levels(), TorchNoise()
        return lambda x: final_state(sampler, model, x, levels, noise)

    return way


def azulas(name, path=COSINE, **settings):
    sample = pytest.importorskip("azula.sample")
    kind, scales = path.azulas
    schedule = getattr(pytest.importorskip("azula.noise"), kind)(**scales)

    def way(network):
        class Model:
            def __call__(self, x: Tensor, t: Tensor) -> SimpleNamespace:
                return SimpleNamespace(mean=network(x))

        model = Model()
        model.schedule = schedule
        span = {"start": path.start, "stop": path.stop, "steps": STEPS}
        return getattr(sample, name)(model, silent=True, **span, **settings)

    return way


def diffusers_ddim(eta):
    module = pytest.importorskip("diffusers.schedulers.scheduling_ddim")

    def way(network):
        theirs = module.DDIMScheduler(STEPS, clip_sample=False, prediction_type="sample")
        theirs.set_timesteps(STEPS)
        kept = COSINE.levels().alpha.square().float()
        theirs.alphas_cumprod, theirs.final_alpha_cumprod = kept[:-1].flip(0), kept[-1]

        def loop(x):
            for t in theirs.timesteps:
                x = theirs.step(network(x), t, x, eta=eta, return_dict=False)[0]
            return x

        return loop

    return way


def diffusers(module, name, **settings):
    kind = getattr(pytest.importorskip(f"diffusers.schedulers.scheduling_{module}"), name)

    def way(network):
        theirs = kind(1000, prediction_type="sample", lower_order_final=False, **settings)
        theirs.set_timesteps(STEPS)
        levels = COSINE.levels()
        theirs.sigmas = (levels.sigma / levels.alpha).float()
        theirs.timesteps = torch.arange(STEPS, 0, -1)

        def loop(x):
            for t in theirs.timesteps:
                x = theirs.step(network(x), t, x, return_dict=False)[0]
            return x

        return loop

    return way


def diffusers_dpmpp(**settings):
    return diffusers(
        "dpmsolver_multistep",
        "DPMSolverMultistepScheduler",
        solver_order=2,
        final_sigmas_type="sigma_min",
        **settings,
    )


def diffusers_heun(network):
    """Their network's output is ε̂ = (x − x̂₀)/σ; the stub's is x again."""
    module = pytest.importorskip("diffusers.schedulers.scheduling_heun_discrete")
    theirs = module.HeunDiscreteScheduler(1000)
    theirs.set_timesteps(STEPS)
    sigma = EXPLODING.levels().sigma.float()
    theirs.sigmas = torch.cat([sigma[:1], sigma[1:-1].repeat_interleave(2), sigma[-1:]])
    theirs.timesteps = torch.arange(2 * STEPS, 0, -1)

    def loop(x):
        for i, t in enumerate(theirs.timesteps):
            eps = x if network is identity else (x - network(x)) / theirs.sigmas[i]
            x = theirs.step(eps, t, x, return_dict=False)[0]
        return x

    return loop


def bare_ddim(eta):
    def way(network):
        table = []
        for _, now, to in COSINE.levels().pairs():
            bridge = now.sigma**2 - (now.alpha / to.alpha * to.sigma) ** 2
            fresh = eta * to.sigma / now.sigma * bridge**0.5
            kept = (to.sigma**2 - fresh**2) ** 0.5 / now.sigma
            table.append((kept, to.alpha - kept * now.alpha, fresh))

        def loop(x):
            for kept, pull, fresh in table:
                x = kept * x + pull * network(x)
                if eta > 0:
                    x = x + fresh * torch.randn_like(x)
            return x

        return loop

    return way


def bare_heun(network):
    table = [(now.sigma, to.sigma) for _, now, to in EXPLODING.levels().pairs()]

    def loop(x):
        for now, to in table:
            slope = (x - network(x)) / now
            x_to = x + (to - now) * slope
            x = x + (0.5 * (to - now)) * (slope + (x_to - network(x_to)) / to)
        return x

    return loop


def bare_multistep(weights):
    """x_s = (σ_s/σ_t)·x_t + Σ_j w_j·x̂₀^{(j)}."""

    def way(network):
        levels = COSINE.levels()
        table = [
            (to.sigma / now.sigma, row)
            for (_, now, to), row in zip(levels.pairs(), weights(levels), strict=True)
        ]

        def loop(x):
            past = []
            for kept, row in table:
                past = [network(x), *past[: len(row) - 1]]
                x = kept * x
                for weight, output in zip(row, past, strict=False):
                    x = x + weight * output
            return x

        return loop

    return way


def bare_deis(sampler):
    """x_s = (α_s/α_t)·x_t + Σ_j w_j·ε̂^{(j)}."""

    def way(network):
        levels = COSINE.levels()
        weights = sampler._weights(COSINE.schedule, levels)
        table = []
        for (_, now, to), row in zip(levels.pairs(), weights, strict=True):
            ratio = to.alpha / now.alpha  # x̂₀ = (x − σ·ε̂)/α of this level
            table.append((now.alpha, now.sigma, ratio, (row[0] - ratio * now.sigma, *row[1:])))

        def loop(x):
            past = []
            for alpha, sigma, ratio, row in table:
                past = [(x - alpha * network(x)) / sigma, *past[:1]]
                x = ratio * x
                for weight, output in zip(row, past, strict=False):
                    x = x + weight * output
            return x

        return loop

    return way


def bare_unipc(network):
    levels = COSINE.levels()
    predict = half_weights(levels)
    trapezoid = 0.5 * float(constant_weights(levels)[0])
    correct = [(trapezoid, trapezoid), *data_weights(levels, 3, newest=1)[1:]]
    kept = [to.sigma / now.sigma for _, now, to in levels.pairs()]

    def loop(x):
        past = []
        start = x
        for step in range(STEPS):
            past = [network(x), *past[:2]]
            if step > 0:
                x = kept[step - 1] * start
                for weight, output in zip(correct[step - 1], past, strict=False):
                    x = x + weight * output
            start = x
            x = kept[step] * x
            for weight, output in zip(predict[step], past, strict=False):
                x = x + weight * output
        return x

    return loop


def methods():
    """Of every method: ours, then the same in other codes."""
    return {
        "DDIM(0)": {
            "ours": ours(DDIM(0.0)),
            "bare": bare_ddim(0.0),
            "azula DDIM": azulas("DDIMSampler", eta=0.0),
            "azula Euler": azulas("EulerSampler"),
            "diffusers DDIM": diffusers_ddim(0.0),
        },
        "DDIM(1)": {
            "ours": ours(DDIM(1.0)),
            "bare": bare_ddim(1.0),
            "azula DDIM": azulas("DDIMSampler", eta=1.0),
            "diffusers DDIM": diffusers_ddim(1.0),
        },
        "Heun": {
            "ours": ours(Heun(), EXPLODING),
            "bare": bare_heun,
            "azula Heun": azulas("HeunSampler", EXPLODING),
            "diffusers Heun": diffusers_heun,
        },
        "AdamsBashforth(2)": {
            "ours": ours(AdamsBashforth(2)),
            "bare": bare_multistep(lambda levels: data_weights(levels, 2)),
            "azula xEAB": azulas("xEABSampler", order=2),
            "diffusers DPM++ heun": diffusers_dpmpp(solver_type="heun"),
        },
        # the others' start has one point and a first step of order one: not the same numbers
        "AdamsBashforth(3)": {
            "ours": ours(AdamsBashforth(3)),
            "bare, other start": bare_multistep(lambda levels: data_weights(levels, 3)),
            "azula xEAB, other start": azulas("xEABSampler", order=3),
        },
        "DPMSolverPP(2)": {
            "ours": ours(DPMSolverPP(2)),
            "bare": bare_multistep(half_weights),
            "diffusers DPM++": diffusers_dpmpp(),
        },
        "UniPC(2)": {
            "ours": ours(UniPC(2)),
            "bare": bare_unipc,
            "diffusers UniPC": diffusers(
                "unipc_multistep", "UniPCMultistepScheduler", solver_order=2
            ),
        },
        "DEISLogRho(2)": {
            "ours": ours(DEISLogRho(2)),
            "bare": bare_deis(DEISLogRho(2)),
            "azula zEAB": azulas("zEABSampler", order=2),
            "diffusers DEIS": diffusers("deis_multistep", "DEISMultistepScheduler", solver_order=2),
        },
        "DEISRho(2)": {
            "ours": ours(DEISRho(2)),
            "bare": bare_deis(DEISRho(2)),
            "azula zAB": azulas("zABSampler", order=2),
        },
    }


def first_state():
    return torch.randn(BATCH, 2, generator=torch_generator("bench"))


@pytest.mark.parametrize("method", list(methods()))
def test_the_numbers_are_the_same(method):
    """With x̂₀ = tanh(x), which is neither linear nor the state itself."""
    ways = methods()[method]
    ends = {}
    for name, way in ways.items():
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            ends[name] = way(torch.tanh)(3 * first_state())
    assert ends["ours"].dtype == torch.float32
    for name, end in ends.items():
        gap = float((end - ends["ours"]).abs().max())
        assert gap < (3e-3 if "other start" in name else 1e-4), (name, gap)


def test_the_overhead_of_a_step(benchmark):
    x, table = first_state(), methods()
    least = {(method, name): float("inf") for method, ways in table.items() for name in ways}

    def run():
        for _ in range(ROUNDS):
            for method, name in least:
                loop = table[method][name](identity)
                before = time.thread_time()
                loop(x)
                spent = time.thread_time() - before
                least[method, name] = min(least[method, name], 1e6 * spent / STEPS)

    with torch.no_grad():
        benchmark.pedantic(run, rounds=1)
    print("\nµs per step (ratio to ours)")
    for method, ways in table.items():
        row = []
        for name in ways:
            ratio = least[method, name] / least[method, "ours"]
            row.append(f"{name} {least[method, name]:.1f} ({ratio:.2f})")
            benchmark.extra_info[f"{method}, {name}, us"] = round(least[method, name], 1)
        print(f"  {method:18} {' | '.join(row)}")


def test_the_noise_of_a_step(benchmark):
    """A keyed draw (hash, Philox, float64, then float32) against the next numbers of torch's."""
    x, keyed = first_state(), KeyedNoise((0, "bench"))
    numbers, torchs = torch.empty(BATCH, 2), torch_generator("noise")
    draws = {
        "keyed": lambda: [keyed.normal(x, step) for step in range(STEPS)],
        "torch": lambda: [numbers.normal_(generator=torchs) for _ in range(STEPS)],
    }
    found = {}
    run = partial(by_turns, draws, ROUNDS, time.thread_time)
    benchmark.pedantic(lambda: found.update(run()), rounds=1)
    least = {name: 1e6 * min(seconds) / STEPS for name, seconds in found.items()}
    drawn = ", ".join(f"{name} {value:.1f} µs" for name, value in least.items())
    print(f"\na draw of {BATCH} × 2 numbers: {drawn}")
    benchmark.extra_info |= {f"{name}_us": round(value, 1) for name, value in least.items()}
