"""Exact laws on Gaussians in high dimension: against dense matrices, and published shapes."""

import functools
import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from helpers import each, mostly_slow, sweep_of
from samplerbench.app.config.compose import compose_config
from samplerbench.app.job.build import build
from samplerbench.app.job.refusals import check
from samplerbench.bench.affine import affine_map
from samplerbench.bench.coefficients import table_of_states
from samplerbench.bench.recurrences import NotTraced
from samplerbench.bench.spectra import output_spectrum
from samplerbench.core import grids
from samplerbench.core.fitted_grids import Spectral
from samplerbench.core.models import Corrupted, Denoiser, Guided
from samplerbench.core.schedules import EDM, Rectified, VPLinear
from samplerbench.core.starts import Exact, FixedGaussian, Prior
from samplerbench.datasets.divided import Divided
from samplerbench.datasets.gaussian import gaussian
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.datasets.gaussian_spectrum import (
    GaussianSpectrum,
    gaussian_spectrum,
    gaussian_twin,
)
from samplerbench.datasets.mixture import mixture as mixture_of
from samplerbench.datasets.unseen import Unseen
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.kl_law_gaussian import KLLawGaussian
from samplerbench.metrics.max_sliced import MaxSliced
from samplerbench.metrics.w2_law_gaussian import W2LawGaussian
from samplerbench.samplers.adams_bashforth import AdamsBashforth
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.ddpm_large import DDPMLarge
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.edm_churn import EDMChurn
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.predictor_corrector import PredictorCorrector
from samplerbench.samplers.restart import Restart
from samplerbench.samplers.reverse_sde import ReverseSDE
from samplerbench.samplers.sa_solver import SASolver
from samplerbench.verify.exact_law import gaussian_w2, output_law

LAW = gaussian_spectrum(dim=8, exponent=2.0)


@pytest.mark.parametrize(
    ("schedule", "settings"),
    mostly_slow([(Rectified(), "default"), (Rectified(), "all"), (EDM(10.0), "all")], 0),
    ids=str,
)
def test_it_is_the_dense_law_of_every_affine_sampler(all_samplers, schedule, settings):
    law = GaussianSpectrum(LAW.variances, torch.linspace(-1, 2, 8).double())
    dense = gaussian(law.mean.tolist(), torch.diag(law.variances).tolist())
    checked, grid = 0, functools.partial(grids.karras, noise_max=5.0, noise_min=0.1)
    for sampler in all_samplers:
        if settings == "default" and sampler != type(sampler)():
            continue
        levels = sampler.levels(grid, schedule, 4)
        reason = sampler.why_incompatible(law.oracle(schedule), levels)
        if sampler.holds or not sampler.affine or reason is not None:
            continue
        first = levels.rows[0]
        variances = first.alpha**2 * law.variances + first.sigma**2
        try:
            theirs = output_law(
                sampler,
                dense.oracle(schedule),
                levels,
                first.alpha * law.mean,
                torch.diag(variances),
            )
        except ValueError:
            with pytest.raises(ValueError, match=r"affine|uniform|chooses|own levels"):
                output_spectrum(sampler, law.oracle(schedule), levels, law.mean, variances)
            continue
        ours = output_spectrum(
            sampler, law.oracle(schedule), levels, first.alpha * law.mean, variances
        )
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(torch.diag(ours[1]), theirs[1], rtol=1e-9, atol=1e-9)
        checked += 1
    assert checked > 20


@dataclass(frozen=True)
class Off(DDIM):
    """DDIM in the way of a package that switches gradients off."""

    def steps(self, model, x, levels, noise):
        with torch.no_grad():
            yield from list(super().steps(model, x, levels, noise))


@pytest.mark.parametrize("diagonal", [True, False])
def test_a_code_without_gradients_has_the_same_map(diagonal):
    levels = grids.karras(EDM(10.0), 5, noise_min=0.1)
    rest = LAW.oracle(EDM(10.0)), levels, LAW.mean + 1
    one, other = (affine_map(one, *rest, diagonal=diagonal) for one in (DDIM(0.5), Off(0.5)))
    for name in ("output", "by_state", "by_draws"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-9)


