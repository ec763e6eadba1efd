"""The books: every field of a sweep, cell or reference is in an identity, or affects no value.

A field that is added to one of these classes and is in neither of the two lists fails here.
"""

import functools
import inspect
import json
import math
import pkgutil
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from importlib import import_module
from typing import Any

import pytest
import torch

import samplerbench
from helpers import each, sweep_of
from samplerbench.bench.books import Books
from samplerbench.bench.cell import Against, Cell, Labels, Origin, Row
from samplerbench.bench.own_grids import OwnGrid
from samplerbench.bench.sweep import Sweep
from samplerbench.core.cuda_graphs import Graphed
from samplerbench.core.grids import custom, karras
from samplerbench.core.models import IsotropicMixtureOracle
from samplerbench.core.schedules import EDM, NoiseSchedule
from samplerbench.core.starts import FixedGaussian, Start
from samplerbench.datasets.base import Dataset
from samplerbench.datasets.gaussian import gaussian
from samplerbench.identity import identity
from samplerbench.metrics.base import LawMetric, Metric
from samplerbench.metrics.max_sliced_certified import MaxSlicedCertified
from samplerbench.objectives.base import Recipe
from samplerbench.samplers.base import Sampler
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.ula import ULA

LAW = gaussian([1.0, -0.5], [[4.0, 1.0], [1.0, 1.0]])
OTHER = gaussian([1.0, -0.5], [[4.0, 0.0], [0.0, 1.0]])
PATH = EDM(10.0)


@pytest.fixture
def sweep() -> Sweep:
    return sweep_of(
        LAW,
        [("ddim", DDIM(0.0)), ("ddim", DDIM(1.0))],
        [3, 5],
        schedule=PATH,
        metrics={"certified": MaxSlicedCertified()},
        repetitions=2,
        floor_repetitions=3,
        origins={"oracle": Origin("oracle")},
    )


def rows(sweep: Sweep) -> list[Row]:
    """The rows of all cells that are not the floor's, without values."""
    ((name, metric),) = sweep.metrics.items()
    to = sweep.distances()[name].to
    return [sweep.books.row(cell, name, metric, to) for cell in sweep.cells() if cell.settings]


def ids(sweep: Sweep) -> set[str]:
    return {row.cell_id for row in rows(sweep)}


DECIDES: dict[str, Any] = {
    "dataset": OTHER,
    "schedule": EDM(11.0),
    "grid": functools.partial(karras, noise_min=0.03, rho=5.0),
    "denoisers": {"oracle": LAW.oracle(EDM(10.0))},  # with another origin, see below
    "starts": {"prior": FixedGaussian(), "exact": FixedGaussian(1.0)},
    "samplers": [("ddim", DDIM(0.5)), ("ddim", Heun())],
    "steps": [4, 6],
    "nfe": [4, 6],
    "final": "none",
    "metrics": {"certified": MaxSlicedCertified(relative_tolerance=1e-3)},
    "reference": LAW.draws(500, "evaluation", 1),
    "n_samples": 151,
    "seed": 1,
    "metric_seed": 1,
    "origins": {"oracle": Origin("learned", "0123")},
    "block": 50,
    "dtype": torch.float32,
    "device": torch.device("meta"),
    "truth": OTHER,
    "versions": {"torch": "another"},
    "own_grids": [
        OwnGrid(DDIM(eta), steps, functools.partial(custom, ratios=[*range(steps, 0, -1)]), "mine")
        for eta in (0.0, 1.0)
        for steps in (3, 5)
    ],
}
DECIDES_NOTHING = {
    "repetitions": "another number of repetitions has more cells, and the same ones among them",
    "floor_repetitions": "the same, of the floor",
    "data_seed": "what is drawn with it is the reference, the training or a law's points, and each "
    "of them is known by its content",
    "train_seed": "a training is known by its origin",
    "workers": "who works on a cell does not change it",
    "labels": "names",
    "recall": "where values are looked up",
}


@each("field", [field.name for field in fields(Sweep)])
def test_every_field_of_a_sweep_is_in_its_identities_or_decides_nothing(sweep, field):
    assert (field in DECIDES) != (field in DECIDES_NOTHING), f"say what {field} decides"
    if field in DECIDES:
        changed = {field: DECIDES[field]}
        if field == "denoisers":  # a model without an origin is known by its content
            changed["origins"] = {}
        assert ids(sweep).isdisjoint(ids(replace(sweep, **changed)))
    else:
        other = {"labels": Labels(*["x"] * len(fields(Labels))), "recall": lambda _: None}
        changed = {field: other.get(field, 3)}
        assert ids(sweep) <= ids(replace(sweep, **changed))


def one_row(sweep: Sweep, cell: Cell, to: Against) -> Row:
    return sweep.books.row(cell, "certified", MaxSlicedCertified(), to)


