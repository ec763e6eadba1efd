"""`samplerbench list`: every member has a line, and samplers say what they need."""

import os
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from samplerbench.app import listing
from samplerbench.app.construct import construct_grid, read_member
from samplerbench.app.declared import again, declared
from samplerbench.app.folders import conf_directory
from samplerbench.app.main import command
from samplerbench.core.models import Denoiser
from samplerbench.errors import InvalidSetting
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.ula import ULA

GROUPS = sorted(p.name for p in conf_directory().iterdir() if p.is_dir() and p.name != "hydra")


@pytest.mark.parametrize("group", GROUPS)
def test_every_member_has_a_line(group, capsys):
    listing.main([group])
    lines = capsys.readouterr().out.splitlines()
    folder = conf_directory() / group
    for path in folder.rglob("*.yaml"):
        name = path.relative_to(folder).with_suffix("").as_posix()
        line = next(line for line in lines if line.startswith(f"{name} "))
        assert len(line.split()) > 1, "it says what it is"


def test_every_group_and_its_members(capsys):
    listing.main([])
    out = capsys.readouterr().out
    assert "grid_mixture" in out
    assert all(f"\n{group} " in out for group in GROUPS)


@pytest.mark.parametrize(
    ("group", "name", "source"),
    [
        ("sampler", "ddim", "arXiv 2010.02502"),
        ("sampler", "rk4", "Kutta 1901"),
        ("objective", "ncsn", "arXiv 1907.05600"),
        ("metric", "energy", "Székely and Rizzo 2013"),
        ("start", "prior_sobol", "Matoušek 1998"),
        ("dataset", "grid_mixture", ""),
    ],
)
def test_references(group, name, source):
    assert listing.reference(conf_directory() / group / f"{name}.yaml") == source


def test_every_sampler_has_a_reference(capsys):
    for path in (conf_directory() / "sampler").glob("*.yaml"):
        assert listing.reference(path), path.stem


def test_what_a_comment_says_is_shown_as_it_is(capsys):
    listing.main(["metric"])
    assert "x[axis]" in capsys.readouterr().out


def test_what_a_sampler_declares():
    def describe(sampler):
        return listing.describe(sampler, Denoiser)

    assert describe(DDIM()) == ("1", "N", "denoiser")
    assert describe(DDIM(1.0))[0] == "1 weak"
    assert describe(Heun())[:2] == ("2", "2N-1")
    assert describe(DormandPrince())[:2] == ("5 adaptive", "varies")
    assert describe(ULA()) == ("–", "N", "score, one level, α > 0")


@pytest.mark.parametrize(
    "path", (conf_directory() / "sampler").glob("*.yaml"), ids=lambda p: p.stem
)
def test_the_source_declares_what_the_sampler_declares(path):
    node = read_member(path)
    real = construct_grid(node, "sampler")[0]
    values = OmegaConf.to_container(node)
    target = values.pop("_target_")
    first = {key: value[0] if isinstance(value, list) else value for key, value in values.items()}
    read = declared(target, first)
    assert listing.describe(read, again(listing.DENOISER)) == listing.describe(real, Denoiser)
    assert [read.evaluations(n) for n in range(1, 9)] == [real.evaluations(n) for n in range(1, 9)]


def test_what_a_source_does_not_tell_the_sampler_does(tmp_path, monkeypatch):
    (tmp_path / "sampler").mkdir()
    path = tmp_path / "sampler" / "heun.yaml"
    path.write_text("# Heun.\n_target_: samplerbench.samplers.heun.Heun\n")

    def unclear(target, settings):
        raise LookupError

    monkeypatch.setattr(listing, "declared", unclear)
    monkeypatch.setattr(listing, "conf_directory", lambda: tmp_path)
    assert listing.declares("heun", path) == ("2", "2N-1", "denoiser")


@pytest.mark.parametrize(
    "target",
    ["os.system", "samplerbench.samplers.heun.Nobody", "samplerbench.samplers.base.Sampler"],
)
def test_nothing_is_declared_of_what_is_no_sampler_of_ours(target):
    with pytest.raises((LookupError, TypeError)):
        declared(target, {})


def test_members_of_ones_own(tmp_path, capsys):
    folder = tmp_path / "sampler"
    folder.mkdir()
    (folder / "mine.yaml").write_text("# mine: my own\n_target_: listed_lab.Mine\n")
    text = "from samplerbench.samplers.heun import Heun\nclass Mine(Heun): '''arXiv 2010.02502'''\n"
    (tmp_path / "listed_lab.py").write_text(text)
    words = ["sampler", "--config-dir", str(tmp_path)]
    with pytest.raises(InvalidSetting, match="add trusted=listed_lab if"):
        command("list", words)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        command("list", [*words, "trusted=listed_lab"])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mine "))
    assert line.split()[-5:] == ["2", "2N-1", "denoiser", "arXiv", "2010.02502"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "list=nothing: must be one of dataset"),
        (["--config-dir", "/nothing"], "--config-dir=/nothing: must be a folder"),
        (["--config-dir"], "--config-dir=: must be followed by a folder"),
        (["--nothing"], "list=--nothing: must be one of dataset"),
    ],
)
def test_bad_words(words, message):
    with pytest.raises(InvalidSetting, match=message):
        command("list", words)


def test_a_list_needs_nothing_heavy():
    code = (
        "import sys; from samplerbench.app import listing; listing.main(['metric', 'samplers']); "
        "assert not {'torch', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_shell_completes_groups_members_and_keys():
    def completed(line):
        command = [sys.executable, "-m", "samplerbench", "-sc", "query=bash"]
        known = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
        return subprocess.run(command, env=known, capture_output=True, text=True).stdout.split()

    assert completed("samplerbench dataset=gr") == ["dataset=grid_mixture"]
    assert "sampler.ddim.eta." in completed("samplerbench sampler.ddim.e")
