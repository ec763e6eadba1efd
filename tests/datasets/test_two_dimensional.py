"""The standard 2-D laws: moments of their draws, their exact denoisers to many digits."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import integrate
from torch import float64

from helpers import refused_in_one_line
from samplerbench.core.grids import Level
from samplerbench.core.models import IsotropicMixtureOracle
from samplerbench.core.schedules import EDM
from samplerbench.datasets.checkerboard import PIECE, Checkerboard
from samplerbench.datasets.eight_gaussians import eight_gaussians
from samplerbench.datasets.pinwheel import Pinwheel
from samplerbench.datasets.rings import Rings
from samplerbench.datasets.swiss_roll import SwissRoll
from samplerbench.datasets.two_moons import TwoMoons

CURVES = {"two_moons": TwoMoons(), "swiss_roll": SwissRoll()}


def level(alpha, sigma):
    return Level(0.5, alpha, sigma)


def oracle(law):
    return law.oracle(EDM(80.0))


def test_eight_gaussians_are_ffjords():
    """`toy_data.py`: centres at radius 4 with standard deviation ½, all divided by √2."""
    law = eight_gaussians()
    means = torch.tensor(law.means, dtype=float64)
    angles = torch.arange(8, dtype=float64) * math.pi / 4
    expected = 8**0.5 * torch.stack([angles.cos(), angles.sin()], -1)
    torch.testing.assert_close(means, expected, rtol=1e-12, atol=1e-12)
    assert law.covariances[0][0] == pytest.approx((0.125, 0.0))
    assert set(law.weights) == {1 / 8}


def powers(x):
    a, b = x[..., 0], x[..., 1]
    return torch.stack([a, b, a * a, a * b, b * b, a**3 * b, a**2 * b**2, a**4, b**4], -1)


def test_moments_of_the_pinwheel():
    """By Gauss–Hermite quadrature over ρ and τ, the turn written with complex numbers."""
    law, count = Pinwheel(), 200_000
    z, w = np.polynomial.hermite_e.hermegauss(40)
    z1, z2 = np.meshgrid(z, z)
    weights, expected = torch.from_numpy(np.outer(w, w) / (2 * np.pi)), 0
    for arm in range(5):
        rho, tau = 1 + 0.3 * z1, 0.1 * z2
        turned = (rho + 1j * tau) * np.exp(-1j * (2 * np.pi * arm / 5 + 0.25 * np.exp(rho)))
        points = 2 * torch.from_numpy(np.stack([turned.real, turned.imag], -1))
        expected = expected + (weights[..., None] * powers(points)).sum((0, 1)) / 5
    found = powers(law.draws(count, "evaluation", 0))
    assert ((found.mean(0) - expected).abs() < 5 * found.std(0) / count**0.5).all()


def test_where_the_points_are():
    """Moments do not show that squares stay empty, and in which direction arms are bent."""
    board = Checkerboard().draws(20_000, "train", 0)
    assert board.abs().max() <= 4
    assert ((board / 2).floor().sum(-1) % 2 == 0).all()
    assert len(torch.unique((board / 2).floor(), dim=0)) == 8
    # at ρ = 1 an arm is turned clockwise by e/4
    bent = Pinwheel(arms=1, radial_std=0.0, tangential_std=0.0).draws(1, "train", 0)[0]
    assert torch.atan2(bent[1], bent[0]) == pytest.approx(-math.e / 4)


def plain_curve(law, u):
    """scikit-learn's parametrisations, in plain Python."""
    if isinstance(law, SwissRoll):
        angle = 1.5 * math.pi * (1 + 2 * u)
        return law.scale * angle * math.cos(angle), law.scale * angle * math.sin(angle)
    x, y = math.cos(math.pi * (u % 1)), math.sin(math.pi * (u % 1))
    x, y = (x, y) if u < 1 else (1 - x, 0.5 - y)
    return law.radius * (x - 0.5), law.radius * (y - 0.25)


