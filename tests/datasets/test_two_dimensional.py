"""The standard 2-D laws: their draws, their exact denoisers, their settings."""

from __future__ import annotations

import math
from itertools import combinations

import mpmath
import numpy as np
import pytest
import torch
from scipy import integrate
from torch import float64

from samplerbench.bench.identity import identity
from samplerbench.core.grids import Level
from samplerbench.core.schedules import EDM, Rectified
from samplerbench.datasets.checkerboard import Checkerboard
from samplerbench.datasets.eight_gaussians import eight_gaussians
from samplerbench.datasets.pinwheel import Pinwheel
from samplerbench.datasets.rings import Rings
from samplerbench.datasets.swiss_roll import SwissRoll
from samplerbench.datasets.two_moons import TwoMoons
from samplerbench.errors import InvalidSetting

LAWS = {
    "eight_gaussians": eight_gaussians(),
    "two_moons": TwoMoons(),
    "swiss_roll": SwissRoll(),
    "rings": Rings(),
    "checkerboard": Checkerboard(),
    "odd_board": Checkerboard(3, 0.5),
    "pinwheel": Pinwheel(),
}
EXACT = [name for name in LAWS if name != "pinwheel"]
CURVES = ["two_moons", "swiss_roll"]
# variance preserving, exploding, nearly no signal, nearly no noise
LEVELS = [(0.6, 0.8), (1.0, 0.05), (1.0, 20.0), (1e-3, 1.0), (0.9, 0.4)]


def level(alpha, sigma):
    return Level(0.5, alpha, sigma)


def oracle(law):
    return law.oracle(EDM(80.0))


def average(law, function):
    """E[f(x₀)] by quadrature over the law's own parameters, for f of points of shape (…, 2)."""
    # exact for fourth moments; the pinwheel's angle is not a polynomial
    z, w = np.polynomial.hermite_e.hermegauss(40 if isinstance(law, Pinwheel) else 5)
    z1, z2 = np.meshgrid(z, z)
    normal = torch.from_numpy(np.stack([z1, z2], -1))
    weights = torch.from_numpy(np.outer(w, w) / (2 * np.pi))
    if isinstance(law, Checkerboard):
        nodes, lengths = np.polynomial.legendre.leggauss(10)
        total, dark = 0, 0
        for i in range(law.squares):
            for j in range(law.squares):
                if (i + j) % 2:
                    continue
                x, y = (law.side * (k - law.squares / 2 + (nodes + 1) / 2) for k in (i, j))
                points = torch.from_numpy(np.stack(np.meshgrid(x, y), -1))
                area = torch.from_numpy(np.outer(lengths, lengths) / 4)
                total, dark = total + (area[..., None] * function(points)).sum((0, 1)), dark + 1
        return total / dark
    if isinstance(law, Pinwheel):
        total = 0
        for arm in range(law.arms):
            rho, tau = 1 + law.radial_std * z1, law.tangential_std * z2
            turned = (rho + 1j * tau) * np.exp(
                -1j * (2 * np.pi * arm / law.arms + law.rate * np.exp(rho))
            )
            points = law.scale * torch.from_numpy(np.stack([turned.real, turned.imag], -1))
            total = total + (weights[..., None] * function(points)).sum((0, 1))
        return total / law.arms
    if isinstance(law, Rings):
        angle = 2 * np.pi * np.arange(64) / 64
        circle = torch.from_numpy(np.stack([np.cos(angle), np.sin(angle)], -1))
        centres, noise = torch.cat([r * circle for r in law.radii]), law.noise
    elif isinstance(law, TwoMoons):
        angle = np.pi * (np.arange(2000) + 0.5) / 2000
        upper = np.stack([np.cos(angle), np.sin(angle)], -1)
        lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], -1)  # scikit-learn's
        centres = law.radius * torch.from_numpy(np.concatenate([upper, lower]) - [0.5, 0.25])
        noise = law.noise
    elif isinstance(law, SwissRoll):
        angle = 1.5 * np.pi * (1 + 2 * (np.arange(4000) + 0.5) / 4000)  # scikit-learn's
        centres = torch.from_numpy(law.scale * angle * np.stack([np.cos(angle), np.sin(angle)])).T
        noise = law.noise
    else:
        centres, noise = torch.tensor(law.means, dtype=float64), law.covariances[0][0][0] ** 0.5
    points = centres[:, None, None] + noise * normal
    return (weights[..., None] * function(points)).sum((1, 2)).mean(0)


