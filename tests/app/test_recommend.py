"""`samplerbench recommend`: a race, three lines, and a command that works."""

import shlex
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import samplerbench as sb
from samplerbench.app.commands import recommend
from samplerbench.app.config.compose import compose_config
from samplerbench.app.folder.runs import open_run
from samplerbench.app.job.racing import racing_grids, racing_samplers
from samplerbench.app.job.rebuild import rebuild
from samplerbench.bench.race import LAWS, PATHS, Size
from samplerbench.errors import InvalidSetting

FEW = ("sampler=[ddim,heun]", "grid=[karras,log_snr]", "nfe=4")


SMALL = Size(
    first=32, batch=4, finalists=2, noisy_finalists=1, designs=0, measured=64, measured_batch=8
)


@pytest.fixture(autouse=True)
def _small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = SMALL
    monkeypatch.setattr(Size, "of", classmethod(lambda cls, dim: small))


def test_three_lines_the_levels_and_a_command_that_works(finished, command, capsys):
    recommend.main([str(finished), *FEW])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("use ")
    assert "evaluations" in lines[0]
    assert "the default, ddim η=0.5 on karras" in lines[1]
    assert "(95 %, Holm)" in lines[2]
    levels = next(line for line in lines if line.startswith("levels"))
    assert levels.endswith(" 0")
    words = shlex.split(next(line for line in lines if line.startswith("command: ")))[2:]
    assert command(*words) == 0
    assert np.load("samples.npy").shape == (1000, 2)


def test_a_wide_table_keeps_its_last_column(capsys):
    """Also one that is wider than the console: only names are folded."""
    name, gap = "unipc bh1=true points=2 on designed", "-0.024000 [-0.070000, 0.0210000]"
    entrant = SimpleNamespace(entrant=SimpleNamespace(label=name))
    measured = [SimpleNamespace(kind=kind, standing=entrant) for kind in (PATHS, LAWS)]
    cells = {PATHS: ("0.00952 ± 0.00022", "28.1 [27.1, 28.9]"), LAWS: ("0.21 ± 0.15", gap)}
    found = SimpleNamespace(
        verdict=SimpleNamespace(measured=measured), cells=lambda one: (*cells[one.kind], "2.4e-215")
    )
    recommend._print_table(recommend._table(found))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-1] == "p"
    assert gap in lines[2]
    assert lines[2].rstrip().endswith("2.4e-215")
    assert lines[3].strip() in name


@pytest.mark.slow
def test_the_command_uses_the_winner(finished, command, capsys):
    """The samples of the printed command are those of the winner on its grid, bit for bit."""
    recommend.main([str(finished), "sampler=unipc", "grid=log_snr", "nfe=4", "denoiser=oracle"])
    words = shlex.split(capsys.readouterr().out.split("command: ")[1].splitlines()[0])[1:]
    assert command(*words) == 0
    run = sb.load(finished)
    settings = dict(word.split("=") for word in words if word.startswith("sampler."))
    method = sb.sampler(
        "unipc", points=int(settings["sampler.points"]), bh1=settings["sampler.bh1"] == "true"
    )
    want = sb.sample(run, method, steps=4, denoiser="oracle", grid="log_snr", start="prior")
    assert np.array_equal(np.load("samples.npy"), want)


@pytest.mark.slow
def test_designed_levels_are_given_as_numbers(command, capsys, monkeypatch):
    """At few steps designed levels win; the printed job runs on them."""
    monkeypatch.setattr(Size, "of", classmethod(lambda cls, dim: replace(SMALL, designs=1)))
    recommend.main(["dataset=two_modes", "sampler=heun", "grid=karras", "nfe=5"])
    text = capsys.readouterr().out
    assert text.startswith("use heun on designed: 3 steps, 5 evaluations")
    words = shlex.split(text.split("command: ")[1].splitlines()[0])[1:]
    assert "grid=custom" in words
    levels = text.split("levels (σ/α): ")[1].splitlines()[0].split()[:-1]
    config, _ = compose_config(words)
    assert config.grid.ratios == pytest.approx([float(one) for one in levels], rel=1e-4)


@pytest.mark.slow
def test_the_command_of_a_data_set_can_be_composed(capsys):
    recommend.main(["dataset=two_modes", "schedule.sigma_max=20", *FEW, "out=all.csv"])
    text = capsys.readouterr().out
    words = shlex.split(text.split("command: ")[1].splitlines()[0])[1:]
    config, _ = compose_config(words)
    assert config.schedule.sigma_max == 20
    assert list(config.denoiser) == ["oracle"]
    table = pd.read_csv("all.csv")
    raced = int(text.rpartition("\n")[0].rpartition("\n")[2].split()[0])
    same = sum(len(str(one).split(", ")) for one in table["same"].dropna())
    assert table["entrant"].nunique() + same == raced


