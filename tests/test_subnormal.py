"""No oracle, metric or quadrature computes with subnormal numbers, at any noise level.

Many processors take a hundred times as long for them; see `core/responsibilities.py`.
"""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers import mostly_slow
from samplerbench.bench.line_densities import StartLaw, law_of_output
from samplerbench.core.grids import Level, karras
from samplerbench.core.models import Denoiser
from samplerbench.core.responsibilities import NEGLIGIBLE, log_sum, responsibilities
from samplerbench.core.schedules import EDM
from samplerbench.core.starts import Exact
from samplerbench.datasets.gaussian_mixture import GaussianMixture
from samplerbench.metrics.base import OutputLawMetric
from samplerbench.metrics.kl_law import KLLaw
from samplerbench.metrics.tv_law import TVLaw
from samplerbench.metrics.w_output_1d import WOutput1D
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.sde_dpmpp_2m import SDEDPMpp2M
from samplerbench.verify import metric_contract

#: Other operations only move numbers, also those of memory that nobody has written to.
ARITHMETIC = {"add", "sub", "mul", "div", "square", "pow", "sqrt", "log", "reciprocal", "lerp"}
ARITHMETIC |= {"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "addcmul", "addcdiv"}
ARITHMETIC |= {"sum", "mean", "cumsum", "index_add", "linalg_vector_norm"}


class Subnormals(TorchDispatchMode):
    """Counts subnormal numbers among the inputs of the arithmetic of torch, by operation."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__.rstrip("_")
        if name in ARITHMETIC:
            for value in tree_leaves(args):
                if isinstance(value, Tensor) and value.dtype in (torch.float32, torch.float64):
                    self.found[name] += subnormal(value)
        return func(*args, **(kwargs or {}))


def subnormal(values: Tensor) -> int:
    """How many numbers are not 0 and below 2.2e-308 (float64) or 1.2e-38 (float32)."""
    # by their bits, since comparisons may take them for 0
    kind, mantissa, sign = (
        (torch.int64, 52, 63) if values.dtype == torch.float64 else (torch.int32, 23, 31)
    )
    bits = values.detach().contiguous().view(kind) & (2**sign - 1)
    return int(((bits > 0) & (bits < 2**mantissa)).sum())


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    return getattr(torch, request.param)


def test_they_are_counted(dtype):
    tiny = torch.finfo(dtype).tiny
    values = torch.tensor([0.0, -0.0, 1.0, tiny, -tiny / 2, tiny / 100, math.inf], dtype=dtype)
    assert subnormal(values) == 2
    with Subnormals() as counter:
        values.sum()
        values.reshape(7, 1) @ values.reshape(1, 7)
    assert counter.found == {"sum": 2, "mm": 4}


def test_responsibilities_are_a_softmax(states):
    logs = 400 * states(50, 30).requires_grad_()
    for dim in (0, 1):
        ours = responsibilities(logs, dim)
        torch.testing.assert_close(ours, logs.softmax(dim), rtol=1e-12, atol=NEGLIGIBLE)
        assert ours[ours > 0].min() > NEGLIGIBLE / 2
        torch.testing.assert_close(log_sum(logs, dim), logs.logsumexp(dim), rtol=1e-14, atol=0)
        gradients = [
            torch.autograd.grad(value.sum(), logs)[0]
            for value in (log_sum(logs, dim), logs.logsumexp(dim))
        ]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=NEGLIGIBLE)
    assert subnormal(logs.softmax(0)) > 0  # there were some


@pytest.mark.parametrize("count", mostly_slow([13, 31], 0))
def test_oracles(any_dataset, count):
    """At noise levels from a thousandth to a thousand times the width of the data."""
    law, model = any_dataset, any_dataset.oracle(EDM(1e4))
    x0, levels = torch.zeros(2, 1), torch.empty(0)
    if model is not None:
        x0, levels = law.draws(16, "start", 0), torch.logspace(-3, 3, count)
    scale = float(x0.std())
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).double()
    with Subnormals() as counter, torch.no_grad():
        for sigma in (scale * levels).tolist():
            for name in ("denoiser", "score", "log_density", "derivative"):
                method = getattr(model, name, None)
                own = getattr(type(model), name, None) is not Denoiser.derivative
                if method is not None and own and (name != "derivative" or law.dim < 4):
                    method(x0 + sigma * noise, Level(0.5, 1.0, sigma))
    assert not +counter.found


def test_metrics(any_metric):
    """Half of the samples are moved away, up to 10 000 widths."""
    with Subnormals() as counter, torch.no_grad():
        if isinstance(any_metric, OutputLawMetric):
            metric_contract.exact(any_metric)
        else:
            x, distance = (
                metric_contract._samples(any_metric),
                metric_contract._distance(any_metric),
            )
            for far in (0, 1, 10, 37, 38, 38.4, 100, 1e4):
                moved = x.clone()
                moved[::2] += far * torch.linspace(0.5, 1, len(moved[::2])).double()[:, None]
                distance(moved)
    assert not +counter.found


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [DDIM(1.0), SDEDPMpp2M()], ids=repr)
def test_laws_on_a_line(sampler):
    law = GaussianMixture((0.4, 0.6), ((-3.0,), (4.0,)), (((0.1,),), ((0.3,),)))
    model, levels = law.oracle(EDM(10.0)), karras(EDM(10.0), 4, noise_min=0.02, rho=5.0)
    start, first = Exact(), levels.rows[0]
    with Subnormals() as counter:
        begin = StartLaw(
            lambda x: start.log_density(x, first, model.log_density),
            start.draw(law, 64, first, (0, 0, 0)),
        )
        nodes, _ = law_of_output(sampler, model, levels, begin)
        for metric in (KLLaw(), TVLaw(), WOutput1D()):
            metric.of_output(nodes, law)
    assert not +counter.found
