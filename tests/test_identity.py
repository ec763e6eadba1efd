"""Identities: stable, and different for different things."""

import functools
import importlib
import re
import sys
from dataclasses import dataclass
from datetime import date
from enum import Enum
from importlib.util import cache_from_source
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import samplerbench
import samplerbench.identity as identity_module
from samplerbench.core.grids import custom, karras
from samplerbench.core.schedules import EDM, GeometricVE, GeometricVEKernel
from samplerbench.identity import (
    OURS,
    PRESENTATION,
    VERSIONS,
    _installed_version,
    _sources,
    content,
    describe,
    identity,
    package_code,
    settings_text,
)
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
    texts = {Euler(): "", DDIM(0.5): '{"eta": 0.5}', UniPC(2): '{"bh1": false, "points": 2}'}
    for sampler, text in texts.items():
        assert settings_text(sampler) == text


def test_equal_numbers_are_described_alike():
    """1 and 1.0 are equal if the annotation is float; a number of steps stays an integer."""
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
    models[1]._factor = 3.0  # private attributes count too
    assert identity(models[0]) != identity(models[1])


def test_the_code_of_torch_is_not_read(tmp_path, monkeypatch):
    """Wherever it lies: its version is known, and reading its source would take a minute."""
    (tmp_path / "of_torch.py").write_text("import torch\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("samplerbench.identity.INSTALLED", ())
    layer = describe(nn.Linear(2, 2), code=True)
    assert layer["class"] == "torch.nn.modules.linear.Linear"
    assert "source" not in layer
    assert list(_sources("of_torch")) == ["of_torch"]


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
    for sampler in (one, same, other):
        type(sampler).__module__ = "__main__"  # as a notebook has it
    assert identity(one) == identity(same) != identity(other)
    assert identity(grid) == identity(same_grid) != identity(other_grid)


SAMPLER = """
from lab import first
from samplerbench.samplers.ddim import DDIM
from .parts import FACTOR
class Mine(DDIM):
    factor = FACTOR
"""


FILES = {
    "lab/__init__.py": "from . import first\n",
    "lab/first.py": "ONE = 1\n",
    "lab/sampler.py": SAMPLER,
    "lab/parts.py": "import local\nFACTOR = 1 + local.NUMBER\n",
    "lab/unused.py": "x = 1\n",
    "local.py": "NUMBER = 2\n",
}


def identity_in(folder, files, meanwhile=lambda: None):
    """The identity of the sampler of somebody's package in a folder."""
    (folder / "lab").mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        mine = importlib.import_module("lab.sampler").Mine()
        meanwhile()
        return identity(mine)
    finally:
        sys.path.remove(str(folder))
        for name in ("lab", "lab.first", "lab.sampler", "lab.parts", "local"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("file", "before", "after", "decides"),
    [
        ("lab/sampler.py", "class Mine", "# a comment\nclass Mine", False),
        ("lab/sampler.py", "    factor", '    """Its words."""\n    factor', False),
        ("lab/unused.py", "x = 1", "x = 2", False),
        ("lab/sampler.py", "factor = FACTOR", "factor = -FACTOR", True),
        ("lab/parts.py", "1 +", "2 +", True),
        ("lab/first.py", "1", "2", True),
        ("local.py", "2", "3", True),  # what is not installed has no version
    ],
)
def test_the_code_that_decides_is_in_it(tmp_path, file, before, after, decides):
    assert before in FILES[file]
    changed = FILES | {file: FILES[file].replace(before, after)}
    first, second = identity_in(tmp_path / "a", FILES), identity_in(tmp_path / "b", changed)
    assert (first != second) is decides


def test_the_code_of_a_package_is_all_of_it_without_comments(tmp_path, monkeypatch):
    def code(text="x = 1", excluded=(), folder=tmp_path):
        monkeypatch.syspath_prepend(str(folder))
        (folder / "a_package" / "deep").mkdir(parents=True, exist_ok=True)
        (folder / "a_package" / "__init__.py").touch()
        for name in ("a_package/deep/part.py", "a_module.py"):
            (folder / name).write_text(text)
        importlib.invalidate_caches()
        return [package_code(name, excluded) for name in ("a_package", "a_module")]

    before = code()
    assert code('"""A docstring."""\n# a comment\nx = 1') == before
    assert not set(code("x = 2")) & set(before)
    assert code(excluded=("deep/",))[0] != before[0]
    assert code(folder=tmp_path / "elsewhere") == before
    assert package_code("no_such_package") == ""
    for found in (identity(1), content(torch.zeros(2)), *before):
        assert re.fullmatch("[0-9a-f]{16}", found)


def test_our_own_code_is_remembered_for_the_same_files(monkeypatch, tmp_path):
    parsed = []
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path))
    monkeypatch.setattr(identity_module, "_source", lambda path: parsed.append(path) or path.name)
    code = package_code(OURS, PRESENTATION)
    (kept,) = Path(cache_from_source(identity_module.__file__)).parent.iterdir()
    count = len(parsed)
    assert package_code(OURS, PRESENTATION) == code
    assert len(parsed) == count > 100
    for stale in ("other files", f"{'0' * 16} {'1' * 16}", ""):
        kept.write_text(stale)
        assert package_code(OURS, PRESENTATION) == code
        assert kept.read_text().split()[1] == code
    assert len(parsed) == 4 * count
    assert package_code(OURS) != code
    assert package_code(OURS, PRESENTATION) == code
    assert len(parsed) < 6 * count


