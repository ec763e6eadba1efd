"""Published tables of Gaussians: our samplers against closed recursions, and the printed numbers.

Pierret and Galerne, ICML 2025 (arXiv 2405.14250v5), Table 5: W₂ of samplers on N(0, Σ) on the VP
path with β(t) = .1 + 19.9·t, on points uniform in t on [ε, 1], from the path's law at t = 1 and
from N(0, I), with no denoising step at the end. In this paper's β, half of ours, with step length h
and λ_t the variance of the path, a step multiplies and adds:

    EM λ' ← (1 + hβ(1 − 2/λ_t))²·λ' + 2hβ,  EI the same with γ = e^{ΔB} − 1 in place of hβ, and
    e^{2ΔB} − 1 added,  DDPM λ' ← (1 − b/λ_t)²/(1 − b)·λ' + b with b = 2hβ,  and Euler, Heun and RK4
    on dx/dt = −β(1 − 1/λ_t)·x.

Sabour, Fidler, Kreis, ICML 2024 (arXiv 2404.14507), Theorem 3.1: on N(0, c²) the best levels for
Euler's method in σ are c·tan of equally spaced angles; a step multiplies the standard deviation by
1 + (s − σ)·σ/(c² + σ²).

Song, Meng, Ermon, ICLR 2021 (arXiv 2010.02502), Table 1, on Gaussians: DDPM's table of β, DDIM's
uniform steps, the exact start and a last step to x̂₀. In one direction DDIM(η) multiplies the state
by k + (α_s − k·α_t)·α_t·λ/(α_t²·λ + σ_t²), k = √(σ_s² − ς²)/σ_t, and adds ς²; σ̂ adds more.

The spectrum of CIFAR-10 is not a part of this project. Without its file the printed numbers are not
tested; the recursions are compared on a power law.
"""

import math
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from samplerbench.bench.spectra import output_spectrum
from samplerbench.core.grids import Levels, karras, leading, log_snr, tangent
from samplerbench.core.models import Corrupted, Guided
from samplerbench.core.schedules import EDM, DDPMTable, VPLinear
from samplerbench.datasets.gaussian_spectrum import GaussianSpectrum, gaussian_spectrum
from samplerbench.metrics.kl_law_gaussian import KLLawGaussian
from samplerbench.metrics.w2_law_gaussian import W2LawGaussian
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.ddpm_large import DDPMLarge
from samplerbench.samplers.ddpm_linear import DDPMLinear
from samplerbench.samplers.euler import Euler
from samplerbench.samplers.exponential_sde import ExponentialSDE
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.reverse_sde import ReverseSDE
from samplerbench.samplers.rk4 import RK4
from samplerbench.samplers.sa_solver import SASolver

SCHEMES = {
    "EM": ReverseSDE(),
    "EI": ExponentialSDE(),
    "DDPM": DDPMLinear(),
    "Euler": Euler(),
    "Heun": Heun(),
    "RK4": RK4(),
}
NFE = (50, 250, 500, 1000)
#: W₂ from the path's law and from N(0, I), at the NFE above.
TABLE = {
    ("EM", 0.0): ("4.78/4.78", ".65/.66", ".32/.32", ".16/.16"),
    ("EI", 0.0): ("2.81/2.81", ".57/.57", ".30/.30", ".16/.16"),
    ("DDPM", 0.0): ("6.82/6.82", ".97/.97", ".47/.47", ".23/.23"),
    ("Euler", 0.0): ("1.72/1.78", ".38/.44", ".20/.26", ".10/.17"),
    ("Heun", 1e-4): ("4.68/4.68", ".43/.44", ".12/.14", ".03/.08"),
    ("Heun", 1e-3): (".58/.59", ".13/.15", ".16/.18", ".17/.19"),
    ("RK4", 1e-3): ("2.60/2.60", ".09/.12", ".15/.17", ".17/.19"),
}
FOUND = [
    Path("shared/data/cifar10_eigenvalues.npy"),
    *(up / "shared/data/cifar10_eigenvalues.npy" for up in Path(__file__).resolve().parents),
]
CIFAR10 = next((path for path in FOUND if path.is_file()), None)