CELL = Cell("oracle", "prior", "ddim", DDIM(0.5), 4, 0)
CELLS = {
    "denoiser": "other",
    "start": "exact",
    "settings": DDIM(0.25),
    "steps": 5,
    "repetition": 1,
    "coupled": True,
    "final": "none",
}


@each("field", [field.name for field in fields(Cell)])
def test_every_field_of_a_cell_is_in_its_identities(sweep, field):
    other = LAW.oracle(PATH)
    sweep = replace(
        sweep,
        denoisers={**sweep.denoisers, "other": other},
        origins={**sweep.origins, "other": Origin("empirical", "a", "b")},
    )
    before = one_row(sweep, CELL, Against("law"))
    if field == "sampler":  # a name
        assert one_row(sweep, replace(CELL, sampler="x"), Against("law")).cell_id == before.cell_id
        return
    changed = one_row(sweep, replace(CELL, **{field: CELLS[field]}), Against("law"))
    assert changed.samples_id != before.samples_id
    assert changed.cell_id != before.cell_id
    of_one_curve = field in ("steps", "repetition")
    assert (changed.setting_id == before.setting_id) is of_one_curve
    assert changed.measure_id == before.measure_id


REFERENCE = Against("data", 500, "a", "b")


@pytest.mark.parametrize("field", [field.name for field in fields(Against)])
def test_every_field_of_a_reference_is_in_its_identities(sweep, field):
    before = one_row(sweep, CELL, REFERENCE)
    other = replace(REFERENCE, **{field: {"count": 400}.get(field, "other")})
    after = one_row(sweep, CELL, other)
    assert after.samples_id == before.samples_id
    # what other samples share over repetitions is in their content, too
    assert (after.cell_id != before.cell_id) is (field != "setting")
    # the points of another seed are another reference of the same kind
    assert (after.setting_id != before.setting_id) is (field != "content")
    assert (after.measure_id != before.measure_id) is (field == "name")


@pytest.mark.parametrize("field", [field.name for field in fields(Origin)])
def test_every_field_of_an_origin_is_in_its_identities(sweep, field):
    origin = Origin("learned", "a", "b")
    before, after = (
        rows(replace(sweep, origins={"oracle": of}))[0]
        for of in (origin, replace(origin, **{field: "other"}))
    )
    assert after.samples_id != before.samples_id
    # trainings that differ in their seeds only are one setting
    assert (after.setting_id != before.setting_id) is (field != "id")


def test_every_field_of_the_books_is_used(sweep):
    """A sweep makes them in one place, which the test of its fields cannot check."""
    plain = {field.name: getattr(sweep.books, field.name) for field in fields(Books)}
    before = sweep.books.row(CELL, "certified", MaxSlicedCertified(), REFERENCE)
    changes = {
        "starts": {"prior": "x", "exact": "y"},
        "origins": {"oracle": Origin("own", "x", "x")},
        "n_samples": 3,
        "block": 3,
        "threads": 7,
        "arithmetic": "other",
        "versions": {},
        "seeds": {**sweep.books.seeds, "seed": 5},
        "own_grids": [OwnGrid(DDIM(0.5), 4, sweep.grid, "mine")],
        "labels": Labels(run="x"),
    }
    for name in plain:
        other = Books(**{**plain, name: changes.get(name, "other")})
        after = other.row(CELL, "certified", MaxSlicedCertified(), REFERENCE)
        same = after.cell_id == before.cell_id
        assert same is (name in ("labels", "held", "schedule", "path_setting")), name
        if name == "path_setting":
            assert after.setting_id != before.setting_id
    chain = replace(CELL, settings=ULA())  # which stays at a level
    one, two = (
        Books(**{**plain, "held": (path, "hold")}).row(
            chain, "certified", MaxSlicedCertified(), REFERENCE
        )
        for path in ("one", "two")
    )
    assert one.cell_id != two.cell_id
    assert one.grid == "hold"


def test_a_sampler_with_levels_of_its_own_does_not_depend_on_the_grid(sweep):
    class Own(ULA):
        brings_levels = True

    plain = {field.name: getattr(sweep.books, field.name) for field in fields(Books)}
    own, settings = replace(CELL, settings=Own()), MaxSlicedCertified()
    rows = [
        Books(**{**plain, **change}).row(own, "certified", settings, REFERENCE)
        for change in ({}, {"path": "other", "path_setting": "other"}, {"schedule": "other"})
    ]
    assert rows[0].cell_id == rows[1].cell_id != rows[2].cell_id
    assert rows[0].grid == "own"


def test_seeds_decide_rows_and_not_settings(sweep):
    before, after = rows(sweep)[0], rows(replace(sweep, seed=1, data_seed=2, metric_seed=3))[0]
    assert before.setting_id == after.setting_id
    assert before.measure_id == after.measure_id
    assert (after.seed, after.data_seed, after.metric_seed) == (1, 2, 3)