def test_what_shows_results_is_no_part_of_the_code():
    """A change of a text on the console must not train a network again."""
    assert f"{samplerbench.__version__} {package_code(OURS, PRESENTATION)}" == VERSIONS[OURS]
    root = Path(samplerbench.__file__).parent
    for name in PRESENTATION:
        assert (root / name).exists(), name
    for name in ("bench/sweep.py", "bench/budget/run.py", "samplers/heun.py", "training/loop.py"):
        assert (root / name).exists()
        assert not name.startswith(PRESENTATION)


class Kind(Enum):
    SLOW = 1
    FAST = 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Kind.SLOW, Kind.FAST),
        (np.arange(3), np.arange(3) + 1),
        (1 + 2j, 1 + 3j),
        (date(2026, 1, 1), date(2026, 1, 2)),
        ({1, 2}, {1, 3}),
    ],
)
def test_what_a_setting_may_be(one, other):
    assert identity(one) == identity(one)
    assert identity(one) != identity(other)


def test_a_default_that_is_given_is_the_same():
    given, left = (functools.partial(karras, noise_min=0.02, **more) for more in ({"rho": 7.0}, {}))
    assert identity(given) == identity(left)


FACTOR = {"x": np.ones(2)}


def helper(x, *, power=1):
    return x**power


class Lookup(DDIM):
    """Looks things up in all the ways that code does."""

    table = staticmethod(lambda: FACTOR["x"])
    steps_of: ClassVar = {"f": helper}


@pytest.mark.parametrize("change", ["global", "helper", "method", "attribute", "closure"])
def test_what_code_looks_up_is_in_its_identity(monkeypatch, change):
    """Its current value counts: in a notebook it can change without a new class."""
    offset = 1.0

    class Inside(Lookup):
        def steps(self, model, x, levels, noise):
            return super().steps(model, x * offset, levels, noise)

    thing = Inside()
    before = identity(thing)
    assert identity(thing) == before
    match change:
        case "global":
            monkeypatch.setitem(FACTOR, "x", np.full(2, 2.0))
        case "helper":
            monkeypatch.setattr(helper, "__kwdefaults__", {"power": 2})
        case "method":
            monkeypatch.setattr(Lookup, "steps", lambda self, *_: iter(()), raising=False)
        case "attribute":
            object.__setattr__(thing, "secret", 3)
        case "closure":
            offset = 2.0
    assert identity(thing) != before


def test_methods_are_known_by_their_object():
    class Own:
        def __init__(self, rho):
            self.rho = rho

    @dataclass(frozen=True)
    class Grids:
        rho: float

        def grid(self, schedule, steps):
            return karras(schedule, steps, noise_min=0.02, rho=self.rho)

    assert identity(Grids(3.0).grid) == identity(Grids(3.0).grid) != identity(Grids(4.0).grid)
    with pytest.raises(TypeError, match="cannot describe a Own"):
        identity(Own(3.0))


def test_hooks_and_modes_of_a_model_decide():
    model = nn.Linear(2, 2)
    before = identity(model)
    assert identity(model.eval()) != before
    model.train().register_forward_hook(lambda *_: None)
    assert identity(model) != before


def test_a_tensor_is_read_whatever_its_strides():
    one = torch.ones(1, 4)[:, ::2]
    assert identity(one) == identity(one.clone())
    assert identity(torch.ones(3, 1).T) == identity(torch.ones(1, 3))
    assert identity(torch.ones(2, dtype=torch.bfloat16)) != identity(torch.ones(2))


def test_a_file_that_was_edited_after_its_import_is_not_what_runs(tmp_path):
    """Its code is neither the imported nor the current one, so its values are never recalled."""
    other = FILES | {"lab/parts.py": "import local\nFACTOR = 7\n"}
    old, new = identity_in(tmp_path / "a", FILES), identity_in(tmp_path / "b", other)
    folder = tmp_path / "c"
    stale = identity_in(
        folder, FILES, lambda: (folder / "lab/parts.py").write_text(other["lab/parts.py"])
    )
    assert len({old, new, stale}) == 3


def test_the_version_of_an_installed_package_is_part_of_its_identity(monkeypatch):
    """Such as of a user's package that is installed and not edited in place."""
    member = functools.partial(yaml.safe_load, "1")
    _installed_version.cache_clear()
    before = identity(member)
    monkeypatch.setattr("samplerbench.identity.version", lambda name: "another")
    assert identity(member) == before
    _installed_version.cache_clear()
    assert identity(member) != before
    _installed_version.cache_clear()
