"""What every sampler promises, on every schedule, from t = 1 (no signal left, on some) to data.

One that says that it needs signal, or stays at one level, is taken at its word. The promises are
those of `evaluation.contract`, which users' samplers are held to as well.
"""

from __future__ import annotations

import pytest
import torch

from samplerbench.evaluation.contract import PROMISES, Ground

CASES = [*((name, "cpu") for name in PROMISES)]
CASES += [("type", "cuda")] if torch.cuda.is_available() else []


@pytest.mark.parametrize(("promise", "device"), CASES)
def test_promise(sampler, schedule, simple_mixture, promise, device):
    ground = Ground(simple_mixture, schedule, torch.device(device))
    assert PROMISES[promise](sampler, ground) is None