def test_a_package_that_computes_in_float32_has_a_law():
    """Euler's steps in κ: each multiplies a coordinate by 1 + (κ'/κ − 1)·κ²/(λ + κ²)."""
    pytest.importorskip("diffusers")
    from samplerbench.samplers.diffusers import Diffusers

    schedule = VPLinear()
    sampler = Diffusers("EulerDiscreteScheduler")
    levels = sampler.own(schedule, 12)
    variances = torch.tensor([4.0, 1.0, 0.01], dtype=torch.float64)
    kappa = levels.sigma / levels.alpha
    expected = torch.ones_like(variances)
    for before, after in pairwise(kappa.tolist()):
        share = before**2 / (variances + before**2)
        expected *= (1 + (after / before - 1) * share) ** 2
    zeros = torch.zeros_like(variances)
    oracle = GaussianSpectrum(variances, zeros).oracle(schedule)
    _, found = output_spectrum(sampler, oracle, levels, zeros, torch.ones_like(variances))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


AFFINE = [DDIM(1.0), Heun(), AdamsBashforth(), EDMChurn(), PredictorCorrector(), SASolver()]


@pytest.mark.parametrize("sampler", AFFINE, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("steps", [None, 4])
def test_the_map_by_coefficients_is_that_of_the_gradients(monkeypatch, sampler, steps):
    """Read off the code, from a run on vectors, and by gradients."""
    schedule = EDM(10.0)
    levels = grids.karras(schedule, 7, noise_min=0.1)
    law = GaussianSpectrum(LAW.variances, LAW.mean + 1)
    wrong = Corrupted(law.oracle(schedule), 0.3, "sine")
    model = Guided(LAW.oracle(schedule), wrong, 1.5)

    def found():
        return affine_map(sampler, model, levels, LAW.mean + 1, diagonal=True, steps=steps)

    def not_traced(*given):
        raise NotTraced

    maps = [found()]
    for module in ("affine", "coefficients"):
        monkeypatch.setattr(f"samplerbench.bench.{module}.traced", not_traced)
    maps.append(found())
    monkeypatch.setattr("samplerbench.bench.affine._FEW", 0)
    other = found()
    for one in maps:
        for name in ("output", "by_state", "by_draws"):
            ours, theirs = getattr(one, name), getattr(other, name)
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@dataclass(frozen=True)
class Bounded(DDIM):
    """DDIM whose x̂₀ is clipped, and which does not say so."""

    most: float = 0.5

    def steps(self, model, x, levels, noise):
        most = self.most

        class Clipped(Denoiser):
            schedule = model.schedule

            def denoiser(self, x, level):
                return model.denoiser(x, level).clamp(-most, most)

        yield from super().steps(Clipped(), x, levels, noise)


def test_a_sampler_that_is_not_affine_is_found_without_its_word():
    levels = grids.karras(EDM(10.0), 5, noise_min=0.1)
    assert table_of_states(DDIM(1.0), EDM(10.0), levels).error < 1e-14
    assert table_of_states(Bounded(1.0), EDM(10.0), levels).error > 0.01
    with pytest.raises(ValueError, match="is not affine"):
        affine_map(Bounded(1.0), LAW.oracle(EDM(10.0)), levels, LAW.mean, diagonal=True)


@pytest.mark.parametrize("diagonal", [True, False])
def test_a_clip_far_from_the_mean_is_seen(diagonal):
    """At the mean, and two units from it, no x̂₀ is as large as 4."""
    levels, model = grids.karras(EDM(10.0), 5, noise_min=0.1), LAW.oracle(EDM(10.0))
    near = model.denoiser(torch.stack([LAW.mean, LAW.mean - 2]), levels.rows[0])
    assert near.abs().max() < 4
    with pytest.raises(ValueError, match="is not affine"):
        affine_map(Bounded(1.0, most=4.0), model, levels, LAW.mean, diagonal=diagonal)


@pytest.mark.parametrize("diagonal", [True, False])
def test_a_clip_at_the_size_of_the_data_is_seen(diagonal):
    """Data with a deviation of 50: an x̂₀ that is clipped at 12 is wrong, one at 5 000 is not."""
    levels = grids.karras(EDM(80.0), 10, noise_min=0.1)
    wide = GaussianSpectrum(torch.tensor([2500.0]).double(), torch.zeros(1).double())
    arguments = wide.oracle(EDM(80.0)), levels, wide.mean
    with pytest.raises(ValueError, match="is not affine"):
        affine_map(Bounded(1.0, most=12.0), *arguments, diagonal=diagonal)
    found, plain = (
        affine_map(one, *arguments, diagonal=diagonal)
        for one in (Bounded(1.0, most=5000.0), DDIM(1.0))
    )
    torch.testing.assert_close(found.by_state, plain.by_state)


def w2(mean, variances, law):
    return W2LawGaussian().between(mean, variances, law).value


def test_distances_are_those_of_dense_gaussians():
    a, b = (
        gaussian_spectrum(dim=5),
        GaussianSpectrum(torch.rand(5).double(), torch.ones(5).double()),
    )
    measured = W2LawGaussian().between(a.mean, a.variances, b)
    dense = [(law.mean, torch.diag(law.variances)) for law in (a, b)]
    assert measured.value == pytest.approx(gaussian_w2(*dense[0], *dense[1]), rel=1e-9)
    assert measured.info["frechet"] == pytest.approx(measured.value**2)
    normal = [torch.distributions.MultivariateNormal(*law) for law in dense]
    kl = KLLawGaussian().between(a.mean, a.variances, b)
    for found, (one, other) in ((kl.value, normal), (kl.info["reverse"], normal[::-1])):
        expected = float(torch.distributions.kl_divergence(one, other))
        assert found == pytest.approx(expected, rel=1e-9)


def test_the_divergence_of_singular_laws_is_finite_only_on_the_same_directions():
    law = GaussianSpectrum(torch.tensor([2.0, 0.0]).double(), torch.tensor([1.0, -1.0]).double())
    kl = KLLawGaussian()
    same = torch.tensor([1.0, 0.0]).double()
    assert kl.between(law.mean, same, law).value == pytest.approx(0.5 * (math.log(2) - 0.5))
    others = [
        (law.mean, torch.tensor([1.0, 0.1])),
        (law.mean, torch.tensor([0.0, 0.0])),
        (torch.tensor([1.0, -1.1]), same),
    ]
    for mean, variances in others:
        with pytest.raises(ValueError, match="infinite: in 1 of 2 directions"):
            kl.between(mean.double(), variances.double(), law)


def test_an_infinite_divergence_is_refused_before_the_run():
    """Where the data are constant the output is not, if the last step is not that to x̂₀."""
    law = GaussianSpectrum(torch.tensor([2.0, 0.0, 0.0]).double(), torch.zeros(3).double())
    kl, w2 = {"kl": KLLawGaussian()}, {"w2": W2LawGaussian()}
    line = (
        "metric=kl: must be another one: the divergence is infinite: the data do not vary in 2 of "
        "3 directions, and the output does"
    )
    plain = sweep_of(law, [DDIM(0.0), Heun()], [3, 5], metrics=kl, final="none")
    with pytest.raises(InvalidSetting) as caught:
        check(plain)
    assert str(caught.value) == f"{line}; use final=denoise, or metric=w2_law_gaussian"
    with pytest.raises(InvalidSetting, match="the divergence is infinite"):
        check(replace(plain, grid=Spectral()))  # its levels are fitted after this check
    noisy = [ReverseSDE(denoise=False)]
    with pytest.raises(InvalidSetting) as caught:
        check(sweep_of(law, noisy, [5], metrics=kl))
    assert str(caught.value) == f"{line}, or metric=w2_law_gaussian"
    # all of the output is one point after a step without signal
    one = sweep_of(law, [DDIM(0.0)], [1], metrics=kl, schedule=Rectified(), grid=grids.uniform)
    with pytest.raises(InvalidSetting, match="the output does not vary where the data do"):
        check(one)
    check(sweep_of(law, [DDIM(0.0), *noisy], [5], metrics=kl))  # one of them has a value
    check(replace(plain, metrics=w2))
    check(sweep_of(LAW, [Heun()], [5], metrics=kl, grid=Spectral()))
    check(replace(plain, dataset=LAW, denoisers={"oracle": LAW.oracle(EDM(10.0))}))


@pytest.mark.slow
def test_ddim_s_table_has_its_three_facts():
    """Song et al. 2021, Table 1, on a Gaussian with the spectrum of images, from the exact start.

    The error grows with η; the gap shrinks with the number of steps; σ̂ is the worst at few steps
    and the best at 1 000.
    """
    law, schedule = gaussian_spectrum(dim=3072, exponent=1.5, scale=0.5), VPLinear()
    samplers = {eta: DDIM(eta) for eta in (0.0, 0.2, 0.5, 1.0)} | {"σ̂": DDPMLarge()}

    def error(sampler, steps):
        levels = grids.leading(schedule, steps, train_steps=1000)
        first = levels.rows[0]
        start = first.alpha**2 * law.variances + first.sigma**2
        out = output_spectrum(sampler, law.oracle(schedule), levels, law.mean, start)
        return w2(*out, law)

    table = {name: [error(one, n) for n in (10, 50, 1000)] for name, one in samplers.items()}
    etas = [table[eta] for eta in (0.0, 0.2, 0.5, 1.0)]
    for column in range(3):
        assert all(a[column] < b[column] for a, b in pairwise(etas))
    gaps = [one - zero for one, zero in zip(table[1.0], table[0.0], strict=True)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert table["σ̂"][0] > table[1.0][0]
    assert table["σ̂"][2] < min(eta[2] for eta in etas)


def test_oracle_density_and_draws_are_the_gaussian_s():
    law = GaussianSpectrum(torch.tensor([4.0, 0.25]).double(), torch.tensor([1.0, -1.0]).double())
    dense = gaussian([1.0, -1.0], [[4.0, 0.0], [0.0, 0.25]])
    x, level = torch.randn(7, 2).double(), grids.Level(0.5, 0.6, 0.8)
    for one in ("denoiser", "score", "log_density"):
        ours, theirs = (getattr(each.oracle(VPLinear()), one)(x, level) for each in (law, dense))
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    draws = law.draws(200_000, "test", 0)
    torch.testing.assert_close(draws.mean(0), law.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(draws.var(0), law.variances, rtol=0.02, atol=0)


def test_the_gaussian_twin_has_the_mean_and_the_covariance_of_the_law():
    generator = np.random.default_rng(0)
    # exact for a mixture: the means and covariances of many draws agree
    narrow, wide = ((1.0, 0.5), (0.5, 1.0)), ((2.0, 0.0), (0.0, 1.0))
    mixture = GaussianMixture((0.25, 0.75), ((0.0, 1.0), (4.0, -1.0)), (narrow, wide))
    draws = mixture.sample(400_000, generator).numpy()
    twin = gaussian_twin(mixture)
    expected = np.linalg.eigvalsh(np.cov(draws.T))[::-1]
    np.testing.assert_allclose(twin.variances, expected, rtol=0.01)
    assert float(twin.mean.norm()) == pytest.approx(np.linalg.norm(draws.mean(0)), rel=0.01)
    # a finite set: all of its points, also if it has fewer than dimensions
    for shape in ((50, 4), (6, 40)):
        rows = generator.normal(size=shape)
        rows[:, -1] = 3.0  # a flat direction
        twin = gaussian_twin(Divided(torch.from_numpy(rows)))
        values = np.linalg.eigvalsh(np.cov(rows.T, bias=True))[::-1]
        np.testing.assert_allclose(
            twin.variances, values.clip(1e-14) * (values > 1e-12), atol=1e-12
        )
        assert float(twin.mean.norm()) == pytest.approx(np.linalg.norm(rows.mean(0)))
        assert float(twin.mean[twin.variances == 0].norm()) >= 3 - 1e-9
    assert gaussian_twin(LAW) is LAW
    with pytest.raises(InvalidSetting, match=r"^law=gaussian_twin: must be null"):
        gaussian_twin(Unseen((1, 2, 2)))


def test_spectra_from_files(tmp_path):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(4, 4))
    sigma, mu = matrix @ matrix.T, rng.normal(size=4)
    np.save(tmp_path / "eigenvalues.npy", [3, 2])
    np.save(tmp_path / "covariance.npy", sigma)
    np.savez(tmp_path / "fid.npz", mu=mu, sigma=sigma)
    assert gaussian_spectrum(str(tmp_path / "eigenvalues.npy")).variances.tolist() == [3, 2]
    eigenvalues = np.linalg.eigvalsh(sigma)[::-1]
    for name in ("covariance.npy", "fid.npz"):
        law = gaussian_spectrum(str(tmp_path / name))
        np.testing.assert_allclose(law.variances, eigenvalues)
    assert float(law.mean.square().sum()) == pytest.approx(float(mu @ mu))


def test_directions_without_variance_are_kept_at_every_door(tmp_path):
    """A small negative eigenvalue counts as 0. The divergence refuses it, W₂ does not."""
    for name, array in (("list", [2.0, 0.0, -1e-15]), ("matrix", np.diag([2.0, 0.0, -1e-15]))):
        np.save(tmp_path / f"{name}.npy", array)
        law = gaussian_spectrum(str(tmp_path / f"{name}.npy"))
        assert law.variances.tolist() == [2.0, 0.0, 0.0]
        one = torch.ones(3).double()
        with pytest.raises(ValueError, match="the divergence is infinite: in 2 of 3 directions"):
            KLLawGaussian().between(law.mean, one, law)
        assert W2LawGaussian().between(law.mean, one, law).value > 1


@pytest.mark.parametrize(("dtype", "rank"), [("f8", 3), ("f4", 3), ("f2", 3), ("f4", 8)])
def test_a_covariance_has_the_rank_of_its_data_in_every_precision(tmp_path, dtype, rank):
    """Eigenvalues of a product of a factor, from its singular values; flat directions have 0."""
    factor = np.random.default_rng(0).normal(size=(8, rank)) * 0.5 ** np.arange(rank)
    matrix = (factor @ factor.T).astype(dtype)
    assert rank == 8 or dtype == "f8" or np.linalg.eigvalsh(matrix.astype("f8"))[0] < -1e-9
    np.save(tmp_path / "a.npy", matrix)
    np.savez(tmp_path / "a.npz", means=np.zeros((1, 8)), covariances=matrix[None])
    exact = np.append(np.linalg.svd(factor)[1] ** 2, np.zeros(8 - rank))
    error = exact[0] * np.finfo(dtype).eps
    found = gaussian_spectrum(str(tmp_path / "a.npy")).variances
    np.testing.assert_allclose(found, exact, rtol=0, atol=4 * error)
    assert int((found > 0).sum()) == rank
    of_mixture = mixture_of(path=str(tmp_path / "a.npz")).tensors()[2][0]
    np.testing.assert_allclose(of_mixture, factor @ factor.T, rtol=0, atol=4 * error)
    np.save(tmp_path / "a.npy", np.diag([1.0, -100 * np.finfo(dtype).eps - 1e-9]).astype(dtype))
    with pytest.raises(InvalidSetting, match="at least 0"):
        gaussian_spectrum(str(tmp_path / "a.npy"))


@each(
    ("array", "message"),
    [
        ([1.0, -2.0], r"\(from -2 to 1\): must be .* at least 0"),
        ([1.0, np.nan], r"\(from nan to nan\): must be .* at least 0"),
        ([0.0, 0.0], r"\(from 0 to 0\): must be .* not all 0"),
        ([[1.0, 0.0], [0.0, -1.0]], r"\(from -1 to 1\): must be .* at least 0"),
        ([], "not empty"),
        (np.zeros((0, 0)), "not empty"),
        ([1.0, 2.0 + 1j], "real numbers are needed, and these are complex128"),
        (["a"], "real numbers are needed"),
        ([[1.0, 0.5], [0.0, 1.0]], "symmetric"),
        ([[[1.0]]], r"eigenvalues \(dim,\) or a covariance"),
        ([1e300, 1.0], r"at least 0, below 1e\+30"),
        ([[1e300, 0.0], [0.0, 1.0]], r"below 1e\+30"),
    ],
)
def test_bad_spectra_are_one_line(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InvalidSetting, match=message):
        gaussian_spectrum(str(tmp_path / "a.npy"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(2)}, "sigma is not a file"),
        ({"sigma": np.eye(2)}, "mu is not a file"),
        ({"mu": np.zeros(3), "sigma": np.eye(2)}, "of one dimension"),
        ({"mu": np.array([0, np.nan]), "sigma": np.eye(2)}, r"^path=.*\.npz: must be .* finite"),
    ],
)
def test_bad_statistics_are_one_line(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InvalidSetting, match=message):
        gaussian_spectrum(str(tmp_path / "a.npz"))


