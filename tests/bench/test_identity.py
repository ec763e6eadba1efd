"""Identities: stable, and different for different things."""

import functools
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import samplerbench
from samplerbench.bench.identity import PRESENTATION, describe, identity
from samplerbench.core.grids import custom, karras
from samplerbench.core.schedules import EDM, GeometricVE, GeometricVEKernel
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.euler import Euler
from samplerbench.samplers.unipc import UniPC


def test_equal_things_have_equal_identities():
    assert identity({"a": 1, "b": DDIM(0.5)}) == identity({"b": DDIM(0.5), "a": 1})
    assert identity(functools.partial(karras, rho=5.0, noise_min=0.1)) == identity(
        functools.partial(karras, noise_min=0.1, rho=5.0)
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (DDIM(0.5), DDIM(0.50001)),
        (DDIM(0.0), Euler()),
        (GeometricVE(), GeometricVEKernel()),
        (functools.partial(karras, rho=5.0), functools.partial(karras, rho=7.0)),
        ({"a": [1, 23]}, {"a": [12, 3]}),
        (1, 1.5),
    ],
)
def test_different_things_have_different_identities(one, other):
    assert identity(one) != identity(other)


def test_what_cannot_be_described_is_refused():
    with pytest.raises(TypeError, match="Generator"):
        identity({"draws": torch.Generator()})


def test_the_description_can_be_read():
    assert describe(DDIM(0.5)) == {"class": "samplerbench.samplers.ddim.DDIM", "eta": 0.5}


def test_equal_numbers_are_described_alike():
    """Where a float is meant; a number of steps is a whole number."""
    assert identity(DDIM(1)) == identity(DDIM(1.0)) == identity(DDIM(np.float32(1)))
    ints, floats = (functools.partial(custom, ratios=ratios) for ratios in ([8, 1], (8.0, 1.0)))
    assert identity(ints) == identity(floats)
    assert describe(EDM(10)) == describe(EDM(10.0))
    assert describe(UniPC(2))["points"] == 2
    assert describe(UniPC(np.int64(2))) == describe(UniPC(2))


def test_tensors_and_models_are_described_by_their_content():
    one, other = torch.zeros(3), torch.tensor([0.0, 0.0, 1e-30])
    assert identity(one) == identity(one.clone())
    assert len({identity(t) for t in (one, other, one.double(), one[None])}) == 4
    models = [nn.Linear(2, 2) for _ in range(2)]
    assert identity(models[0]) != identity(models[1])
    models[1].load_state_dict(models[0].state_dict())
    assert identity(models[0]) == identity(models[1])
    models[1]._factor = 3.0  # also what is meant to be private decides
    assert identity(models[0]) != identity(models[1])


def made(eta):
    """A sampler, a grid and a model as a notebook has them, by one function again and again."""

    @dataclass(frozen=True)
    class Mine(DDIM):
        def steps(self, model, x, levels, noise):
            return super().steps(model, x * eta, levels, noise)

    return Mine(), lambda schedule, steps: karras(schedule, steps, noise_min=eta)


def test_what_has_one_name_and_other_code_is_another_thing():
    (one, grid), (same, same_grid), (other, other_grid) = made(0.1), made(0.1), made(0.2)
    assert identity(one) == identity(same) != identity(other)
    assert identity(grid) == identity(same_grid) != identity(other_grid)


SAMPLER = """
from lab.parts import FACTOR
from samplerbench.samplers.ddim import DDIM
class Mine(DDIM):
    factor = FACTOR
"""


FILES = {
    "lab/__init__.py": "",
    "lab/sampler.py": SAMPLER,
    "lab/parts.py": "import local\nFACTOR = 1 + local.NUMBER\n",
    "lab/unused.py": "x = 1\n",
    "local.py": "NUMBER = 2\n",
}


def identity_in(folder, files):
    """The identity of the sampler of somebody's package in a folder."""
    (folder / "lab").mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        return identity(importlib.import_module("lab.sampler").Mine())
    finally:
        sys.path.remove(str(folder))
        for name in ("lab", "lab.sampler", "lab.parts", "local"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("file", "before", "after", "decides"),
    [
        ("lab/sampler.py", "class Mine", "# a comment\nclass Mine", False),
        ("lab/sampler.py", "    factor", '    """Its words."""\n    factor', False),
        ("lab/unused.py", "x = 1", "x = 2", False),
        ("lab/sampler.py", "factor = FACTOR", "factor = -FACTOR", True),
        ("lab/parts.py", "1 +", "2 +", True),
        ("local.py", "2", "3", True),  # what is not installed has no version
    ],
)
def test_the_code_that_decides_is_in_it(tmp_path, file, before, after, decides):
    assert before in FILES[file]
    changed = FILES | {file: FILES[file].replace(before, after)}
    first, second = identity_in(tmp_path / "a", FILES), identity_in(tmp_path / "b", changed)
    assert (first != second) is decides


def test_what_shows_results_is_no_part_of_the_code(tmp_path):
    """Of this package: a console text does not train a network again."""
    root = Path(samplerbench.__file__).parent
    for name in PRESENTATION:
        assert (root / name).exists(), name
    for name in ("bench/sweep.py", "bench/budget/run.py", "samplers/heun.py", "training/loop.py"):
        assert (root / name).exists()
        assert not name.startswith(PRESENTATION)
