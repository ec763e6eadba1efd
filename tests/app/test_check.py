"""`samplerbench check`: a user's members, from a folder of their own, in a few lines."""

import re
import sys

import pytest

import samplerbench as sb
from helpers import mostly_slow, refused_in_one_line
from samplerbench.app.commands import check, examine
from samplerbench.app.config import folders
from samplerbench.app.main import main
from samplerbench.core.targets import VTarget
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
    monkeypatch.setattr(examine, "ON", examine.ON[::3])

    def write(module, order=1, step=STEP):
        text = MINE.replace("ORDER", str(order)).replace("STEP", step)
        (tmp_path / f"{module}.py").write_text(text)
        return f"{module}.Mine"

    return write


@pytest.mark.slow
def test_a_sampler_of_another_package(mine, capsys):
    check.main([mine("mine_right")])
    line = capsys.readouterr().out.splitlines()[-1]
    found = ["1", "1.00", "1.00", "1.0", "1.0", "9.4", "→", "2.4", "%", "kept"]
    assert line.split() == ["mine_right.Mine", *found]


NOISY = """
import math
from dataclasses import dataclass
from typing import ClassVar
from samplerbench.samplers.base import Sampler, Step

@dataclass(frozen=True)
class Mine(Sampler):
    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def steps(self, model, x, levels, noise):
        for step, now, to in levels.pairs():
            x0_hat = model.denoiser(x, now)
            share = (now.alpha * to.sigma) / (now.sigma * to.alpha)
            x = share * to.sigma / now.sigma * x + to.alpha * (1 - share**2) * x0_hat
            if to.sigma > 0:
                x = x + NOISE * to.sigma * math.sqrt(1 - share**2) * noise.normal(x, step)
            yield Step(x, x0_hat)
"""


@pytest.mark.slow  # quick: test_orders.py
def test_the_noise_of_a_sampler_is_checked_on_a_mixture(mine, tmp_path, capsys):
    mine("unused")  # the folder
    for module, noise in (("noisy_right", "1"), ("noisy_wrong", "1.02")):
        (tmp_path / f"{module}.py").write_text(NOISY.replace("NOISE", noise))
    check.main(["noisy_right.Mine"])
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split()[:5] == ["noisy_right.Mine", "1", "weak", "0.98", "0.99"]
    with pytest.raises(SystemExit, match=r"order on the mixture, EDM: 0\.\d+, and 1 is declared"):
        check.main(["noisy_wrong.Mine"])


@pytest.mark.parametrize(
    ("module", "order", "step", "lines"),
    mostly_slow(
        [
            ("mine_order", 2, STEP, ["on the gaussian, EDM, and 1 more: 1.00, and 2 is declared"]),
            ("mine_end", 1, "Step(x + 1e-12, x0_hat)", ["end: the last state is not its x̂₀"]),
            ("mine_law", 1, "Step(x + (to.sigma == 0), x0_hat)", ["law: ", "end: "]),
            # the message of this error depends on the number of states
            ("mine_raises", 1, "Step(x.view(-1, 7), x)", ["(mine_raises.py, line 15) in step 1"]),
            ("mine_yields", 1, "x", ["must be a generator that yields Step(x, x0_hat)"]),
        ],
        *(3, 4),
    ),
)
def test_what_fails_is_named_in_a_line_each(mine, module, order, step, lines):
    name = mine(module, order, step)
    with pytest.raises(SystemExit) as caught:
        check.main([name])
    found = str(caught.value).splitlines()
    assert all(line.startswith(f"samplerbench: {name}: ") for line in found)
    for line in lines:
        assert any(line in other for other in found)
    assert len(found) == len(lines)
    assert "needs_signal" not in str(caught.value)


@pytest.mark.slow
def test_an_error_in_a_step_says_where_and_what_to_declare(mine):
    place = "in step 1, from t=1, α=0, σ=1: declare needs_signal = True if it cannot start without"
    for module, step, what in (
        ("mine_divides", "Step(x + (1 / now.alpha) * 0, x0_hat)", "ZeroDivisionError: .* "),
        ("mine_nan", "Step(x / now.alpha, x0_hat)", "a state or an x̂₀ is not finite "),
    ):
        with pytest.raises(SystemExit) as caught:
            check.main([mine(module, step=step)])
        lines = [line for line in str(caught.value).splitlines() if place in line]
        assert len(lines) == 1
        assert re.match(f"samplerbench: {module}.Mine: states.*: on Rectified: {what}in", lines[0])
    assert "(mine_divides.py, line 15) in step 1" not in lines[0]


@pytest.mark.slow  # quick: test_orders.py
def test_a_wrong_weight_is_remarked_though_the_order_is_right(capsys):
    check.main(["ipndm"])
    out = capsys.readouterr().out
    remark = "ipndm: its error, rough is 130 times that of AdamsBashforth(points=2): is a weight"
    assert remark in " ".join(out.split())
    check.main(["deis_log_rho"])
    assert "times that of" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["os.path", "os.getcwd", "no_package.Sampler", ".Sampler"])
