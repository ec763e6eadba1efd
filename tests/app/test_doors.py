"""Whatever the command refuses, the library and `samplerbench sample` refuse, in the same words."""

from dataclasses import dataclass, field
from typing import Any

import pytest

import samplerbench as sb
from samplerbench.errors import InvalidSetting

TINY = {"n_train": 200, "n_validation": 50, "n_reference": 300, "trainer.batch_size": 32}
QUICK = ["experiment=tiny", "logger=none", "cache=off", "trainer.steps=2", "n_train=200"]


@dataclass(frozen=True)
class Refused:
    """Something that no door lets through.

    Args:
        words: of the command.
        allowed: a part of what every door says.
        law: of the library.
        train: settings of `train`; None where nothing is trained.
        sweep: settings of `sweep`.
        sample: settings of `sample`; None where it has no such question.
    """

    words: list[str]
    allowed: str
    law: str = "grid_mixture"
    train: dict[str, Any] | None = None
    sweep: dict[str, Any] = field(default_factory=dict)
    sample: dict[str, Any] | None = None


CASES = {
    "more noise than was trained": Refused(
        ["schedule.sigma_max=80", "level_law.maximum=10", "denoiser=learned"],
        "is trained up to σ/α = 10 and the grid begins at 80",
        train={"settings": {**TINY, "schedule.sigma_max": 80.0, "level_law.maximum": 10.0}},
        sample={"sampler": sb.sampler("ddim", eta=0.0)},
    ),
    "more noise than was trained, by a sampler": Refused(
        [
            *("schedule.sigma_max=80", "level_law.maximum=10", "grid.noise_max=10"),
            *("sampler=edm_churn", "denoiser=learned"),
        ],
        "is trained up to σ/α = 10 and EDMChurn asks for",
        train={"settings": {**TINY, "schedule.sigma_max": 80.0, "level_law.maximum": 10.0}},
        sweep={"samplers": "edm_churn", "grid": sb.grid("karras", noise_max=10.0)},
        sample={"sampler": "edm_churn", "grid": sb.grid("karras", noise_max=10.0)},
    ),
    "a target without signal": Refused(
        ["objective=vp_noise", "schedule=rectified", "grid=uniform", "denoiser=learned"],
        "α = 0",
        train={"objective": "vp_noise", "schedule": "rectified", "settings": TINY},
        sweep={"grid": "uniform"},
        sample={"sampler": sb.sampler("ddim", eta=0.0), "grid": "uniform"},
    ),
    "a score of one level on a path": Refused(
        [
            "objective=single_level",
            "network=smooth_mlp",
            "trainer=single_level",
            "denoiser=learned",
        ],
        "needs a denoiser for every noise level",
        train={"objective": "single_level", "settings": TINY},
        sample={"sampler": sb.sampler("ddim", eta=0.0)},
    ),
    "no signal at the start": Refused(
        ["schedule=rectified", "grid=uniform", "sampler=reverse_sde", "denoiser=oracle"],
        "is undefined where no signal is left",
        sweep={"schedule": "rectified", "grid": "uniform", "samplers": "reverse_sde"},
        sample={"schedule": "rectified", "grid": "uniform", "sampler": "reverse_sde"},
    ),
    "a level that is held": Refused(
        ["sampler=heun", "grid=hold", "denoiser=oracle"],
        "goes from level to level and these stand still",
        sweep={"samplers": "heun", "grid": "hold"},
        sample={"sampler": "heun", "grid": "hold"},
    ),
    "a density that is not known": Refused(
        ["sampler=mala", "grid=hold", "denoiser=learned"],
        "needs the log-density",
        train={"settings": TINY},
        sweep={"samplers": "mala", "grid": "hold"},
        sample={"sampler": "mala", "grid": "hold"},
    ),
    "even starts of data that are no map of the cube": Refused(
        ["dataset=four_well", "start=exact_sobol", "metric=sliced", "denoiser=learned"],
        "cannot be drawn from given uniform numbers",
        law="four_well",
        train={"settings": {**TINY, "n_train": 200}},
        sweep={"starts": "exact_sobol", "metrics": "sliced"},
        sample={"sampler": sb.sampler("ddim", eta=0.0), "start": "exact_sobol"},
    ),
    "a metric of another dimension": Refused(
        ["metric=w_law_1d", "denoiser=oracle"], "needs 1-D data", sweep={"metrics": "w_law_1d"}
    ),
    "a law without modes": Refused(
        ["dataset=rings", "metric=mode_weights", "denoiser=oracle"],
        "needs a Gaussian mixture",
        law="rings",
        sweep={"metrics": "mode_weights"},
    ),
    "too few evaluations for a step": Refused(
        ["sampler=mala", "grid=hold", "nfe=[1]", "denoiser=oracle"],
        "at least 4, what one step of mala takes",
        sweep={"samplers": "mala", "grid": "hold", "nfe": 1},
    ),
    "a number of steps twice": Refused(
        ["steps=[4,4]", "denoiser=oracle"], "none twice", sweep={"steps": [4, 4]}
    ),
    "a grid that is not on the path": Refused(
        ["grid.noise_max=20", "denoiser=oracle"],
        "at most 10, the schedule's σ/α at t=1",
        sweep={"grid": sb.grid("karras", noise_max=20.0)},
        sample={"sampler": "heun", "grid": sb.grid("karras", noise_max=20.0)},
    ),
    "steps that a grid does not have": Refused(
        ["grid=custom", "grid.ratios=[8,1,0.1]", "steps=[4]", "denoiser=oracle"],
        "3, the number of grid.ratios",
        sweep={"grid": sb.grid("custom", ratios=[8.0, 1.0, 0.1]), "steps": 4},
        sample={"sampler": "heun", "grid": sb.grid("custom", ratios=[8.0, 1.0, 0.1]), "steps": 4},
    ),
    "too many values": Refused(
        ["repetitions=1000000", "denoiser=oracle"],
        "a job has at most 1,000,000",
        sweep={"repetitions": 10**6},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_the_command_refuses_the_library_refuses(name, command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    case = CASES[name]
    assert command(*QUICK, f"dataset={case.law}", *case.words) == 2
    line = capsys.readouterr().err
    assert case.allowed in line
    assert line.count("\n") == 1
    model: Any = case.law
    if case.train is not None:
        model = sb.train(case.law, steps=2, **case.train)
    for door, settings in ((sb.sweep, case.sweep), (sb.sample, case.sample)):
        if settings is None:
            continue
        needed = {"steps": 4, "n": 20} if door is sb.sample else {}
        with pytest.raises(InvalidSetting) as refused:
            door(model, **needed | settings)
        assert case.allowed in str(refused.value), door.__name__
