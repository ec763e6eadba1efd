"""The same cells on every device torch sees: same noise, values equal up to rounding."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import sweep_of
from samplerbench.bench.sweep import Sweep
from samplerbench.core.models import Learned
from samplerbench.core.schedules import EDM
from samplerbench.core.targets import EDMTarget
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.metrics.max_sliced import MaxSliced
from samplerbench.metrics.max_sliced_certified import MaxSlicedCertified
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.heun import Heun

NO_GPU = pytest.param("cuda", marks=pytest.mark.skip(reason="needs a GPU"))
DEVICES = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or [NO_GPU]


def sweep_on(device: str) -> Sweep:
    data, schedule = grid_mixture(), EDM(10.0)
    learned = Learned(ResidualMLP(2, 0), EDMTarget(), schedule, torch.zeros(2), 8.0)
    return sweep_of(
        data,
        [("ddim", DDIM(0.5)), ("heun", Heun())],
        [9],
        denoisers={
            "learned": learned.requires_grad_(False).to(device),
            "oracle": data.oracle(schedule).to(device),
        },
        metrics={"certified": MaxSlicedCertified(), "random": MaxSliced(directions=200)},
        reference=data.draws(2000, "evaluation", 0),
        n_samples=500,
        repetitions=1,
        floor_repetitions=2,
        block=250,
        device=torch.device(device),
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_device_gives_the_cpu_s_values(device, dtype):
    there, here = (replace(sweep_on(name), dtype=dtype).run() for name in (device, "cpu"))
    assert [row.status for row in there] == ["ok"] * len(there)
    assert {row.device for row in there} == {torch.device(device).type}
    values = [np.array([row.value for row in rows]) for rows in (there, here)]
    np.testing.assert_allclose(*values, rtol=2e-3 if dtype is torch.float32 else 2e-4)