@pytest.mark.parametrize("sigma", [1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("name", CURVES)
def test_curves_against_adaptive_quadrature(name, sigma, states):
    """`scipy.integrate.quad` on the curve, at ten widths from it too."""
    law, alpha = CURVES[name], 0.8
    spread = alpha**2 * law.noise**2 + sigma**2
    direction = states(4, 2) / states(4, 2).norm(dim=-1, keepdim=True)
    far = torch.tensor([[0.0], [1.0], [3.0], [10.0]])
    u0 = torch.tensor([0.1, 0.5, 0.77, 0.99], dtype=float64)
    x = alpha * law.curve(u0) + far * spread**0.5 * direction
    x0_hat = oracle(law).denoiser(x, level(alpha, sigma))
    log_q = oracle(law).log_density(x, level(alpha, sigma))

    for one, value, log_density in zip(x.tolist(), x0_hat, log_q, strict=True):

        def exponent(u, one=one):
            distance = math.dist(one, [alpha * v for v in plain_curve(law, u)])
            return -(distance**2) / (2 * spread)

        grid = [law.pieces * (k + 0.5) / 2000 for k in range(2000)]
        peak = max(grid, key=exponent)
        top = exponent(peak)

        def integral(factor, exponent=exponent, peak=peak, top=top):
            total = 0.0
            for piece in range(law.pieces):
                cuts = [p for p in (peak - 0.02, peak, peak + 0.02) if piece < p < piece + 1]
                total += integrate.quad(
                    lambda u: math.exp(exponent(u) - top) * factor(plain_curve(law, u)),
                    piece,
                    piece + 1,
                    points=cuts or None,
                    epsabs=1e-14,
                    epsrel=1e-11,
                    limit=500,
                )[0]
            return total

        mass = integral(lambda point: 1.0)
        centre = [integral(lambda point, i=i: point[i]) / mass for i in range(2)]
        gain = alpha * law.noise**2 / spread
        expected = [c + gain * (v - alpha * c) for c, v in zip(centre, one, strict=True)]
        torch.testing.assert_close(
            value, torch.tensor(expected, dtype=float64), rtol=1e-9, atol=1e-9
        )
        constant = math.log(mass / law.pieces / (2 * math.pi * spread))
        assert float(log_density) == pytest.approx(top + constant, abs=1e-9)


@pytest.mark.parametrize("noise", [0.02, 0.2, 5.0])
@pytest.mark.parametrize("kind", [TwoMoons, SwissRoll])
def test_curves_have_nodes_enough(kind, noise, states):
    """All sets of nodes against four times as many, within ten widths of the curve."""
    law = kind(noise=noise)
    model = oracle(law)
    u, weights = law.nodes(noise / 4)
    variances = torch.full_like(u, noise**2)
    fine = IsotropicMixtureOracle(model.schedule, weights, law.curve(u), variances)
    direction = states(50, 2) / states(50, 2).norm(dim=-1, keepdim=True)
    distance = torch.linspace(0, 10, 50).unsqueeze(-1)
    for sigma in (1e-3, noise, 3.9 * noise, 4.1 * noise, 17 * noise, 100 * noise, 100.0):
        x = law.curve(
            law.pieces * torch.rand(50, generator=torch.Generator().manual_seed(0)).double()
        )
        x = x + distance * math.hypot(noise, sigma) * direction
        at = level(1.0, sigma)
        torch.testing.assert_close(
            model.denoiser(x, at), fine.denoiser(x, at), rtol=1e-11, atol=1e-11
        )
        torch.testing.assert_close(
            model.log_density(x, at), fine.log_density(x, at), rtol=0, atol=1e-11
        )


# ordinary, on an edge and at a corner, far in the tails, tiny noise, huge noise, little signal
BOARD = [
    ((0.3, -1.2), 1.0, 0.5),
    ((2.0, 2.0), 1.0, 0.1),
    ((2.001, 0.7), 0.7, 1e-3),
    ((1.0, 1.0), 1.0, 1e-6),
    ((1.0, 3.0), 1.0, 0.02),
    ((30.0, -1.0), 1.0, 0.02),
    ((-300.0, 500.0), 0.9, 0.05),
    ((4.001, 1.0), 1.0, 1e-5),
    ((10.0, -70.0), 1.0, 80.0),
    ((0.1, 0.2), 1.0, 1e6),
    ((1.5, -0.4), 1e-8, 1.0),
    ((5e4, -0.4), 1e-4, 1.0),
]


def exact_board(x, alpha, sigma, squares, side):
    """log q and x̂₀ of the checkerboard from the closed form, in 100 digits."""
    with mpmath.workdps(100):
        alpha, sigma, side = mpmath.mpf(alpha), mpmath.mpf(sigma), mpmath.mpf(side)
        edges = [side * (k - mpmath.mpf(squares) / 2) for k in range(squares + 1)]
        masses, firsts = [], []
        for y in map(mpmath.mpf, x):
            z = [(y - alpha * edge) / sigma for edge in edges]
            tails = [mpmath.erfc(abs(v) / mpmath.sqrt(2)) / 2 for v in z]
            density = [mpmath.npdf(v) for v in z]
            # Φ(z) is a tail on the left and 1 less a tail on the right
            signed = [tail if v < 0 else -tail for tail, v in zip(tails, z, strict=True)]
            crossed = [int(z[k] >= 0 > z[k + 1]) for k in range(squares)]
            masses.append(
                [(crossed[k] + signed[k] - signed[k + 1]) / alpha for k in range(squares)]
            )
            firsts.append(
                [
                    y / alpha * masses[-1][k] + sigma / alpha**2 * (density[k] - density[k + 1])
                    for k in range(squares)
                ]
            )
        dark = [(i, j) for i in range(squares) for j in range(squares) if (i + j) % 2 == 0]
        q = sum(masses[0][i] * masses[1][j] for i, j in dark)
        first = sum(firsts[0][i] * masses[1][j] for i, j in dark) / q
        second = sum(masses[0][i] * firsts[1][j] for i, j in dark) / q
        return float(mpmath.log(q / (len(dark) * side**2))), float(first), float(second)


@pytest.mark.parametrize(("squares", "side"), [(4, 2.0), (1, 2.0), (3, 0.5)])
def test_checkerboard_against_the_closed_form(squares, side):
    model = oracle(Checkerboard(squares, side))
    for x, alpha, sigma in BOARD:
        state, at = torch.tensor(x, dtype=float64), level(alpha, sigma)
        log_q, *means = exact_board(x, alpha, sigma, squares, side)
        expected = torch.tensor(means, dtype=float64)
        torch.testing.assert_close(model.denoiser(state, at), expected, rtol=1e-12, atol=1e-13)
        assert float(model.log_density(state, at)) == pytest.approx(log_q, rel=1e-12)


def test_checkerboard_in_pieces():
    """Many states at one level are evaluated in pieces; a level of each state is not."""
    model, x = oracle(Checkerboard()), torch.linspace(-3, 3, 2 * 2 * PIECE + 2).double()
    x, sigma = x.view(-1, 2), torch.full((2 * PIECE + 1, 1), 0.3, dtype=float64)
    whole = model.denoiser(x, Level(sigma, torch.ones_like(sigma), sigma))
    torch.testing.assert_close(model.denoiser(x, Level(0.3, 1.0, 0.3)), whole)


def test_checkerboard_without_signal():
    model = oracle(Checkerboard())
    x = torch.tensor([[0.0, 0.0], [3.0, -2.0]], dtype=float64)
    assert model.denoiser(x, level(0.0, 1.0)).abs().max() < 1e-15
    expected = -x.square().sum(-1) / 2 - math.log(2 * math.pi)
    torch.testing.assert_close(model.log_density(x, level(0.0, 1.0)), expected)


@pytest.mark.parametrize(
    ("x", "alpha", "sigma"),
    [
        ((0.3, -1.2), 1.0, 0.5),
        ((0.0, 0.0), 0.8, 0.1),
        ((1e-9, 0.0), 0.8, 0.1),
        ((1.1, 0.2), 1.0, 1e-5),
        ((300.0, -400.0), 1.0, 0.01),
        ((1e-3, 2.0), 1e-6, 1.0),
        ((50.0, 2.0), 1.0, 80.0),
    ],
)
def test_rings_against_the_closed_form(x, alpha, sigma):
    law = Rings()
    with mpmath.workdps(60):
        spread = mpmath.mpf(alpha) ** 2 * mpmath.mpf(law.noise) ** 2 + mpmath.mpf(sigma) ** 2
        rho = mpmath.hypot(*x)
        terms, pull = [], []
        for radius in law.radii:
            kappa = alpha * radius * rho / spread
            exponent = -(rho**2 + (mpmath.mpf(alpha) * radius) ** 2) / (2 * spread)
            term = mpmath.exp(exponent) * mpmath.besseli(0, kappa)
            terms.append(term)
            pull.append(radius * mpmath.besseli(1, kappa) / mpmath.besseli(0, kappa) * term)
        q = sum(terms) / (len(terms) * 2 * mpmath.pi * spread)
        m = [sum(pull) / sum(terms) * (v / rho if rho else 0) for v in x]
        gain = alpha * mpmath.mpf(law.noise) ** 2 / spread
        expected = [float(a + gain * (v - alpha * a)) for a, v in zip(m, x, strict=True)]
        log_q = float(mpmath.log(q))
    state = torch.tensor(x, dtype=float64)
    x0_hat = oracle(law).denoiser(state, level(alpha, sigma))
    torch.testing.assert_close(
        x0_hat, torch.tensor(expected, dtype=float64), rtol=1e-12, atol=1e-14
    )
    actual = float(oracle(law).log_density(state, level(alpha, sigma)))
    assert actual == pytest.approx(log_q, rel=1e-12)


def test_refusals():
    for build, field in (
        (lambda: eight_gaussians(radius=0.0), "radius"),
        (lambda: eight_gaussians(variance=-1.0), "variance"),
        (lambda: eight_gaussians(scale=math.inf), "scale"),
        (lambda: TwoMoons(radius=-1.0), "radius"),
        (lambda: TwoMoons(radius=math.nan), "radius"),
        (lambda: TwoMoons(noise=0.0), "noise"),
        (lambda: TwoMoons(noise=1e-6), "noise"),
        (lambda: SwissRoll(scale=0.0), "scale"),
        (lambda: SwissRoll(noise=math.nan), "noise"),
        (lambda: SwissRoll(noise=1e-5), "noise"),
        (lambda: Rings(radii=()), "radii"),
        (lambda: Rings(radii=(1.0, -1.0)), "radii"),
        (lambda: Rings(noise=0.0), "noise"),
        (lambda: Checkerboard(squares=0), "squares"),
        (lambda: Checkerboard(squares=1000), "squares"),
        (lambda: Checkerboard(side=-2.0), "side"),
        (lambda: Pinwheel(arms=0), "arms"),
        (lambda: Pinwheel(radial_std=-1.0), "radial_std"),
        (lambda: Pinwheel(tangential_std=math.nan), "tangential_std"),
        (lambda: Pinwheel(rate=math.inf), "rate"),
        (lambda: Pinwheel(scale=0.0), "scale"),
    ):
        with refused_in_one_line(field=field):
            build()
