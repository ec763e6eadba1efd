"""`samplerbench list`: every member has a line, and samplers say what they need."""

import pytest

from samplerbench.app import listing
from samplerbench.app.main import conf_directory
from samplerbench.errors import InvalidSetting
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.heun import Heun
from samplerbench.samplers.ula import ULA


def test_every_sampler_has_a_line(capsys):
    listing.main(["samplers"])
    out = capsys.readouterr().out
    for path in (conf_directory() / "sampler").glob("*.yaml"):
        assert f"\n{path.stem} " in out


def test_every_group_and_its_members(capsys):
    listing.main([])
    out = capsys.readouterr().out
    assert "grid_mixture" in out
    listing.main(["metric"])
    assert "max_sliced_certified" in capsys.readouterr().out


def test_what_a_sampler_declares():
    assert listing.describe(DDIM()) == ("1", "N", "a denoiser", "arXiv 2010.02502")
    assert listing.describe(DDIM(1.0))[0] == "1 weak"
    assert listing.describe(Heun())[:2] == ("2", "2N-1")
    assert listing.describe(ULA())[0] == "–"
    assert "a score, grid=hold" in listing.describe(ULA())[2]


def test_a_group_that_is_none():
    with pytest.raises(InvalidSetting, match="list=nothing: must be one of dataset"):
        listing.main(["nothing"])