def points(scheme, nfe):
    """How many points of time the paper's run with that NFE has: of RK4 it counts four a point."""
    return nfe // 4 if scheme == "RK4" else nfe


def measured(scheme, count, eps, law, start):
    """W₂ of our sampler; ε = 0 is so small that it makes no difference, and stays a plain step."""
    schedule, t = VPLinear(), torch.linspace(1, max(eps, 1e-12), count, dtype=torch.float64)
    levels, ones = Levels(t, *schedule(t)), torch.ones_like(law.variances)
    first = levels.rows[0]
    begin = ones if start == "N(0, I)" else first.alpha**2 * law.variances + first.sigma**2
    out = output_spectrum(SCHEMES[scheme], law.oracle(schedule), levels, law.mean, begin)
    return W2LawGaussian().between(*out, law).value


def beta(t):
    return 0.05 + 9.95 * t


def integral(t):
    return 0.05 * t + 9.95 * t**2 / 2


def recursion(scheme, count, eps, eigenvalues, start):
    """W₂ by the closed recursion, in NumPy."""

    def path(t):
        return np.exp(-2 * integral(t)) * eigenvalues + 1 - np.exp(-2 * integral(t))

    def rate(t):
        return beta(t) * (1 - 1 / path(t))

    times = np.linspace(1, eps, count)
    law = np.ones_like(eigenvalues) if start == "N(0, I)" else path(1.0)
    for t, s in pairwise(times):
        h, middle = t - s, (t + s) / 2
        grown = np.exp(integral(t) - integral(s))
        b = 2 * h * beta(t)
        k1 = rate(t)
        if scheme == "EM":
            law = (1 + h * beta(t) * (1 - 2 / path(t))) ** 2 * law + b
        elif scheme == "EI":
            law = (1 + (grown - 1) * (1 - 2 / path(t))) ** 2 * law + grown**2 - 1
        elif scheme == "DDPM":
            law = (1 - b / path(t)) ** 2 / (1 - b) * law + b
        elif scheme == "Euler":
            law = (1 + h * k1) ** 2 * law
        elif scheme == "Heun":
            law = (1 + h / 2 * (k1 + rate(s) * (1 + h * k1))) ** 2 * law
        else:
            k2 = rate(middle) * (1 + h / 2 * k1)
            k3 = rate(middle) * (1 + h / 2 * k2)
            k4 = rate(s) * (1 + h * k3)
            law = (1 + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)) ** 2 * law
    return float(np.sqrt(((np.sqrt(law) - np.sqrt(eigenvalues)) ** 2).sum()))


@pytest.mark.parametrize("start", ["p(1)", "N(0, I)"])
@pytest.mark.parametrize(("scheme", "eps"), TABLE)
def test_samplers_are_the_closed_recursions(scheme, eps, start):
    law = gaussian_spectrum(dim=200, exponent=1.5, scale=0.5)
    for nfe in (50, 250):
        ours = measured(scheme, points(scheme, nfe), eps, law, start)
        theirs = recursion(scheme, points(scheme, nfe), eps, law.variances.numpy(), start)
        assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(CIFAR10 is None, reason="no file shared/data/cifar10_eigenvalues.npy")
@pytest.mark.parametrize(("scheme", "eps"), TABLE)
def test_the_printed_numbers_to_their_last_digit(scheme, eps):
    law = gaussian_spectrum(str(CIFAR10))
    for nfe, printed in zip(NFE, TABLE[scheme, eps], strict=True):
        for start, number in zip(("p(1)", "N(0, I)"), printed.split("/"), strict=True):
            assert (
                abs(measured(scheme, points(scheme, nfe), eps, law, start) - float(number)) < 0.005
            )


#: KL of N(0, ½²) from Euler's output from σ = 80 to .002 in 10 and 20 steps, computed apart.
ALIGNED = {
    "EDM": (partial(karras, rho=7.0), "0.098", "0.022"),
    "log-uniform": (log_snr, "0.084", "0.019"),
    "tangent": (partial(tangent, scale=0.5), "0.0162", "0.0039"),
}


