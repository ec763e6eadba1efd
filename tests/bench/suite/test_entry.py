"""Entries of a suite: an honest one is accepted, and planted cheats of each kind are refused."""

import json
import math
import shutil
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from helpers import mostly_slow, sweep_of
from samplerbench.bench.cell import sampler_name
from samplerbench.bench.store import as_table
from samplerbench.bench.suite import entry as entries
from samplerbench.bench.suite.entry import (
    ABOUT,
    SuiteJob,
    about_samplers,
    opaque,
    read_entry,
    verify,
    write_entry,
)
from samplerbench.bench.sweep import Samples
from samplerbench.core.grids import Level, karras
from samplerbench.core.schedules import EDM
from samplerbench.core.starts import Exact
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.base import Distance, LawMetric, Measurement
from samplerbench.samplers.base import Step
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.euler import Euler
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.ipndm import IPNDM

#: What the metadata of an entry must say.
REQUIRED = ("suite", "command", "rows", "samplers")
LAW, PATH = grid_mixture(spacing=4.0), EDM(20.0)
MEANS = torch.tensor(LAW.means, dtype=torch.float64)


class _ToModes(Distance):
    def measure(self, samples):
        squares = torch.cdist(samples.double(), MEANS).amin(1).square()
        half = 1.96 * float(squares.std()) / math.sqrt(len(squares))
        return Measurement(float(squares.mean()), math.nan, math.nan, None, 0, {"half_width": half})


@dataclass(frozen=True)
class ToModes(LawMetric):
    """E min_k ‖x − μ_k‖², with an interval: a sampler that looks better than others has less."""

    is_wasserstein: ClassVar[bool] = False

    def why_incompatible(self, dataset):
        return None

    def prepare(self, dataset, seed):
        return _ToModes(dataset.dim)


def job(*samplers, steps=(4, 8), seed=7):
    """A small job with these samplers."""
    settings = {"schedule": PATH, "grid": partial(karras, noise_min=0.01), "seed": seed}
    settings |= {"starts": {"exact": Exact()}, "metrics": {"to_modes": ToModes()}}
    named = [("mine", sampler) for sampler in samplers]
    return SuiteJob(sweep_of(LAW, named, steps, n_samples=200, block=200, **settings), results)


def results(cells):
    """The rows of the results, from a table of cells."""
    half = [json.loads(info)["half_width"] if info else math.nan for info in cells["info"]]
    names = map(sampler_name, cells["sampler"], cells["sampler_settings"])
    return cells.assign(
        law=cells["dataset"],
        path="edm",
        quantity=cells["metric"],
        grid="common",
        chosen="karras",
        entrant=list(names),
        unit="share",
        package="lab",
        version="",
        order=2.0,
        noise=False,
        upper=cells["value"] + half,
        lower=cells["value"] - half,
        command="samplerbench experiment=suite/v1/grid_mixture",
    )


def written(folder, *samplers, change=lambda rows: rows, **settings):
    """The entry of some samplers."""
    one = job(*samplers, **settings)
    rows = change(results(as_table(map(vars, one.sweep.run()))))
    names = {sampler_name("mine", entries.settings_text(s)): s for s in samplers}
    about = {"suite": "v1", "command": "samplerbench suite", "samplers": about_samplers(names)}
    return write_entry(rows, folder / "mine.parquet", about)


def faults(folder, sampler, *, change=lambda rows: rows, seed=1, again=None, **settings):
    """The names of the checks of an entry that fail."""
    folder = written(folder, sampler, change=change, **settings)
    verdict = verify(folder, lambda *_: again or job(sampler, **settings), cells=2, seed=seed)
    bad = verdict.checks[verdict.checks["fault"] != ""]
    assert verdict.accepted == bad.empty
    return {*bad["check"]}


@pytest.mark.parametrize(
    "sampler",
    mostly_slow([Heun(), DDIM(0.0), DDIM(1.0), IPNDM()], 2),
    ids=lambda one: str(one)[:12],
)
def test_an_honest_entry_is_accepted(tmp_path, sampler):
    assert faults(tmp_path, sampler) == set()


@pytest.fixture(scope="module")
def of_heun(tmp_path_factory):
    """The entry of Heun's method."""
    return written(tmp_path_factory.mktemp("heun"), Heun())


