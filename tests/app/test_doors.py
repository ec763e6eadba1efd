"""The library and `samplerbench sample` refuse whatever a job refuses, in the same words."""

import pytest
from hydra.core.global_hydra import GlobalHydra

import samplerbench as sb
from helpers import mostly_slow
from samplerbench.app.job.build import build
from samplerbench.errors import InvalidSetting

TINY = {"n_train": 200, "n_validation": 50, "n_reference": 300, "trainer.batch_size": 32}
QUICK = "experiment=tiny logger=none cache=off trainer.steps=2 n_train=200"
WIDE = TINY | {"schedule.sigma_max": 80.0, "level_law.maximum": 10.0}
KARRAS = {noise: sb.grid("karras", noise_max=noise) for noise in (10.0, 20.0)}
THREE = sb.grid("custom", ratios=[8.0, 1.0, 0.1])

#: Words of the command, a part of what every door says, and the settings of `train` (None where
#: nothing is trained), `sweep` and `sample` (None where it has no such question).
CASES = [
    (
        "schedule.sigma_max=80 level_law.maximum=10 denoiser=learned",
        "is trained up to σ/α = 10 and the grid begins at 80",
        {"settings": WIDE},
        {},
        {"sampler": sb.sampler("ddim", eta=0.0)},
    ),
    (
        "schedule.sigma_max=80 level_law.maximum=10 grid.noise_max=10 sampler=edm_churn "
        "denoiser=learned",
        "is trained up to σ/α = 10 and EDMChurn needs",
        {"settings": WIDE},
        {"samplers": "edm_churn", "grid": KARRAS[10.0]},
        {"sampler": "edm_churn", "grid": KARRAS[10.0]},
    ),
    (
        "objective=vp_noise schedule=rectified grid=uniform denoiser=learned",
        "α = 0",
        {"objective": "vp_noise", "schedule": "rectified", "settings": TINY},
        {"grid": "uniform"},
        {"sampler": sb.sampler("ddim", eta=0.0), "grid": "uniform"},
    ),
    (
        "objective=single_level network=smooth_mlp trainer=single_level denoiser=learned",
        "needs a denoiser for every noise level",
        {"objective": "single_level", "settings": TINY},
        {},
        {"sampler": sb.sampler("ddim", eta=0.0)},
    ),
    (
        "schedule=rectified grid=uniform sampler=reverse_sde denoiser=oracle",
        "is undefined where no signal is left",
        None,
        {"schedule": "rectified", "grid": "uniform", "samplers": "reverse_sde"},
        {"schedule": "rectified", "grid": "uniform", "sampler": "reverse_sde"},
    ),
    (
        "sampler=heun grid=hold denoiser=oracle",
        "goes from level to level and these stand still",
        None,
        {"samplers": "heun", "grid": "hold"},
        {"sampler": "heun", "grid": "hold"},
    ),
    (
        "sampler=mala grid=hold denoiser=learned",
        "needs the log-density",
        {"settings": TINY},
        {"samplers": "mala", "grid": "hold"},
        {"sampler": "mala", "grid": "hold"},
    ),
    (
        "dataset=four_well start=exact_sobol metric=sliced denoiser=learned",
        "cannot be drawn from given uniform numbers",
        {"settings": TINY},
        {"starts": "exact_sobol", "metrics": "sliced"},
        {"sampler": sb.sampler("ddim", eta=0.0), "start": "exact_sobol"},
    ),
    ("metric=w_law_1d denoiser=oracle", "needs 1-D data", None, {"metrics": "w_law_1d"}, None),
    (
        "dataset=rings metric=mode_weights denoiser=oracle",
        "needs a Gaussian mixture",
        None,
        {"metrics": "mode_weights"},
        None,
    ),
    (
        "sampler=mala grid=hold nfe=[1] denoiser=oracle",
        "at least 4, the cost of one step of mala",
        None,
        {"samplers": "mala", "grid": "hold", "nfe": 1},
        None,
    ),
    ("steps=[4,4] denoiser=oracle", "none twice", None, {"steps": [4, 4]}, None),
    (
        "grid.noise_max=20 denoiser=oracle",
        "at most 10, the schedule's σ/α at t=1",
        None,
        {"grid": KARRAS[20.0]},
        {"sampler": "heun", "grid": KARRAS[20.0]},
    ),
    (
        "grid=custom grid.ratios=[8,1,0.1] steps=[4] denoiser=oracle",
        "3, the number of grid.ratios",
        None,
        {"grid": THREE, "steps": 4},
        {"sampler": "heun", "grid": THREE, "steps": 4},
    ),
    ("repetitions=1000000 denoiser=oracle", "most 1,000,000", None, {"repetitions": 10**6}, None),
]


#: Also in the default suite: one door after a training, and most without one.
QUICK_CASES = (0, 4, 5, 8, 9, 10, 11, 12, 14)


@pytest.mark.parametrize(
    "case", mostly_slow([(case,) for case in CASES], *QUICK_CASES), ids=[case[0] for case in CASES]
)
def test_what_the_command_refuses_the_library_refuses(composed, case):
    words, allowed, training, sweep, sample = case
    law = words.split()[0].removeprefix("dataset=") if "dataset=" in words else "grid_mixture"
    with pytest.raises(InvalidSetting) as refused:
        build(composed(*QUICK.split(), *words.split()), {}, "test")
    assert allowed in str(refused.value)
    GlobalHydra.instance().clear()  # the library composes configs of its own
    model = law if training is None else sb.train(law, steps=2, **training)
    for door, settings in ((sb.sweep, sweep), (sb.sample, sample)):
        if settings is None:
            continue
        needed = {"steps": 4, "n": 20} if door is sb.sample else {}
        with pytest.raises(InvalidSetting) as refused:
            door(model, **needed | settings)
        assert allowed in str(refused.value), door.__name__