def without_data(levels):
    """The levels without the step to the data."""
    return Levels(levels.t[:-1], levels.alpha[:-1], levels.sigma[:-1])


@pytest.mark.parametrize("name", ALIGNED)
def test_the_grid_of_tangents_is_best_for_euler_on_a_gaussian(name):
    grid, *printed = ALIGNED[name]
    law, schedule = gaussian_spectrum(dim=1, scale=0.5), EDM(80.0)
    for steps, number in zip((10, 20), printed, strict=True):
        levels = without_data(grid(schedule, steps + 1, noise_max=80.0, noise_min=0.002))
        out = output_spectrum(
            Euler(), law.oracle(schedule), levels, law.mean, law.variances + 80**2
        )
        ours = KLLawGaussian().between(*out, law).info["reverse"]
        gain = math.prod(
            1 + (s - t) * t / (0.25 + t * t) for t, s in pairwise(levels.sigma.tolist())
        )
        ratio = 0.25 / (gain**2 * (80**2 + 0.25))
        assert ours == pytest.approx((ratio - 1 - math.log(ratio)) / 2, rel=1e-9)
        assert f"{ours:.{len(number) - 2}f}" == number


DDIM_STEPS = (10, 20, 50, 100, 1000)
DDIM_ROWS = {"0": DDIM(0.0), "0.2": DDIM(0.2), "0.5": DDIM(0.5), "1": DDIM(1.0), "σ̂": DDPMLarge()}
#: W₂ to the data's law on N(0, .1²) and on the spectrum of CIFAR-10.
DDIM_NARROW = {"1": ".071 .053 .032 .021 .0037", "σ̂": ".224 .088 .028 .013 .0008"}
DDIM_CIFAR10 = {
    "0": "5.01 2.81 1.25 .67 .134",
    "0.2": "5.08 2.86 1.28 .69 .136",
    "0.5": "5.45 3.14 1.44 .79 .149",
    "1": "7.44 4.46 2.17 1.24 .212",
    "σ̂": "12.0 5.75 2.11 .97 .089",
}


def signal_of_ddpm():
    """α² of DDPM's 1 000 levels."""
    return np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def ddim_distance(row, steps, law):
    """W₂ of our sampler."""
    schedule = DDPMTable(tuple(signal_of_ddpm()))
    levels = leading(schedule, steps)
    first = levels.rows[0]
    begin = first.alpha**2 * law.variances + first.sigma**2
    out = output_spectrum(DDIM_ROWS[row], law.oracle(schedule), levels, law.mean, begin)
    return W2LawGaussian().between(*out, law).value


