"""`samplerbench list`: every member has a line, and samplers say what they need."""

import sys
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec

import pytest

from samplerbench.app.commands import list as listing
from samplerbench.app.config.folders import conf_directory
from samplerbench.app.main import command
from samplerbench.errors import InvalidSetting
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.dormand_prince import DormandPrince
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.ula import ULA

GROUPS = sorted(p.name for p in conf_directory().iterdir() if p.is_dir() and p.name != "hydra")


def test_every_member_has_a_line_and_every_sampler_a_reference(capsys):
    for group in GROUPS:
        listing.main([group])
        lines = capsys.readouterr().out.splitlines()
        folder = conf_directory() / group
        for path in folder.rglob("*.yaml"):
            name = path.relative_to(folder).with_suffix("").as_posix()
            line = next(line for line in lines if line.startswith(f"{name} "))
            assert len(line.split()) > 1, "it says what it is"
            assert group != "sampler" or listing.reference(path), path
        assert group != "metric" or any("x[axis]" in line for line in lines), "as it is"
    listing.main([])
    out = capsys.readouterr().out
    assert "grid_mixture" in out
    assert all(f"\n{group} " in out for group in GROUPS)


def test_references():
    for member, source in {
        "sampler/ddim": "arXiv 2010.02502",
        "sampler/rk4": "Kutta 1901",
        "objective/ncsn": "arXiv 1907.05600",
        "metric/energy": "Székely and Rizzo 2013",
        "start/prior_sobol": "Matoušek 1998",
        "dataset/grid_mixture": "",
    }.items():
        assert listing.reference(conf_directory() / f"{member}.yaml") == source


def test_the_packages_of_peers_are_not_imported(capsys, monkeypatch):
    """diffusers alone takes longer than all the rest of the list."""
    packages = ("diffusers", "azula", "k_diffusion")
    if not all(map(find_spec, packages)):
        pytest.skip("needs diffusers, azula and k-diffusion (make test has them)")
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    listing.main(["samplers"])
    lines = capsys.readouterr().out.splitlines()
    for name in packages:
        line = next(line for line in lines if line.startswith(f"{name} "))
        assert line.partition("–")[2].split()[:2] == ["varies", "denoiser"]


def test_what_a_sampler_declares():
    describe = listing.declared
    assert describe(DDIM()) == ("1", "N", "denoiser")
    assert describe(DDIM(1.0))[0] == "1 weak"
    assert describe(Heun())[:2] == ("2", "2N-1")
    assert describe(DormandPrince())[:2] == ("5 adaptive", "varies")
    assert describe(ULA()) == ("–", "N", "score, one level, α > 0")


@pytest.mark.slow
def test_members_of_ones_own(tmp_path, capsys):
    folder = tmp_path / "sampler"
    folder.mkdir()
    (folder / "mine.yaml").write_text(
        "# @package sampler.mine\n# mine: my own\n_target_: listed_lab.Mine\n"
    )
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


def test_bad_words(refuses):
    for words, message in (
        ("nothing", "list=nothing: must be one of dataset"),
        ("--config-dir /nothing", "--config-dir=/nothing: must be a folder"),
        ("--config-dir", "--config-dir=: must be followed by a folder"),
        ("--nothing", "list=--nothing: must be one of dataset"),
    ):
        refuses(["list", *words.split()], message)


def test_the_shell_completes_groups_members_and_keys(typed, monkeypatch):
    def completed(line):
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        return typed("-sc", "query=bash")[1].split()

    assert completed("samplerbench dataset=gr") == ["dataset=grid_mixture"]
    assert "sampler.ddim.eta." in completed("samplerbench sampler.ddim.e")


def test_a_sampler_of_a_missing_package_leaves_the_others_their_width(typed, monkeypatch):
    """A long line of one member would make the column of all descriptions narrow."""

    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("samplerbench.samplers.peers.version", version)
    status, out, _ = typed("list", "samplers")
    assert status == 0
    assert "azula, not installed" in out
    assert "pip install" not in out