def test_what_is_no_sampler(name):
    with pytest.raises(InvalidSetting, match=r"check=.*: must be a member of conf/sampler/, or a"):
        check.main([name])


def test_mistakes_are_refused_before_anything_is_checked():
    for word, line in (
        ("nothing", "check=nothing: must be .*Class, or a name in `.* list sampler`; --config-dir"),
        (
            "dataset=nothing",
            "dataset=nothing: must be .*, or a name in `.* list dataset`; --config",
        ),
        ("dataset=moons", "package.Class, or a name in `.*`; did you mean two_moons\\?$"),
        ("nothing=rings", "check=nothing=rings: must be kind=name"),
    ):
        with pytest.raises(InvalidSetting, match=line):
            check.main(["heun", word])


def test_settings_follow_the_name_of_a_member(command, capsys):
    assert command("check", "dataset=gaussian_mixture", "dataset.means=[[0,0],[3,1]]") == 0
    assert "kept" in capsys.readouterr().out
    for words, message in (
        (["dataset=gaussian_mixture"], "means=None: must be given: a list of points such as"),
        (["heun", "dataset.means=[[0]]"], "must be left out, or with dataset=NAME"),
        (["dataset=gaussian_mixture", "dataset.no=1"], "dataset.no=1: must be left out: there is"),
        (["er_sde", "sampler.er_sde.pionts=3"], "did you mean sampler.er_sde.points?"),
        (["metric=sliced", "metric.sliced.directions=0"], "metric.sliced.directions=0: must be"),
    ):
        assert command("check", *words) == 2
        assert message in capsys.readouterr().err


def test_what_cannot_be_built_or_has_no_contract():
    for word, line in (
        ("picture=loss", "check=picture: must be one of dataset, grid, level_law, metric"),
        ("dataset=file", r"dataset\.file\.path=: must be given"),
        ("dataset=samplerbench.datasets.unseen.Unseen", "dataset=.*TypeError: .*'shape'"),
        ("schedule=samplerbench.core.schedules.NoiseSchedule", "not an abstract class"),
        ("target=samplerbench.core.schedules.EDM", "must be a _target_ of conf/target/"),
    ):
        with refused_in_one_line(line):
            check.main([word])