def ddim_recursion(row, steps, eigenvalues):
    """W₂ by the closed recursion, in NumPy."""
    signal = signal_of_ddpm()[np.arange(steps) * (1000 // steps)][::-1]
    law = signal[0] * eigenvalues + 1 - signal[0]
    for t, s in pairwise([*signal, 1.0]):
        posterior = (1 - s) / (1 - t) * (1 - t / s)  # DDIM(1)'s variance, Eq. 16
        eta = 1.0 if row == "σ̂" else float(row)
        kept = np.sqrt((1 - s - eta**2 * posterior) / (1 - t))
        gain = kept + (np.sqrt(s) - kept * np.sqrt(t)) * np.sqrt(t) * eigenvalues / (
            t * eigenvalues + 1 - t
        )
        fresh = 1 - t / s if row == "σ̂" and s < 1 else eta**2 * posterior
        law = gain**2 * law + fresh
    return float(np.sqrt(((np.sqrt(law) - np.sqrt(eigenvalues)) ** 2).sum()))


def is_printed(value, number):
    """Whether a value is a printed number, to its last digit."""
    return abs(value - float(number)) <= 0.51 * 10.0 ** -len(number.partition(".")[2])


@pytest.mark.parametrize("row", DDIM_ROWS)
def test_ddim_s_table_is_the_closed_recursion(row):
    law = gaussian_spectrum(dim=50, exponent=1.5, scale=0.5)
    for steps in (10, 50):
        expected = ddim_recursion(row, steps, law.variances.numpy())
        assert ddim_distance(row, steps, law) == pytest.approx(expected, rel=1e-9)


def test_the_large_variance_on_a_narrow_gaussian():
    law = gaussian_spectrum(dim=1, scale=0.1)
    for row, numbers in DDIM_NARROW.items():
        for steps, number in zip(DDIM_STEPS, numbers.split(), strict=True):
            assert is_printed(ddim_distance(row, steps, law), number), (row, steps)


@pytest.mark.slow
@pytest.mark.skipif(CIFAR10 is None, reason="no file shared/data/cifar10_eigenvalues.npy")
def test_ddim_s_table_on_the_spectrum_of_cifar10():
    law = gaussian_spectrum(str(CIFAR10))
    for row, numbers in DDIM_CIFAR10.items():
        for steps, number in zip(DDIM_STEPS, numbers.split(), strict=True):
            assert is_printed(ddim_distance(row, steps, law), number), (row, steps)


@pytest.mark.slow
def test_guided_samplers_of_gaussians_do_not_have_the_tilted_law():
    """Bradley and Nakkiran 2024 (arXiv 2408.09000): the class is N(0, 1), all data are N(0, 2).

    In the limit of many steps the flow has variance 2^(1 − γ) and the SDE has
    (2 − 2^(2 − 2γ))/(2γ − 1); the law ∝ p^γ·p_all^(1 − γ) has 2/(γ + 1). For γ = 2 these are .5000,
    .5833 and .6667.
    """
    gamma, schedule = 2.0, EDM(800.0)
    one, two = (gaussian_spectrum(dim=1, scale=scale) for scale in (1.0, 2**0.5))
    model = Guided(one.oracle(schedule), two.oracle(schedule), gamma)

    def variance(sampler, steps):
        levels = karras(schedule, steps, noise_min=0.0005)
        start = torch.full((1,), 800.0**2).double()
        return float(output_spectrum(sampler, model, levels, one.mean, start)[1])

    flow = variance(RK4(), 100)
    # the error of order 1 cancels
    sde = 2 * variance(DDIM(1.0), 3000) - variance(DDIM(1.0), 1500)
    assert flow == pytest.approx(2 ** (1 - gamma), abs=5e-5)
    assert sde == pytest.approx((2 - 2 ** (2 - 2 * gamma)) / (2 * gamma - 1), abs=5e-5)


@pytest.mark.slow
def test_the_flow_and_the_sde_under_an_error_of_the_score():
    """The prefactors that the code of Cao et al. (arXiv 2306.02063) prints for N(0, c²).

    The score is longer by a share ε, on the first 95 % of the way from the noise or on the last
    half percent, on the VP path with β = 1 up to T = 2. The prefactor L is that of a line through
    ln KL(data ‖ output) against ln ε, for ε from .05 down to .05/1.2⁹.
    """
    errors = 0.05 / 1.2 ** np.array([0, 4, 9])
    path = VPLinear(2.0, 2.0)
    levels = log_snr(path, 1500, noise_min=0.001)
    first = levels.rows[0]
    for profile, cut, noise, tolerance, printed in (
        ("noise", 0.05, 0.0, 0.01, {0.4: 2.917, 0.6: 1.987, 0.8: 1.376}),
        ("noise", 0.05, 1.92, 0.06, {0.4: 0.00791, 0.6: 0.04997, 0.8: 0.1102}),
        ("data", 0.005, 0.0, 0.05, {0.1: 0.1247, 0.2: 0.01276}),
    ):
        variances = torch.tensor(list(printed)).double() ** 2
        law = GaussianSpectrum(variances, torch.zeros_like(variances))
        begin = first.alpha**2 * variances + first.sigma**2
        found = []
        for error in errors:
            model = Corrupted(law.oracle(path), error, profile, cut=cut)
            out = output_spectrum(SASolver(tau=noise), model, levels, law.mean, begin)[1]
            ratio = variances / out
            found.append(((ratio - 1 - ratio.log()) / 2).log().numpy())
        prefactors = np.exp(np.polyfit(np.log(errors), np.array(found), 1)[1])
        assert prefactors == pytest.approx(list(printed.values()), rel=tolerance)
