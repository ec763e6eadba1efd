"""The examples of docs/mcmc.md run, and print what the page says."""

import re
import shlex
import sys
from pathlib import Path

import pandas as pd
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "mcmc.md").read_text()
COMMANDS = [
    shlex.split(block.replace("\\\n", " "))[1:]
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S)
]
MODULE, SCRIPT = re.findall(r"```python\n(.*?)```", PAGE, re.S)
#: So that the tests are fast: of one job the last word of a setting counts.
FEW = ["n_samples=50", "repetitions=2", "floor_repetitions=2", "cache=off"]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A user's folder with the page's module."""
    pytest.importorskip("arviz")
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "target.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab"]:
        del sys.modules[name]


@pytest.mark.slow
def test_four_samplers_in_one_table(lab, command, capsys):
    assert command(*COMMANDS[0], *FEW, "steps=[100]") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "chains, overdispersed, oracle, mala step_size=0.05, N=100 (202 evaluations)" in text
    assert (
        "overdispersed start, oracle score: not ranked, since their chains have not mixed" in text
    )
    (path,) = (lab / "multirun").glob("*/cells.parquet")
    table = pd.read_parquet(path)
    assert set(table["status"]) == {"ok"}
    cells = table[(table["reference"] == "law") & (table["denoiser"] != "law")]
    grids = cells.groupby("sampler")["grid"].unique().map(list).to_dict()
    assert grids.pop("annealed_langevin") == ["karras"]
    assert grids == {name: ["hold"] for name in ("mala", "ula", "underdamped")}


@pytest.mark.slow
def test_particles_of_a_density_and_of_a_mixture(lab, command, capsys):
    assert command(*COMMANDS[1], *FEW, "steps=[5]") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "log_z on many_well: ln of the estimate − ln Z by n = 50 samples" in text
    assert command(*COMMANDS[2], *FEW, "steps=[4]") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "log_z on grid_mixture" in text
    assert "(72 in 9)" in text


@pytest.mark.slow
def test_a_density_by_the_command(lab, command, capsys):
    assert command(*COMMANDS[3], *FEW, "nfe=[100]") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "moments on density" in text
    assert "NFE ≤ 100" in text
    assert "error of the mean" in text


@pytest.mark.slow
def test_a_density_in_python(lab, monkeypatch):
    monkeypatch.syspath_prepend(lab)
    names = {}
    exec(SCRIPT.replace("[100, 1600], n_samples=500", "[50, 100], n_samples=50"), names)
    table = names["table"]
    assert set(table["metric"]) >= {"moments", "effective_sample_size", "split_r_hat", "mean_error"}
    assert set(table["status"]) == {"ok"}


def test_there_is_nothing_else_to_run():
    assert len(COMMANDS) == 4  # the others need files of a reader's
    assert "(mcmc.md)" in (Path(__file__).parents[2] / "docs" / "README.md").read_text()