def moments_of(x):
    """The first, second and fourth powers, and the mixed ones."""
    a, b = x[..., 0], x[..., 1]
    return torch.stack([a, b, a * a, a * b, b * b, a**3 * b, a**2 * b**2, a**4, b**4], -1)


@pytest.mark.parametrize("name", LAWS)
def test_moments_of_draws(name):
    law, count = LAWS[name], 200_000
    x = law.draws(count, "evaluation", 0)
    assert x.shape == (count, 2)
    assert x.dtype == torch.float64
    values = moments_of(x)
    error = (values.mean(0) - average(law, moments_of)).abs()
    assert (error < 5 * values.std(0) / count**0.5).all()


@pytest.mark.parametrize("name", LAWS)
def test_draws_have_an_address(name):
    law = LAWS[name]
    sets = [
        law.draws(500, p, s) for p in ("train", "validation", "evaluation", "floor") for s in (0, 1)
    ]
    for one, two in combinations(sets, 2):
        assert not torch.isin(one, two).any()
    assert torch.equal(sets[0], law.draws(500, "train", 0))
    assert identity(law) == identity(law)
    assert len({identity(other) for other in LAWS.values()}) == len(LAWS)


def test_pictures():
    """What people know of each: where the points are and where none are."""
    board = Checkerboard().draws(20_000, "train", 0)
    assert board.abs().max() <= 4
    assert ((board / 2).floor().sum(-1) % 2 == 0).all()
    assert len(torch.unique((board / 2).floor(), dim=0)) == 8
    rings = Rings().draws(20_000, "train", 0).norm(dim=-1)
    nearest = (rings[:, None] - torch.tensor([0.75, 1.5, 2.25, 3.0])).abs().argmin(-1)
    assert (nearest.bincount() / 20_000 - 0.25).abs().max() < 5 * (0.25 * 0.75 / 20_000) ** 0.5
    eight = eight_gaussians().draws(80_000, "train", 0)
    angle = torch.atan2(eight[:, 1], eight[:, 0]) / (math.pi / 4)
    assert angle.round().remainder(8).unique(return_counts=True)[1] == pytest.approx(1e4, rel=0.05)
    assert eight.norm(dim=-1).mean() == pytest.approx(4 / 2**0.5, rel=0.02)
    within = (eight[:, 0] - 8**0.5 * (angle.round() * math.pi / 4).cos()).std()
    assert within == pytest.approx(0.5 / 2**0.5, rel=0.02)  # FFJORD's
    wheel = Pinwheel().draws(20_000, "train", 0)
    assert wheel.var(0) == pytest.approx(2 * (1 + 0.09 + 0.01), rel=0.05)
    turned = Pinwheel(rate=0.0).draws(20_000, "train", 0)  # unbent arms lie at 0, −72°, …
    angle = torch.atan2(turned[:, 1], turned[:, 0]) / (2 * math.pi / 5)
    assert (angle - angle.round()).abs().mean() < 0.1
    # the bend is clockwise and grows outwards: at ρ = 1 it is e/4
    bent = Pinwheel(arms=1, radial_std=0.0, tangential_std=0.0).draws(1, "train", 0)[0]
    assert torch.atan2(bent[1], bent[0]) == pytest.approx(-math.e / 4)


def test_moons_are_point_symmetric():
    u = torch.linspace(0.01, 0.99, 50, dtype=float64)
    moons = TwoMoons(radius=3.0)
    torch.testing.assert_close(moons.curve(u), -moons.curve(u + 1))


@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
@pytest.mark.parametrize("name", EXACT)
def test_oracle_is_tweedie(name, alpha, sigma, states):
    law = LAWS[name]
    x = (alpha * law.draws(40, "train", 0) + sigma * states(40, 2)).requires_grad_()
    model = oracle(law)
    (gradient,) = torch.autograd.grad(model.log_density(x, level(alpha, sigma)).sum(), x)
    torch.testing.assert_close(
        model.score(x, level(alpha, sigma)), gradient, rtol=1e-7, atol=1e-8 / sigma
    )