@pytest.mark.slow
def test_the_library_gives_the_same(finished, capsys):
    recommend.main([str(finished), *FEW])
    said = capsys.readouterr().out
    run = sb.load(finished)
    found = sb.recommend(
        run, 4, dict(racing(run.sweep, ["ddim", "heun"])), grids=["karras", "log_snr"]
    )
    assert repr(found).splitlines() == said.splitlines()[:3]
    assert found.steps == found.levels.steps
    assert found.sampler == found.entrant.sampler


def racing(sweep, names):
    groups: dict = {}
    for name, one in racing_samplers(sweep, names):
        groups.setdefault(name, []).append(one)
    return groups


def test_a_run_s_own_settings_race_first(finished):
    sweep = rebuild(open_run(finished)).sweep
    first = racing_samplers(sweep)[0]
    assert first[0] == "ddim"
    assert first[1].eta == 0.5
    assert next(iter(racing_grids(sweep))) == "karras"
    everyone = racing_samplers(sweep)
    assert not any(one == other for i, (_, one) in enumerate(everyone) for _, other in everyone[:i])
    names = {name for name, _ in everyone}
    assert {"unipc", "reverse_sde"} <= names
    assert not {"diffusers", "k_diffusion", "azula"} & names


@pytest.mark.slow
def test_a_default_that_does_not_race_is_measured_too(finished, capsys):
    recommend.main([str(finished), "sampler=unipc", "grid=log_snr", "nfe=4"])
    lines = capsys.readouterr().out.splitlines()
    assert "the default, ddim η=0.5 on karras, has " in lines[1]


@pytest.mark.slow
def test_a_race_of_one_entrant_against_nothing(capsys):
    recommend.main(["dataset=two_modes", "sampler=ddpm_linear", "grid=karras", "nfe=1"])
    text = capsys.readouterr().out
    assert ": 1 step, 1 evaluation\n" in text
    assert "\n1 entrant, " in text
    assert "start=[prior]" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nfe=4"], "must be followed by one folder of a run, such as multirun/NAME, or by"),
        (["dataset=two_moons"], "nfe=: must be given, as in nfe=10"),
        (["dataset=two_moons", "nfe=0"], "nfe=0: must be a whole number, at least 1"),
        (["dataset=two_moons", "nfe=4", "smapler=heun"], "did you mean sampler?"),
        (["dataset=two_moons", "nfe=4", "sampler=huen"], "sampler=huen: must be a name in"),
        (["dataset=two_moons", "nfe=4", "grid=kar"], "did you mean karras?"),
        (["dataset=two_moons", "nfe=4", "denoiser=learned"], "must be one of oracle"),
        (["dataset=pinwheel", "nfe=4"], "denoiser=none: must be one for all noise levels"),
        pytest.param(
            ["dataset=two_moons", "nfe=4", "sampler=annealed_langevin"],
            "one step takes 5",
            marks=pytest.mark.slow,
        ),
        (["dataset=faces.npy", "nfe=4"], "dataset"),
        (["dataset=two_moons", "nfe=4", "out=x.txt"], "a file that ends in .csv"),
        (["dataset=two_moons", "nfe=4", "start=overdispersed"], "samplers that move"),
        (["dataset=two_moons", "nfe=4", "sampler=[heun,heun]"], "a list of different names"),
    ],
)
def test_bad_input_is_one_line(words, message, command, capsys):
    assert command("recommend", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_run_without_weights_is_refused_in_one_line(run, command, capsys):
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    assert command("recommend", run, "nfe=4") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "weights" in line


def test_a_run_has_its_own_data(finished, command, capsys):
    assert command("recommend", finished, "schedule=edm", "nfe=4") == 2
    assert "its own data and path" in capsys.readouterr().err


def test_members_of_packages_that_are_not_installed_take_no_part(finished, monkeypatch):
    """`make run` installs no package of other samplers; samplers of these are refused by name."""

    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("samplerbench.samplers.peers.version", version)
    monkeypatch.setitem(sys.modules, "diffusers.schedulers", None)
    sweep = rebuild(open_run(finished)).sweep
    grids, samplers = racing_grids(sweep), racing_samplers(sweep)
    assert "ays_table" not in grids
    assert {"karras", "entropic", "beta"} <= set(grids)
    names = {name for name, _ in samplers}
    assert names.isdisjoint({"diffusers", "azula", "k_diffusion"})
    assert {"ddim", "unipc", "er_sde"} <= names
    with pytest.raises(InvalidSetting, match="must be installed"):
        racing_grids(sweep, ["ays_table"])
    with pytest.raises(InvalidSetting, match="must be installed"):
        racing_samplers(sweep, ["azula"])