@pytest.mark.filterwarnings("ignore:unclosed file")
@pytest.mark.parametrize("read", [gaussian_spectrum, mixture_of])
@pytest.mark.parametrize("end", [0, 60, -60])
def test_an_incomplete_file_is_one_line(tmp_path, read, end):
    np.savez(tmp_path / "a.npz", mu=np.zeros(2), sigma=np.eye(2), means=np.zeros((1, 2)))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[:end])
    with pytest.raises(InvalidSetting, match=r"^path=.*a\.npz: must be "):
        read(path=str(tmp_path / "a.npz"))


@pytest.mark.parametrize("name", ["dim", "exponent", "scale"])
def test_a_setting_that_the_file_replaces_is_refused(tmp_path, name):
    np.save(tmp_path / "a.npy", [3.0, 2.0])
    with pytest.raises(InvalidSetting, match=f"^{name}=2: must be left out beside path="):
        gaussian_spectrum(str(tmp_path / "a.npy"), **{name: 2})


def test_a_similar_file_is_suggested(tmp_path):
    np.save(tmp_path / "spectrum.npy", [3.0, 2.0])
    message = r"spectum.npy: must be a file that exists; did you mean .*/spectrum.npy\?$"
    with pytest.raises(InvalidSetting, match=message):
        gaussian_spectrum(str(tmp_path / "spectum.npy"))
    with pytest.raises(InvalidSetting, match=r"must be a file that exists$"):
        gaussian_spectrum(str(tmp_path / "none" / "spectrum.npy"))