@pytest.mark.parametrize(("alpha", "sigma"), [(0.6, 0.8), (0.9, 0.4), (1.0, 20.0)])
@pytest.mark.parametrize("name", EXACT)
def test_oracle_is_the_posterior_mean(name, alpha, sigma, states):
    """Against E[x₀·w]/E[w], w = N(x; α·x₀, σ²·I), over draws of the law."""
    law, count = LAWS[name], 200_000
    x0 = law.draws(count, "train", 1)
    x = alpha * law.draws(6, "train", 2) + sigma * states(6, 2)
    x0_hat = oracle(law).denoiser(x, level(alpha, sigma))
    log_q = oracle(law).log_density(x, level(alpha, sigma))
    for one, value, log_density in zip(x, x0_hat, log_q, strict=True):
        kernel = torch.exp(-(one - alpha * x0).square().sum(-1) / (2 * sigma**2))
        weight = kernel / kernel.sum()
        mean = weight @ x0
        error = (weight.square() @ (x0 - mean).square()).sqrt()
        assert ((value - mean).abs() < 5 * error + 1e-6).all()
        density = kernel.mean() / (2 * math.pi * sigma**2)
        relative = float(kernel.std() / kernel.mean() / count**0.5)
        assert abs(math.log(density) - float(log_density)) < 5 * relative + 1e-6


@pytest.mark.parametrize("name", EXACT)
def test_density_integrates_to_one(name):
    """On a grid, at a level whose density is smooth on it: the trapezium rule is exact there."""
    axis = torch.linspace(-9, 9, 121, dtype=float64)
    x = torch.cartesian_prod(axis, axis)
    log_q = oracle(LAWS[name]).log_density(x, level(0.9, 0.3))
    assert float(log_q.exp().sum()) * 0.15**2 == pytest.approx(1, abs=1e-9)


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
    law, alpha = LAWS[name], 0.8
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
    fine = oracle(kind(noise=noise)).mixtures[0].mixture
    u, weights = law.nodes(noise / 4)
    fine.means = law.curve(u) - fine.centre
    fine.log_weights, fine.variances = weights.log(), torch.full_like(u, noise**2)
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


@pytest.mark.parametrize(("x", "alpha", "sigma"), BOARD)
@pytest.mark.parametrize("squares", [4, 1])
def test_checkerboard_against_the_closed_form(x, alpha, sigma, squares):
    model = oracle(Checkerboard(squares, 2.0))
    state = torch.tensor(x, dtype=float64)
    log_q, first, second = exact_board(x, alpha, sigma, squares, 2.0)
    x0_hat = model.denoiser(state, level(alpha, sigma))
    torch.testing.assert_close(
        x0_hat, torch.tensor([first, second], dtype=float64), rtol=1e-12, atol=1e-13
    )
    assert float(model.log_density(state, level(alpha, sigma))) == pytest.approx(log_q, rel=1e-12)


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


@pytest.mark.parametrize("name", EXACT)
def test_any_batch_and_a_level_for_each(name, states):
    """Batches (), (n,), (E, n); per-sample levels; the dtype of the state."""
    model = oracle(LAWS[name])
    x = 2 * states(3, 5, 2)
    t = torch.linspace(0.1, 0.9, 15, dtype=float64).reshape(3, 5, 1)
    alpha, sigma = Rectified()(t)
    each = model.denoiser(x, Level(t, alpha, sigma))
    density = model.log_density(x, Level(t, alpha, sigma))
    assert each.shape == x.shape
    assert density.shape == (3, 5)
    for i in range(3):
        for j in range(5):
            at = Level(*(float(v[i, j]) for v in (t, alpha, sigma)))
            torch.testing.assert_close(model.denoiser(x[i, j], at), each[i, j], rtol=0, atol=1e-11)
            torch.testing.assert_close(model.log_density(x[i, j], at), density[i, j])
    single = model.denoiser(x.float(), level(1.0, 0.5))
    assert single.dtype == torch.float32
    torch.testing.assert_close(
        single.double(), model.denoiser(x, level(1.0, 0.5)), atol=1e-5, rtol=0
    )
    assert model.denoiser(x[:0], level(1.0, 0.5)).shape == (0, 5, 2)


def test_pinwheel_has_no_oracle():
    assert Pinwheel().oracle(EDM(80.0)) is None


@pytest.mark.parametrize(
    ("build", "field"),
    [
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
    ],
)
def test_refusals(build, field):
    with pytest.raises(InvalidSetting) as error:
        build()
    assert error.value.field == field
    assert "\n" not in str(error.value)