LABELS = Labels(**{field.name: field.name for field in fields(Labels)})
#: The columns of a row about a denoiser: training_id, network, objective and target.
NAMES = {
    "learned": ("an id", "network", "objective", "target"),
    "pretrained": ("an id", "model", "", ""),
    "empirical": ("", "", "", ""),
    "own": ("", "", "", ""),
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_row_names_what_its_denoiser_has(sweep, kind):
    sweep = replace(sweep, labels=LABELS, origins={"oracle": Origin(kind, "an id", "a recipe")})
    row = one_row(sweep, CELL, REFERENCE)
    assert (row.training_id, row.network, row.objective, row.target) == NAMES[kind]
    assert (row.run, row.experiment, row.dataset) == ("run", "experiment", "dataset")
    assert (row.schedule, row.grid, row.eta) == ("schedule", "grid", 0.5)
    assert (row.nfe, row.seconds, row.status, row.message, row.info) == (0, 0.0, "", "", "")
    assert list(json.loads(row.metric_settings)) == ["class", "evaluations", "relative_tolerance"]
    assert math.isnan(one_row(sweep, replace(CELL, settings=Heun()), REFERENCE).eta)


FLOOR = Cell("law", "", "", None, 0, 0)


def test_a_floor_has_no_sampler_and_no_path(sweep):
    row = one_row(replace(sweep, labels=LABELS), FLOOR, REFERENCE)
    empty = (row.schedule, row.grid, row.network, row.objective, row.target, row.training_id)
    assert empty == ("",) * 6
    assert (row.dataset, row.sampler_settings) == ("dataset", "")
    assert math.isnan(row.eta)


def test_even_draws_of_the_law_are_not_random_ones(sweep):
    random, even, other = (sweep.books.samples_id(replace(FLOOR, start=s)) for s in ("", "a", "b"))
    assert random != even == other


def a_metric(factor: float) -> MaxSlicedCertified:
    """A metric of one name and other code, as a notebook has it."""

    class Mine(MaxSlicedCertified):
        def against(self, reference, *, seed):
            return super().against(factor * reference, seed=seed)

    return Mine()


def test_the_code_of_a_user_s_metric_is_in_its_identities(sweep):
    one, same, other = (
        sweep.books.row(CELL, "mine", a_metric(factor), REFERENCE) for factor in (1.0, 1.0, 2.0)
    )
    assert (one.cell_id, one.measure_id) == (same.cell_id, same.measure_id)
    assert one.cell_id != other.cell_id
    assert one.setting_id != other.setting_id
    assert one.measure_id != other.measure_id


def test_a_graphed_model_is_another_one(sweep):
    graphed = {"oracle": Graphed(sweep.denoisers["oracle"])}
    assert ids(sweep).isdisjoint(ids(replace(sweep, denoisers=graphed)))


def of_a_user(x: float) -> IsotropicMixtureOracle:
    return IsotropicMixtureOracle(PATH, torch.ones(1), torch.full((1, 2), x), torch.ones(1))


def secretive(_: float) -> IsotropicMixtureOracle:
    """Holds something whose value cannot be read off."""
    made = of_a_user(1.0)
    made.draws = torch.Generator()
    return made


@pytest.mark.parametrize("make", [of_a_user, secretive])
def test_models_are_known_by_their_content_and_never_taken_for_each_other(sweep, make):
    one, other = make(1.0), make(2.0)
    mine, again, yours = (
        ids(replace(sweep, denoisers={"mine": model}, origins={})) for model in (one, one, other)
    )
    assert mine == again
    assert mine.isdisjoint(yours)


def members() -> list[type]:
    """All dataclasses of this package that a config can name."""
    kinds = (Sampler, Dataset, NoiseSchedule, Start, Metric, LawMetric, Recipe)
    found = []
    for module in pkgutil.walk_packages(samplerbench.__path__, "samplerbench."):
        if ".app" in module.name or module.name.endswith("__main__"):
            continue
        for member in vars(import_module(module.name)).values():
            ours = inspect.isclass(member) and member.__module__ == module.name
            if not (ours and issubclass(member, kinds)) or inspect.isabstract(member):
                continue
            if is_dataclass(member):
                found.append(member)
    return found


def changed(field: Field[Any], value: object) -> object:
    """Another value for a field."""
    match value:
        case bool():
            return not value
        case int() | float():
            return 0.5 if value == math.inf else value + 0.5
        case str():
            return value + "x"
        case None:
            return 0.5
        case _:
            return ("another", field.name)


@each("kind", members())
def test_every_setting_of_every_member_is_in_its_identity(kind):
    """The test changes each field; the values need not make sense."""
    one = object.__new__(kind)
    for field in fields(kind):
        default = 1.0 if field.default is MISSING else field.default
        object.__setattr__(one, field.name, default)
    for field in fields(kind):
        other = object.__new__(kind)
        vars(other).update(vars(one))
        object.__setattr__(other, field.name, changed(field, getattr(one, field.name)))
        assert identity(one) != identity(other), field.name
