"""Somebody else's members, from a folder of their own: the files that docs/extending.md shows."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from helpers import refused_in_one_line
from samplerbench.app.config.construct import trusted, trusting
from samplerbench.app.folder.runs import find_runs, open_run
from samplerbench.app.job.rebuild import rebuild
from samplerbench.errors import InvalidSetting

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
#: The files that the page shows, by their names, which stand in the first lines.
FILES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL))
NAMES = {path.split("/")[1]: path.split("/")[2][:-5] for path in FILES if path.startswith("conf")}
SMALL = ["experiment=tiny", "logger=none", "denoiser=learned", "start=prior", "trainer.steps=5"]
SMALL += ["figure.format=[]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder: a package, and yaml files for its members."""
    folder = tmp_path_factory.mktemp("outside")
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    """The user's folder as the current one, with nothing of it imported yet."""
    monkeypatch.chdir(folder)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def ours_and_theirs(folder, command, tmp_path_factory):
    """A multirun over our members and theirs, from their folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        runs = folder / "many"
        command(
            *["-m", "--config-dir", "conf", "trusted=lab", *SMALL, f"hydra.sweep.dir={runs}"],
            *["sampler=[euler,mine]", "dataset=gaussian,square"],
        )
    return runs


def test_each_is_less_than_twenty_lines():
    for group, name in NAMES.items():
        texts = FILES[f"lab/{group}.py"], FILES[f"conf/{group}/{name}.yaml"]
        assert sum(len(text.splitlines()) for text in texts) < 20, group


@pytest.fixture(scope="module")
def one(folder, command):
    """A run of all of their members, from their folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        search = f"hydra.searchpath=[file://{folder}/conf]"
        chosen = [f"{group}={name}" for group, name in NAMES.items()]
        command(search, "trusted=[lab]", *SMALL, *chosen, f"hydra.run.dir={folder}/one")
    return folder / "one"


@pytest.mark.slow
def test_all_of_them_in_one_run(here, one):
    table = open_run(one).table()
    assert len(table) == 2 * 2 + 4  # numbers of steps × repetitions, and the floor
    assert set(table["status"]) == {"ok"}
    assert set(table["metric"]) == {"mean_gap"}
    cells = table[table["denoiser"] == "learned"]
    line = cells.iloc[0]
    found = {key: line[key] for key in ("sampler", "dataset", "objective", "network")}
    assert found == {key: NAMES[key] for key in found}


@pytest.mark.slow  # quick: test_check.py
def test_their_names_are_known_at_the_other_doors(here, command, capsys):
    own = ["--config-dir", "conf", "trusted=lab"]
    command("check", *(f"{group}={name}" for group, name in NAMES.items()), *own)
    assert "broken" not in capsys.readouterr().out
    np.save("some.npy", np.random.default_rng(0).uniform(-1, 1, (100, 2)))
    command("score", "some.npy", "dataset=square", "metric=mean_gap", "n_reference=200", *own)
    assert "not distinguishable from the data" in capsys.readouterr().out
    assert command("check", "mine") == 2


def test_classes_without_a_yaml_keep_their_contracts(here, command, capsys):
    chosen = ["dataset=lab.logistic.Logistic", "dataset=lab.blob.Blob", "grid=lab.grid.Moves"]
    assert {f"{name.split('.')[1]}.py" for name in chosen} <= {Path(name).name for name in FILES}
    command("check", *chosen)
    printed = capsys.readouterr().out
    assert "broken" not in printed
    for name in chosen:
        assert name in printed


@pytest.mark.slow
def test_a_multirun_over_ours_and_theirs(ours_and_theirs):
    tables = [open_run(path).table() for path in find_runs(ours_and_theirs)]
    cells = pd.concat(tables).query("denoiser == 'learned'")
    found = set(zip(cells["sampler"], cells["dataset"], strict=True))
    assert found == {(s, d) for s in ("euler", "mine") for d in ("gaussian", "square")}
    values = {
        name: rows.sort_values(["dataset", "steps", "repetition"])["value"].to_numpy()
        for name, rows in cells.groupby("sampler")
    }
    # on the default path, whose σ is linear in time, they are one method
    assert abs(values["euler"] - values["mine"]).max() < 1e-5


def test_what_is_not_trusted_or_not_there_is_one_line(here, command, capsys):
    for words, message in (
        ([], "a member of samplerbench; add trusted=lab if you trust its code"),
        (["trusted=[3]"], "trusted=3: must be the name of a package"),
        (["trusted=lab", "sampler.mine._target_=lab.nothing.Mine"], "'lab' has no attribute"),
    ):
        capsys.readouterr()
        assert command("--config-dir", "conf", "sampler=mine", *SMALL, *words) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert message in err


