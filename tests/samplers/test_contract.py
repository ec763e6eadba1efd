"""What every sampler promises, on every schedule, from t = 1 (no signal left, on some) to data.

One that says that it needs signal, or stays at one level, is taken at its word. The promises are
those of `verify.contract`, which users' samplers are held to as well.
"""

from __future__ import annotations

import pytest
import torch

from samplerbench.core.grids import hold, karras
from samplerbench.core.noise import KeyedNoise
from samplerbench.samplers.base import final_state
from samplerbench.verify.contract import PROMISES, Ground

CASES = [*((name, "cpu") for name in PROMISES)]
CASES += [("type", "cuda")] if torch.cuda.is_available() else []


@pytest.mark.parametrize(("promise", "device"), CASES)
def test_promise(sampler, schedule, simple_mixture, promise, device):
    ground = Ground(simple_mixture, schedule, torch.device(device))
    assert PROMISES[promise](sampler, ground) is None


def test_no_more_noise_is_asked_for_than_said(
    sampler, schedule, simple_mixture, states, monkeypatch
):
    """What a model was not trained for is known before it is trained, stages off the grid too."""
    top = min(float(schedule.noise_to_signal(torch.ones(()).double())), 8.0) / 2
    levels = karras(schedule, 5, noise_max=top, noise_min=top / 9)
    levels = hold(schedule, 5, noise=0.5) if sampler.holds else levels
    oracle, asked = simple_mixture.oracle(schedule), []
    for name in ("denoiser", "score"):
        method = getattr(oracle, name)

        def recorded(x, level, method=method):
            asked.append(float(torch.as_tensor(level.sigma / level.alpha).max()))
            return method(x, level)

        monkeypatch.setattr(oracle, name, recorded)
    first = levels.rows[0]
    x = first.alpha * states(4, 2) + first.sigma * states(4, 2)
    final_state(sampler, oracle, x, levels, KeyedNoise(("levels",)))
    assert max(asked) == pytest.approx(sampler.most_noise(schedule, levels), rel=1e-6)