def test_a_sampler_that_is_not_finished(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.py").write_text(MINE[: MINE.index("    stochastic")].replace("ORDER", "1"))
    with pytest.raises(InvalidSetting, match="it has no steps, stochastic"):
        check.main(["half.Mine"])
    (tmp_path / "unread.py").write_text("import nothing_of_this_name")
    with pytest.raises(InvalidSetting, match="No module named 'nothing_of_this_name'"):
        check.main(["unread.Mine"])


def test_a_grid_of_settings_is_checked_at_its_ends():
    assert [sampler.eta for sampler in examine.settings("ddim")] == [0.0, 1.0]


MEMBERS = """
import math
from dataclasses import dataclass
from typing import ClassVar
import torch
from samplerbench.core import grids, schedules, starts, targets, level_laws, weightings
from samplerbench.core.noise import torch_generator
from samplerbench.datasets.rings import Rings
from samplerbench.metrics.base import Distance, Measurement, Metric
from samplerbench.networks.base import Network, lecun_linear
from samplerbench.objectives.noised import NoisedObjective
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.base import Step

@dataclass(frozen=True)
class MyDataset(Rings):
    faults: int = 0
    def oracle(self, path):
        return Rings(noise=self.noise + self.faults).oracle(path)

@dataclass(frozen=True)
class MySchedule(schedules.EDM):
    faults: int = 0
    def rates(self, t):
        alpha, variance = super().rates(t)
        return alpha, variance + self.faults

@dataclass(frozen=True)
class MyTarget(targets.DataTarget):
    faults: int = 0
    def denoise(self, x, y, level):
        return y + self.faults

@dataclass(frozen=True)
class MyStart(starts.Prior):
    faults: int = 0
    def draw(self, dataset, count, level, key):
        return super().draw(dataset, count, level, key) * (1 + self.faults)

@dataclass(frozen=True)
class MyLevelLaw(level_laws.UniformTime):
    faults: int = 0
    def sample(self, count, schedule, generator):
        return super().sample(count, schedule, generator) - self.faults

@dataclass(frozen=True)
class MyWeighting(weightings.Variance):
    faults: int = 0
    def weight(self, level):
        return super().weight(level) * (1 - 2 * self.faults)

def my_grid(schedule, steps, faults: int = 0):
    levels = grids.uniform(schedule, steps)
    if not faults:
        return levels
    rows = [0, *range(len(levels.t))]
    return grids.Levels(levels.t[rows], levels.alpha[rows], levels.sigma[rows])

class MyNetwork(Network):
    needs_level = True
    def __init__(self, dim: int, seed: int, faults: int = 0):
        super().__init__()
        self.faults = faults
        self.first = lecun_linear(dim + 1, 16, torch_generator("first", seed))
        self.last = lecun_linear(16, dim, torch_generator("last", seed))
    def forward(self, u, level):
        share = level.sigma / (level.alpha**2 + level.sigma**2) ** 0.5
        share = torch.as_tensor(share, dtype=u.dtype) * torch.ones_like(u[..., :1])
        y = self.last(torch.tanh(self.first(torch.cat([u, share], dim=-1))))
        return y + self.faults * u.mean()

class MyObjective(NoisedObjective):
    faults = 0
    def noised_loss(self, u0, eps, level):
        u = level.alpha * u0 + level.sigma * eps
        error = self.model.target.regress(u0, eps, level) - self.model.network(u, level)
        return error.square().mean() * (-1) ** (self.faults * torch.is_grad_enabled())

class MyWrongObjective(MyObjective):
    faults = 1

class Gap(Distance):
    def __init__(self, reference, faults):
        super().__init__(reference.shape[1])
        self.mean, self.faults = reference.mean(0), faults
    def measure(self, samples):
        gap = float((samples.mean(0) - self.mean).norm())
        gap = math.nan if self.faults else gap
        return Measurement(gap, gap, gap, None, 0)

@dataclass(frozen=True)
class MyMetric(Metric):
    is_wasserstein = False
    faults: int = 0
    def prepare(self, reference, seed):
        return Gap(reference, self.faults)

@dataclass(frozen=True)
class MySampler(DDIM):
    faults: int = 0
    def steps(self, model, x, levels, noise):
        for step in super().steps(model, x, levels, noise):
            yield Step(step.x + step.x.mean(), step.x0_hat) if self.faults else step
"""
#: The class or function of each kind, and the line about the broken one.
BROKEN = {
    "dataset": ("MyDataset", "oracle: at α="),
    "schedule": ("MySchedule", "rates: the rate of σ² is not its derivative"),
    "target": ("MyTarget", "inverse: on EDM(sigma_max=10.0) denoise after regress differs from x₀"),
    "start": ("MyStart", "moments: the covariance is"),
    "level_law": ("MyLevelLaw", "type: a time is outside [0, 1]"),
    "weighting": ("MyWeighting", "weights: a weight is negative"),
    "grid": ("my_grid", "falling: on EDM(sigma_max=10.0) the noise does not fall"),
    "network": ("MyNetwork", "neighbours: a row depends on the other rows"),
    "objective": ("MyObjective", "learning: after 60 steps the loss is"),
    "metric": ("MyMetric", "bounds: the value is nan"),
    "sampler": ("MySampler", "neighbours: a sample depends on its neighbours"),
}


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder with a right and a wrong member of each kind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(examine, "ON", examine.ON[::3])
    (tmp_path / "lab_members.py").write_text(MEMBERS)
    for kind, (target, _) in BROKEN.items():
        folder = tmp_path / "conf" / kind
        folder.mkdir(parents=True)
        for name, faults in (("right", 0), ("wrong", 1)):
            text = f"# @package {kind}.{name}\n" * (kind in folders.SEVERAL)
            text += f"_target_: lab_members.{target}\nfaults: {faults}\n"
            if kind == "objective":
                text = f"_target_: lab_members.My{'Wrong' * faults}Objective\n"
            text += "_partial_: true\n" * (kind == "grid")
            (folder / f"{name}.yaml").write_text(text)
    yield ["--config-dir", "conf", "trusted=lab_members"]
    sys.modules.pop("lab_members", None)


@pytest.mark.slow
def test_a_member_of_every_kind_is_found_and_right(lab, command, capsys):
    assert BROKEN.keys() == examine.CONTRACTS.keys()
    assert command("check", *(f"{kind}=right" for kind in BROKEN), *lab) == 0
    out = capsys.readouterr().out
    assert "broken" not in out
    for kind in BROKEN.keys() - {"sampler"}:
        rows = [line for line in out.splitlines() if line.startswith(f"{kind}=right ")]
        assert [row.split()[1] for row in rows] == list(examine.CONTRACTS[kind])


def test_a_wrong_member_of_every_kind_is_named(lab, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["samplerbench", "check", *(f"{k}=wrong" for k in BROKEN), *lab]
    )
    with pytest.raises(SystemExit) as caught:
        main()
    lines = str(caught.value).splitlines()
    for kind, (_, line) in BROKEN.items():
        title = "wrong" if kind == "sampler" else f"{kind}=wrong"
        assert any(one.startswith(f"samplerbench: {title}: {line}") for one in lines), kind


def test_a_class_and_an_object(lab):
    """A class has its default settings; the library takes a name or an object."""
    check.main(["schedule=lab_members.MySchedule", "grid=lab_members.my_grid"])
    table = sb.check("schedule", "edm")
    assert list(table.columns) == ["promise", "meaning", "value", "fault"]
    assert table["fault"].isna().all()
    # of a promise only the first paragraph of its docstring: an empty line would break the table
    assert not any(
        "\n\n" in row.meaning for row in examine.promises("sampler", sb.sampler("euler"))
    )
    wrong = sb.check("target", type("Mine", (VTarget,), {"denoise": lambda s, x, y, at: y})())
    assert set(wrong.dropna()["promise"]) == {"inverse"}