def test_a_package_is_trusted_by_its_whole_name(here):
    for packages, target, message in (
        ("la", "lab.sampler.Mine", "a member of samplerbench, la; add trusted=lab if"),
        ("lab.dataset", "lab.sampler.Mine", "add trusted=lab if"),
        ("lab", "labevil.Mine", "add trusted=labevil if"),
    ):
        with trusting(packages), pytest.raises(InvalidSetting, match=message):
            trusted(target, "sampler.mine")
    refused = pytest.raises(InvalidSetting, match="trusted=file:x: must be the name of a package")
    with refused, trusting("file:x"):
        pass


def test_where_it_is_defined_decides(here):
    (here / "lab" / "tricks.py").write_text("import os\nfrom lab.sampler import Mine\nfive = 5\n")
    (here / "lab" / "silent.py").write_text("raise Exception\n")
    with trusting("lab"):
        assert trusted("lab.sampler.Mine", "x").__name__ == "Mine"
        for target, message in (
            ("lab.tricks.os.system", "a class or a function"),
            ("lab.tricks.os.path.join", "by the module that defines it"),
            ("lab.tricks.Mine", "by the module that defines it: lab.sampler.Mine"),
            ("lab.tricks.five", "a class or a function"),
            ("lab.tricks.six", "that can be imported"),
            ("lab.silent.Mine", r"that can be imported \(Exception \(silent.py, line 1\)\)"),
            ("lab", "a member of samplerbench, lab"),
        ):
            with refused_in_one_line(message):
                trusted(target, "x")


def test_a_mistake_of_a_newcomer_is_one_line_that_says_what_to_do(here, command, capsys):
    own = ["--config-dir", "conf", "trusted=lab"]
    (here / "lab" / "slips.py").write_text(
        "from lab.sampler import Mine\nfrom samplerbench.samplers.base import Sampler\n\n"
        "class Bare(Sampler):\n    eta: float = 0.5\n    order, stochastic = 1, False\n"
        "    steps = Mine.steps\n"
    )
    slips = here / "slips" / "sampler" / "bare.yaml"
    slips.parent.mkdir(parents=True)
    slips.write_text("# @package sampler.bare\n_target_: lab.slips.Bare\neta: 0.1\n")
    (here / "slips" / "target").mkdir()
    (here / "slips" / "target" / "empty.yaml").write_text("scale: 3\n")
    copied = here / "copied" / "sampler" / "second.yaml"
    copied.parent.mkdir(parents=True)
    copied.write_text((here / "conf" / "sampler" / "mine.yaml").read_text())
    taken = here / "taken" / "dataset" / "rings.yaml"
    taken.parent.mkdir(parents=True)
    taken.write_text("_target_: lab.dataset.Square\n")
    line = "must be a file with the line # @package sampler.second"
    for words, message in (
        (["check", "square", *own], "check=square: must be dataset=square"),
        (["check", "mine"], "package.Class, or a name in `samplerbench list sampler`"),
        (["sampler=mine", *SMALL], "; --config-dir DIR adds those of your own folder"),
        (
            ["check", "target=empty", "--config-dir", "slips", "trusted=lab"],
            "_target_=None: must be a line of its yaml: _target_: package.module.Class",
        ),
        (["check", "dataset=lab.sampler.Mine"], "derives from samplerbench.datasets.base.Dataset"),
        (
            ["check", "bare", "--config-dir", "slips", "trusted=lab"],
            "bare.eta=0.1: must be a field: write @dataclass(frozen=True) above class Bare",
        ),
        (["--config-dir", "taken", "dataset=rings", *SMALL], "must be a file with another name"),
        (["check", "second", "--config-dir", "copied", "trusted=lab"], line),
        (["--config-dir", "copied", "trusted=lab", "sampler=[second,ddim]", *SMALL], line),
    ):
        capsys.readouterr()
        assert command(*words) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert message in err


def test_trust_ends_with_the_command(here):
    path = list(sys.path)
    refused = pytest.raises(InvalidSetting, match="samplerbench, other; add trusted=lab")
    with trusting(["lab"]), trusting("other"), refused:
        trusted("lab.sampler.Mine", "x")
    assert sys.path == path
    with pytest.raises(InvalidSetting, match="a member of samplerbench; add trusted=lab"):
        trusted("lab.sampler.Mine", "x")


def test_a_stored_run_cannot_declare_itself_trusted(here, one, tmp_path):
    copy = shutil.copytree(one, tmp_path / "copy")
    config = yaml.safe_load((copy / "config.yaml").read_text())
    assert config["trusted"] == ["lab"]
    with pytest.raises(InvalidSetting, match=r"lab\..*add trusted=lab if you trust its code"):
        rebuild(open_run(copy))
    with trusting("lab"):
        assert rebuild(open_run(copy)).sweep.cells()
