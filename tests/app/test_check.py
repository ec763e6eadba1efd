"""`samplerbench check`: somebody else's sampler, from a folder of their own, in a few lines."""

import subprocess
import sys

import pytest

from samplerbench.app.commands import check, examine
from samplerbench.errors import InvalidSetting

MINE = """
from dataclasses import dataclass
from typing import ClassVar
from samplerbench.samplers.base import Sampler, Step

@dataclass(frozen=True)
class Mine(Sampler):
    order: ClassVar[int] = ORDER
    stochastic: ClassVar[bool] = False

    def steps(self, model, x, levels, noise):
        for _, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            x = to.alpha * x0_hat + to.sigma / now.sigma * (x - now.alpha * x0_hat)
            yield STEP
"""
STEP = "Step(x, x0_hat)"


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes a module with a sampler into the current folder; its class's name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(examine, "SCHEDULES", examine.SCHEDULES[:1])

    def write(module, order=1, step=STEP):
        text = MINE.replace("ORDER", str(order)).replace("STEP", step)
        (tmp_path / f"{module}.py").write_text(text)
        return f"{module}.Mine"

    return write


def test_a_sampler_of_another_package(mine, capsys):
    check.main([mine("mine_right")])
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split() == ["mine_right.Mine", "1", "1.00", "1.00", "9.4", "→", "2.4", "%", "kept"]


@pytest.mark.parametrize(
    ("module", "order", "step", "lines"),
    [
        (
            "mine_order",
            2,
            STEP,
            [
                f"order on the {law}, EDM: 1.00, and 2 is declared"
                for law in ("gaussian", "mixture")
            ],
        ),
        ("mine_end", 1, "Step(x + 1e-12, x0_hat)", ["contract: end: the last state is not its x̂₀"]),
        ("mine_law", 1, "Step(x + (to.sigma == 0), x0_hat)", ["law: ", "contract: end: "]),
        ("mine_raises", 1, "Step(x @ x, x0_hat)", ["order on the gaussian, EDM: RuntimeError: "]),
    ],
)
def test_what_fails_is_named_in_a_line_each(mine, module, order, step, lines):
    name = mine(module, order, step)
    with pytest.raises(SystemExit) as caught:
        check.main([name])
    found = str(caught.value).splitlines()
    assert all(line.startswith(f"samplerbench: {name}: ") for line in found)
    for line in lines:
        assert any(line in other for other in found)
    if module != "mine_raises":
        assert len(found) == len(lines)


@pytest.mark.parametrize("name", ["os.path", "os.getcwd", "no_package.Sampler", ".Sampler"])
def test_what_is_no_sampler(name):
    with pytest.raises(InvalidSetting, match=r"check=.*: must be a member of conf/sampler/, or a"):
        check.main([name])


def test_what_is_no_name_is_told_before_anything_is_imported():
    code = (
        "import sys; from samplerbench.app.commands import check\n"
        "try: check.main(['heun', 'nothing'])\n"
        "except ValueError as error: assert 'check=nothing: must be one of adams' in str(error)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_sampler_that_is_not_finished(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.py").write_text(MINE[: MINE.index("    stochastic")].replace("ORDER", "1"))
    with pytest.raises(InvalidSetting, match="it lacks steps, stochastic"):
        check.main(["half.Mine"])
    (tmp_path / "unread.py").write_text("import nothing_of_this_name")
    with pytest.raises(InvalidSetting, match="No module named 'nothing_of_this_name'"):
        check.main(["unread.Mine"])


def test_a_grid_of_settings_is_checked_at_its_ends():
    assert [sampler.eta for sampler in examine.settings("ddim")] == [0.0, 1.0]
