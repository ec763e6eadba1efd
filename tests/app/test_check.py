"""`samplerbench check`: somebody else's sampler, from a folder of their own, in a few lines."""

import pytest

from samplerbench.app import check
from samplerbench.errors import InvalidSetting

MINE = """
from dataclasses import dataclass
from typing import ClassVar
from samplerbench.samplers.base import Sampler, Step

@dataclass(frozen=True)
class Mine(Sampler):
    order: ClassVar[int] = ORDER

    @property
    def stochastic(self):
        return False

    def steps(self, model, x, levels, noise):
        for _, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            x = to.alpha * x0_hat + to.sigma / now.sigma * (x - now.alpha * x0_hat)
            yield Step(x, x0_hat)
"""


@pytest.mark.parametrize(("module", "order", "right"), [("mine_1", 1, True), ("mine_2", 2, False)])
def test_a_sampler_of_another_package(tmp_path, monkeypatch, capsys, module, order, right):
    (tmp_path / f"{module}.py").write_text(MINE.replace("ORDER", str(order)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(check, "SCHEDULES", check.SCHEDULES[:1])
    if right:
        check.main([f"{module}.Mine"])
    else:
        with pytest.raises(SystemExit, match=f"{module}.Mine: an order is not what is declared"):
            check.main([f"{module}.Mine"])
    assert "1.00" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nothing", "os.path", "os.getcwd", "no_package.Sampler"])
def test_what_is_no_sampler(name):
    with pytest.raises(InvalidSetting, match=f"check={name}: must be one of adams_bashforth"):
        check.main([name])


def test_a_grid_of_settings_is_checked_at_its_ends():
    assert [sampler.eta for sampler in check.settings("ddim")] == [0.0, 1.0]