@pytest.fixture
def heun(of_heun, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copy(of_heun, tmp_path / of_heun.name)


def test_the_verdict_in_words(tmp_path):
    folder = written(tmp_path, Heun())
    lines = []
    verdict = verify(folder, lambda *_: job(Heun()), cells=1, on_check=lines.append)
    assert verdict.sentence == "accepted for v1: 8 checks of 1 cells passed"
    assert lines[0].endswith("steps: passed")
    assert set(verdict.checks["check"]) == {
        *("table", "source", "value", "grid", "starts", "model", "count", "noise")
    }


@dataclass(frozen=True)
class Cheat(Euler):
    """Euler's method, of which the cheats change one thing."""


@dataclass(frozen=True)
class ReadsTheLaw(Cheat):
    """Moves to the nearest mean of the oracle, if it can be read; else it is honest."""

    def steps(self, model, x, levels, noise):
        means = getattr(getattr(model, "model", None), "means", None)
        for step in Euler.steps(self, model, x, levels, noise):
            if means is None:
                yield step
                continue
            centred = means + model.model.centre.T
            yield replace(step, x=centred[torch.cdist(step.x, centred).argmin(1)])


@dataclass(frozen=True)
class LooksAtTheStack(Cheat):
    """As `ReadsTheLaw`, by the data set of the sweep, found in the frames of its callers."""

    def steps(self, model, x, levels, noise):
        import sys

        frame, law = sys._getframe(), None
        while frame is not None and law is None:
            law = getattr(frame.f_locals.get("self"), "dataset", None)
            frame = frame.f_back
        for step in Euler.steps(self, model, x, levels, noise):
            if law is None:
                yield step
                continue
            means = torch.tensor(law.means, dtype=x.dtype)
            yield replace(step, x=means[torch.cdist(step.x, means).argmin(1)])


@dataclass(frozen=True)
class KnowsTheLaw(Cheat):
    """Has the means in its own code."""

    def steps(self, model, x, levels, noise):
        for step in Euler.steps(self, model, x, levels, noise):
            yield replace(step, x=MEANS[torch.cdist(step.x, MEANS).argmin(1)])


@dataclass(frozen=True)
class CallsPastTheCounter(Cheat):
    """Evaluates the inner model twice as often as it is counted."""

    def steps(self, model, x, levels, noise):
        inner = getattr(model, "model", model)
        for _, now, to in levels.pairs():
            extra = inner.denoiser(x, now)
            x0_hat = 0.5 * (model.denoiser(x, now) + extra)
            share = to.sigma / now.sigma
            x = x0_hat + share * (x - x0_hat)
            yield Step(x, x0_hat)


@dataclass(frozen=True)
class ResetsTheCounter(Cheat):
    """Evaluates twice per step, and corrects the counter."""

    def steps(self, model, x, levels, noise):
        for count, (step, (_, now, _)) in enumerate(
            zip(Euler.steps(self, model, x, levels, noise), levels.pairs(), strict=True), 1
        ):
            model.denoiser(x, now)
            model.evaluations = count
            yield step


@dataclass(frozen=True)
class DeclaresFewer(Cheat):
    """Evaluates twice per step and declares one."""

    def steps(self, model, x, levels, noise):
        for step, (_, now, _) in zip(
            Euler.steps(self, model, x, levels, noise), levels.pairs(), strict=True
        ):
            model.denoiser(x, now)
            yield step


@dataclass(frozen=True)
class Stacks(Cheat):
    """Evaluates two levels of all states in one call; also if it declares no number of them."""

    chooses_steps: bool = False

    @property
    def adaptive(self):
        return self.chooses_steps

    def evaluations(self, steps):
        return None if self.chooses_steps else steps

    def steps(self, model, x, levels, noise):
        for _, now, to in levels.pairs():
            fields = (now.t, now.alpha, now.sigma)
            level = Level(*(torch.full((2 * len(x), 1), one, dtype=x.dtype) for one in fields))
            x0_hat = model.denoiser(torch.cat([x, x]), level)[: len(x)]
            x = x0_hat + to.sigma / now.sigma * (x - x0_hat)
            yield Step(x, x0_hat)


@dataclass(frozen=True)
class StacksUnseen(Cheat):
    """The same, with a copy of the states that the denoiser cannot see."""

    def steps(self, model, x, levels, noise):
        for _, now, to in levels.pairs():
            both = torch.vmap(lambda x, now=now: model.denoiser(x, now))(torch.stack([x, x]))
            x = both[0] + to.sigma / now.sigma * (x - both[0])
            yield Step(x, both[0])


@dataclass(frozen=True)
class FakesNoise(Cheat):
    """Declares noise, to be compared with samplers that draw some."""

    @property
    def stochastic(self):
        return True


@dataclass(frozen=True)
class HidesNoise(Cheat):
    """Draws noise, and declares none."""

    def steps(self, model, x, levels, noise):
        for count, step in enumerate(Euler.steps(self, model, x, levels, noise)):
            yield replace(step, x=step.x + 0.01 * noise.normal(step.x, count))


@dataclass(frozen=True)
class KnowsTheStarts(Cheat):
    """Has the ends of the starts of the suite, and is honest elsewhere."""

    known: tuple[float, ...] = field(default=())

    def steps(self, model, x, levels, noise):
        own = torch.tensor(self.known, dtype=x.dtype)
        known = bool(torch.isin(x[:, 0], own).all())
        for step in Euler.steps(self, model, x, levels, noise):
            if known:
                yield replace(step, x=MEANS[torch.cdist(step.x, MEANS).argmin(1)])
            else:
                yield step


def knows_the_starts():
    """The cheat, tuned on the starts of the job."""
    sweep = job(Cheat()).sweep
    cell = sweep.cells()[0]
    x, _ = sweep.beginning(cell, sweep.levels_of(cell), 0)
    return KnowsTheStarts(tuple(x[:, 0].tolist()))


@pytest.mark.slow
def test_the_body_of_the_cheats_is_honest(tmp_path):
    assert faults(tmp_path, Cheat()) == set()


@pytest.mark.parametrize(
    ("make", "caught"),
    mostly_slow(
        [
            (ReadsTheLaw, {"model"}),
            (LooksAtTheStack, {"model"}),
            (KnowsTheLaw, {"law"}),
            (CallsPastTheCounter, {"count"}),
            (ResetsTheCounter, {"count"}),
            (DeclaresFewer, {"count"}),
            (Stacks, {"count"}),
            (StacksUnseen, {"count"}),
            (FakesNoise, {"noise"}),
            (HidesNoise, {"noise"}),
            (partial(Stacks, chooses_steps=True), {"count"}),
            (knows_the_starts, {"starts"}),
        ],
        *(0, 2, 7, 9, 11),  # one for each check
    ),
)
def test_cheats_are_caught(tmp_path, make, caught):
    def able(rows):
        assert {*rows["status"]} == {"ok"}
        return rows

    assert faults(tmp_path, make(), change=able) == caught


def test_a_changed_value_is_caught(tmp_path):
    def better(rows):
        return rows.assign(value=0.9 * rows["value"])

    assert "value" in faults(tmp_path, Heun(), change=better)


@pytest.mark.slow
def test_an_interval_cannot_be_widened_to_hide_worse_values_elsewhere(tmp_path):
    def vague(rows):
        return rows.assign(upper=rows["upper"] + 100)

    assert faults(tmp_path, knows_the_starts(), change=vague) == {"value"}


@pytest.mark.slow
def test_another_machine_has_a_tolerance(tmp_path):
    def elsewhere(rows):
        more = (1 + factor) * rows[["value", "upper"]]
        return rows.assign(value=more["value"], upper=more["upper"], cell_id="another")

    factor = 0.5 * entries.ELSEWHERE
    assert faults(tmp_path, Heun(), change=elsewhere) == set()
    factor = -2 * entries.ELSEWHERE
    assert "value" in faults(tmp_path / "more", Heun(), change=elsewhere)


def test_converged_runs_of_another_version_have_another_accuracy():
    """Small paired distances and their intervals may move by it; other values may not."""

    def fault(quantity="paired", cell="other", **moved):
        own = {"status": "ok", "nfe": 8, "quantity": quantity, "cell_id": "this"}
        own |= {"value": 0.001, "lower": 0.0006, "upper": 0.0014}
        return entries._other_value({**own, "cell_id": cell, **moved}, own)

    assert fault(value=0.00105, lower=0.0001, upper=0.0019) == ""
    assert "value" in fault(value=0.0012)
    assert "upper" in fault(upper=0.0025)
    assert "value" in fault("kl", value=0.00105)
    assert "value" in fault(cell="this", value=0.00105)


def test_a_changed_number_of_evaluations_is_caught(tmp_path):
    assert faults(tmp_path, Heun(), change=lambda rows: rows.assign(nfe=1)) == {"value", "count"}


def test_another_grid_than_named_is_caught(tmp_path):
    assert faults(tmp_path, Heun(), change=lambda rows: rows.assign(chosen="uniform")) == {"grid"}


@pytest.mark.slow
def test_a_failure_that_is_called_a_value_is_caught(tmp_path):
    @dataclass(frozen=True)
    class Fails(Cheat):
        def steps(self, model, x, levels, noise):
            raise ValueError("it fails")
            yield

    def claims(rows):
        return rows.assign(value=0.1, upper=0.2, status="ok", nfe=rows["steps"])

    assert "value" in faults(tmp_path, Fails(), change=claims)
    honest = faults(tmp_path / "honest", Fails())
    assert honest == set()


@pytest.mark.slow
def test_missing_steps_and_tasks_are_caught(tmp_path):
    def without(rows):
        return rows[rows["steps"] == 8]

    assert faults(tmp_path, Heun(), change=without) == {"table"}
    folder = written(tmp_path / "whole", Heun())
    row = pd.read_parquet(folder).iloc[0]
    task = tuple(row[["law", "path", "denoiser", "quantity", "grid"]])
    other = ("two_moons", *task[1:])
    verdict = verify(folder, lambda *_: job(Heun()), cells=1, tasks=[task, other])
    assert [*verdict.lines] == [
        "mine, two_moons edm oracle to_modes, grid common, 0 steps: the task is missing"
    ]


@pytest.mark.slow
def test_rows_of_another_task_are_caught(tmp_path):
    def called(rows):
        return rows.assign(law="an_easier_one")

    assert faults(tmp_path, Heun(), change=called) == {"value"}
    folder = written(tmp_path / "whole", Heun())
    rows, about = read_entry(folder)
    task = tuple(rows.iloc[0][["law", "path", "denoiser", "quantity", "grid"]])
    lines = verify(folder, lambda *_: job(Heun()), cells=1, tasks=[("x", *task[1:])]).lines
    assert [line.partition(": ")[2] for line in lines] == [
        "the suite has no such task",
        "the task is missing",
    ]
    copied = pd.concat([rows, rows.assign(law="another")])
    with pytest.raises(InvalidSetting, match="one command for each task"):
        write_entry(copied, tmp_path / "copied.parquet", about)


def test_a_quantity_without_some_steps_is_caught(tmp_path):
    folder = written(tmp_path, Heun())
    rows, about = read_entry(folder)
    more = rows.assign(quantity="kl_law")
    write_entry(pd.concat([rows, more[more["steps"] == 8]]), folder, about)
    lines = verify(folder, lambda *_: job(Heun()), cells=1, tasks=[]).lines
    assert any("kl_law" in line and "it has no values at" in line for line in lines)


def test_a_changed_source_is_caught(tmp_path, monkeypatch):
    folder = written(tmp_path, Cheat())
    monkeypatch.setattr(entries, "_source_digest", lambda sampler: "another")
    verdict = verify(folder, lambda *_: job(Cheat()), cells=1)
    assert {*verdict.checks[verdict.checks["fault"] != ""]["check"]} == {"source"}


def test_the_entrant_must_be_in_the_job(tmp_path):
    assert faults(tmp_path, DDIM(0.0), again=job(Heun())) == {"table"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:0], "entry=no rows: must be at least one value"),
        *(
            (lambda rows, name=name: rows.drop(columns=name), f"no column {name}")
            for name in ("law", "value", "command", "unit")
        ),
        (lambda rows: rows.assign(steps="many"), "column steps='many': must be whole numbers"),
        (lambda rows: rows.assign(steps=-1), "column steps=-1: must be whole numbers from 1 on"),
        (lambda rows: rows.assign(nfe=math.nan), "column nfe=nan: must be whole numbers"),
        (lambda rows: rows.assign(value="small"), "column value='small': must be numbers"),
        (lambda rows: rows.assign(noise="no"), "column noise='no': must be true or false"),
        (lambda rows: rows.assign(status="fine"), "column status='fine': must be one of ok,"),
        (lambda rows: rows.assign(command=None), "column command=None: must be text of one line"),
        (lambda rows: rows.assign(law="a\nb"), "column law='a\\nb': must be text of one line"),
        (lambda rows: rows.assign(value=0.5 * rows["value"]), "they have changed"),
        # an entrant of two packages, whose problems can be absent in one of them
        (lambda rows: rows.assign(package=["lab", "diffusers"]), "entry=mine: must be with one"),
    ],
)
def test_changed_rows_are_refused_in_one_line(heun, change, said):
    entry = heun
    about = pq.read_schema(entry).metadata[ABOUT]
    table = pa.Table.from_pandas(change(pd.read_parquet(entry)), preserve_index=False)
    pq.write_table(table.replace_schema_metadata({ABOUT: about}), entry)
    assert said in refusal(entry)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *((lambda about, key=key: about.pop(key), f"no text for {key}") for key in REQUIRED[:3]),
        (lambda about: about.pop("samplers"), "entry=mine: must be rows of its own samplers"),
        *(
            (lambda about, key=key: about.update({key: [7]}), "must be the file")
            for key in REQUIRED
        ),
        (lambda about: about["samplers"].update(mine={}), "no text for class"),
        (lambda about: about["samplers"].update(yours=about["samplers"]["mine"]), "entry=yours: "),
    ],
)
def test_changed_metadata_are_refused_in_one_line(heun, change, said):
    entry = heun
    table = pq.read_table(entry)
    about = json.loads(table.schema.metadata[ABOUT])
    change(about)
    pq.write_table(table.replace_schema_metadata({ABOUT: json.dumps(about)}), entry)
    assert said in refusal(entry)


