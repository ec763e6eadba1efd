"""Identities: stable, and different for different things."""

import functools
import importlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import samplerbench
from samplerbench.evaluation.identity import (
    PRESENTATION,
    content,
    describe,
    identity,
    package_code,
)
from samplerbench.grids import custom, karras
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.euler import Euler
from samplerbench.samplers.unipc import UniPC
from samplerbench.schedules import EDM, GeometricVE, GeometricVEKernel


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


def test_the_code_of_torch_is_not_read():
    """Its version says what it is; the 1 459 modules behind a layer took a minute to read."""
    layer = describe(nn.Linear(2, 2), code=True)
    assert layer["class"] == "torch.nn.modules.linear.Linear"
    assert "code" not in layer


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


FILES = {
    "local.py": "NUMBER = 2\n",
    "lab/__init__.py": "from . import first\n",
    "lab/first.py": "ONE = 1\n",
    "lab/parts.py": "import local\n\ndef factor():\n    return 1 + local.NUMBER\n",
    "lab/unused.py": "x = 1\n",
    "lab/sampler.py": """
from dataclasses import dataclass
from samplerbench.samplers.ddim import DDIM
from lab import first
from . import parts
@dataclass(frozen=True)
class Mine(DDIM):
    def steps(self, model, x, levels, noise):
        return super().steps(model, parts.factor() * x, levels, noise)
""",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of somebody's; with a file changed, its sampler as a new process has it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file is changed within a second

    def forget():
        for name in [name for name in sys.modules if name.partition(".")[0] in ("lab", "local")]:
            del sys.modules[name]

    def with_change(file="lab/unused.py", before="", after=""):
        forget()
        for name, text in FILES.items():
            assert name != file or before in text
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text.replace(before, after) if name == file else text)
        importlib.invalidate_caches()
        return importlib.import_module("lab.sampler").Mine()

    yield with_change
    forget()


@pytest.mark.parametrize(
    ("file", "before", "after", "decides"),
    [
        ("lab/sampler.py", "class Mine", "# a comment\nclass Mine", False),
        ("lab/sampler.py", "    def", '    """Its words."""\n    def', False),
        ("lab/unused.py", "x = 1", "x = 2", False),
        ("lab/sampler.py", "* x", "/ x", True),
        ("lab/parts.py", "1 +", "2 +", True),
        ("lab/first.py", "1", "2", True),
        ("local.py", "2", "3", True),  # what is not installed has no version
    ],
)
def test_the_code_that_decides_is_in_it(package, file, before, after, decides):
    assert identity(package()) == identity(package())
    assert (identity(package(file, before, after)) != identity(package())) is decides


def test_the_code_of_a_package_is_all_of_it_without_comments(package):
    package()
    before = package_code("lab")
    assert package_code("lab", excluded=("unused.py",)) != before
    package("lab/parts.py", "def", "# a comment\ndef")
    assert package_code("lab") == before
    package("lab/unused.py", "x = 1", "x = 2")
    assert package_code("lab") != before
    assert package_code("local") not in ("", before)
    assert package_code("no_such_package") == ""


def test_identities_have_sixteen_digits(package):
    package()
    for found in (identity(1), content(torch.zeros(2)), package_code("lab")):
        assert re.fullmatch("[0-9a-f]{16}", found)


def test_what_shows_results_is_no_part_of_the_code(tmp_path):
    """Of this package: a console text does not train a network again."""
    root = Path(samplerbench.__file__).parent
    for name in PRESENTATION:
        assert (root / name).exists(), name
    for name in ("evaluation/sweep.py", "evaluation/budget.py", "samplers/heun.py", "training.py"):
        assert (root / name).exists()
        assert not name.startswith(PRESENTATION)