@pytest.mark.parametrize("of", [list, np.array, torch.Tensor.float, torch.diag])
def test_a_spectrum_of_another_type_is_one_line(of):
    with pytest.raises(InvalidSetting, match="must be a float64 tensor"):
        GaussianSpectrum(of(LAW.variances), LAW.mean)


def test_a_network_that_no_metric_measures_is_not_trained():
    words = ["dataset=gaussian_spectrum", "dataset.dim=3", "metric=w2_law_gaussian"]
    with pytest.raises(InvalidSetting, match=r"^denoiser=learned: must be left out: the law is"):
        build(*compose_config(words), "")


def test_a_sampler_that_chooses_its_steps_is_refused():
    levels = grids.karras(EDM(10.0), 5, noise_min=0.02)
    with pytest.raises(ValueError, match="is not affine"):
        output_spectrum(DormandPrince(), LAW.oracle(EDM(10.0)), levels, LAW.mean, LAW.variances)


def test_coordinates_in_several_parts_have_the_law_of_each(monkeypatch):
    levels = grids.karras(EDM(10.0), 5, noise_min=0.02)
    law = LAW.oracle(EDM(10.0)), levels, LAW.mean, LAW.variances + 100
    whole = output_spectrum(DDIM(0.5), *law)
    monkeypatch.setattr("samplerbench.bench.spectra._AT_ONCE", 3)
    for one, other in zip(output_spectrum(DDIM(0.5), *law), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_images_of_200_000_numbers_take_a_moment():
    law = gaussian_spectrum(dim=196_608)
    levels = grids.karras(EDM(80.0), 10, noise_min=0.002)
    out = output_spectrum(Heun(), law.oracle(EDM(80.0)), levels, law.mean, law.variances + 80**2)
    assert w2(*out, law) > 0


@pytest.mark.parametrize("final", ["denoise", "none"])
def test_evaluations_are_counted_where_they_depend_on_the_levels(final):
    law = gaussian_spectrum(dim=3)
    sweep = sweep_of(
        law,
        [("restart", Restart(repeats=2)), ("heun", Heun())],
        [8],
        schedule=EDM(20.0),
        grid=functools.partial(grids.karras, noise_min=0.01),
        final=final,
        metrics={"w2": W2LawGaussian(), "max_sliced": MaxSliced(directions=2)},
        reference=law.draws(8, "evaluation", 0),
        n_samples=8,
        floor_repetitions=2,
    )
    rows = [row for row in sweep.run() if row.denoiser != "law"]
    for sampler in ("restart", "heun"):
        exact, drawn = (
            {r.nfe for r in rows if (r.sampler, r.metric) == (sampler, m)} for m in sweep.metrics
        )
        assert exact == drawn != {0}


@pytest.mark.slow
def test_a_sweep_has_one_exact_row_a_cell():
    law, schedule = gaussian_spectrum(dim=6), EDM(20.0)
    sweep = sweep_of(
        law,
        [("ddim", DDIM(0.5)), ("dormand_prince", DormandPrince())],
        [5, 50],
        schedule=schedule,
        grid=functools.partial(grids.karras, noise_min=0.01),
        starts={"prior": Prior(), "exact": Exact(), "other": FixedGaussian(1.0, 3.0)},
        metrics={"w2": W2LawGaussian(), "max_sliced": MaxSliced(directions=4)},
        reference=law.draws(20, "evaluation", 0),
        n_samples=20,
        repetitions=3,
        floor_repetitions=2,
    )
    rows = sweep.run()
    assert len(rows) == sweep.row_count()
    exact = [row for row in rows if row.metric == "w2"]
    assert len(exact) == 2 * 2 * 3
    status = {(row.sampler, row.status) for row in exact}
    assert status == {("ddim", "ok"), ("dormand_prince", "incompatible")}
    values = {(row.start, row.steps): row.value for row in exact if row.status == "ok"}
    assert values["exact", 50] < values["exact", 5] < values["prior", 5]
    # samples of the same cell have that W₂ along a direction, but for their floor
    dense = gaussian(law.mean.tolist(), torch.diag(law.variances).tolist())
    levels = sweep.levels(5)
    start = (torch.ones(6).double(), 9 * torch.eye(6).double())
    theirs = output_law(DDIM(0.5), dense.oracle(schedule), levels, *start)
    expected = gaussian_w2(*theirs, law.mean, torch.diag(law.variances))
    assert values["other", 5] == pytest.approx(expected, rel=1e-9)
    for changes in ({"samplers": [("mine", DormandPrince())]}, {"dataset": dense}):
        with pytest.raises(InvalidSetting, match=r"^metric=w2: must be another one: it"):
            check(replace(sweep, **changes))