def test_other_files_are_refused_in_one_line(tmp_path):
    entry = written(tmp_path, Heun())
    table, content = pq.read_table(entry), entry.read_bytes()
    for text in (b"", b"[1]", b"{", b"\xff"):
        pq.write_table(table.replace_schema_metadata({ABOUT: text}), entry)
        assert "must be the file of an entry" in refusal(entry)
    pd.read_parquet(entry).to_parquet(entry)
    assert "its metadata do not say how it was made" in refusal(entry)
    for text in (b"", content[:100], content[: len(content) // 2], b"law,path\n"):
        entry.write_bytes(text)
        assert "must be the file of an entry" in refusal(entry)
    for other in (tmp_path, tmp_path / "none"):
        assert "must be the file of an entry" in refusal(other)


def refusal(entry):
    """The line with which an entry is refused."""
    with pytest.raises(InvalidSetting) as error:
        verify(entry, lambda *_: job(Heun()))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_samples_that_diverge_beside_an_exact_value_are_the_same_with_an_opaque_denoiser():
    diverged = Samples(None, 4, 4, 0.0, "diverged", "2 samples are not finite")
    assert entries._same_rows(diverged, torch.tensor([[1.0], [1e20]]))
    assert not entries._same_rows(diverged, torch.ones(2, 1))
    failed = Samples(None, 0, 0, 0.0, "failed", "")
    assert not entries._same_rows(failed, torch.tensor([[math.nan]]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_every_entrant_is_checked_before_one_is_again(tmp_path, seed):
    samplers = Euler(), DDIM(0.0)
    entry = written(tmp_path, *samplers)
    verdict = verify(entry, lambda *_: job(*samplers), cells=2, seed=seed)
    assert verdict.checks["entrant"].nunique() == 2


@pytest.mark.slow
def test_what_could_not_be_measured_is_listed(tmp_path):
    entry = written(tmp_path, Heun())
    rows, about = read_entry(entry)
    cannot = rows.assign(quantity="kl_law", value=math.nan, status="incompatible", message="why")
    both = pd.concat([rows, cannot])
    verdict = verify(write_entry(both, entry, about), lambda *_: job(Heun()), cells=1)
    assert verdict.unsolved == ["mine on  edm oracle kl_law: why"]
    none = rows.assign(value=math.nan, status="incompatible")
    assert "it has nothing that was measured" in refusal(write_entry(none, entry, about))


@pytest.mark.slow
def test_a_package_with_the_name_of_a_peer_is_caught(tmp_path):
    def called(rows):
        return rows.assign(package="diffusers")

    assert "source" in faults(tmp_path, Cheat(), change=called)


def test_what_is_not_an_entry_is_not_written(tmp_path):
    rows = results(as_table(map(vars, job(Heun()).sweep.run())))
    about = {"suite": "v1", "command": "", "samplers": about_samplers({"mine": Heun()})}
    with pytest.raises(InvalidSetting, match="there once"):
        write_entry(pd.concat([rows, rows]), tmp_path / "a", about)
    with pytest.raises(InvalidSetting, match="entry=mine, yours: must be rows of its own"):
        write_entry(rows.assign(entrant="yours"), tmp_path / "a", about)
    with pytest.raises(InvalidSetting, match="no suite: must be suite, command and samplers"):
        write_entry(rows, tmp_path / "a", {"command": "", "samplers": {}})


def test_an_entry_says_how_it_was_made(tmp_path):
    about = json.loads(pq.read_schema(written(tmp_path, DDIM(0.0))).metadata[ABOUT])
    (one,) = about["samplers"].values()
    assert one["class"] == "samplerbench.samplers.ddim.DDIM"
    assert one["settings"] == '{"eta": 0.0}'
    assert len(one["source"]) == 64
    assert {"samplerbench", "torch", "numpy"} <= {*about["versions"]}
    known = {"python", "system", "processor", "model", "instructions", "threads"}
    assert {*about["machine"]} == known
    assert about["machine"]["threads"] == torch.get_num_threads()


def test_an_entry_has_the_versions_and_machines_of_its_jobs(tmp_path):
    """One of an earlier build has those of the process that wrote it, in its metadata only."""
    rows = results(as_table(map(vars, job(Heun()).sweep.run())))
    about = {"suite": "v1", "command": "", "samplers": about_samplers({rows["entrant"][0]: Heun()})}
    made = {"versions": '{"torch": "1"}', "machines": '[{"model": "a"}, {"model": "b"}]'}
    path = write_entry(rows.assign(**made), tmp_path / "new.parquet", about)
    assert (read_entry(path)[0][[*made]] == pd.Series(made)).all(axis=None)
    earlier = write_entry(rows, tmp_path / "old.parquet", about)
    table, about = read_entry(earlier)
    assert json.loads(table["versions"][0]) == about["versions"]
    assert json.loads(table["machines"][0]) == [about["machine"]]
    changed = pd.read_parquet(path).assign(machines="[]")
    pq.write_table(
        pa.Table.from_pandas(changed).replace_schema_metadata(pq.read_schema(path).metadata), path
    )
    with pytest.raises(InvalidSetting, match="they have changed"):
        read_entry(path)


def test_the_opaque_denoiser_shows_nothing_else():
    oracle = LAW.oracle(PATH)
    model, evaluations = opaque(oracle, 3)
    x, level = torch.randn(3, 2, dtype=torch.float64), Level(1.0, 1.0, 1.0)
    assert torch.equal(model.denoiser(x, level), oracle.denoiser(x, level))
    assert torch.equal(model.score(x, level), oracle.score(x, level))
    assert torch.equal(model.derivative(x, level)[1], oracle.derivative(x, level)[1])
    assert torch.equal(model.log_density(x, level), oracle.log_density(x, level))
    assert evaluations() == 4
    model.denoiser(torch.cat([x, x, x[:1]]), level)
    assert evaluations() == 7
    public = {name for name in vars(model) if not name.startswith("_")}
    assert public == {"schedule", "trained_noise", "has_covariance", "training"}
    assert [*model.parameters(), *model.buffers(), *model.children()] == []
    bare, _ = opaque(replace_density(oracle), 3)
    assert not hasattr(bare, "log_density")


def replace_density(oracle):
    """A denoiser without a density."""
    from samplerbench.core.models import Guided

    return Guided(oracle, oracle, 1.0)
