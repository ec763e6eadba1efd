"""What of the config is used and what is refused, before any work."""

import pytest
from hydra.core.global_hydra import GlobalHydra

from samplerbench.app.config.folders import conf_directory
from samplerbench.app.config.groups import nodes
from samplerbench.app.job.build import build, chosen_block, networks
from samplerbench.core.grids import Level
from samplerbench.errors import InvalidSetting

FEW = ["n_train=50", "n_validation=10", "n_reference=50", "n_samples=50"]
HELD = ["objective=hyvarinen", "grid=hold", "start=gaussian"]


def test_a_member_of_an_experiment_can_be_dropped(composed):
    words = ["experiment=n0/annealed", "sampler=[annealed_langevin]", "picture=[]"]
    config = composed(*words, "metric=[share_left]", *FEW)
    assert "ddim" in config.sampler, "the experiment has settings for it"
    job = build(config, {}, "test")
    assert [name for name, _ in job.sweep.samplers] == ["annealed_langevin"]
    assert list(job.sweep.metrics) == ["share_left"]
    assert not job.pictures


@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        ("n0/chain", ["start=prior"]),  # its start has a width, its picture a k
        ("n0/chain", ["picture=[samples]"]),
        ("shapes/samplers", ["metric=sliced", "sampler=heun"]),
        ("shapes/samplers", ["metric=max_sliced"]),
        ("images/ddim_table", ["network=unet", "trainer=digits"]),
    ],
)
def test_what_an_experiment_chose_can_be_replaced(composed, experiment, words):
    assert build(composed(f"experiment={experiment}", *words, *FEW), {}, "test")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+sampler.dimm.eta=1"], r"^sampler\.dimm=.* dimm is not in sampler=\[ddim\]$"),
        (["+metric.slicd.p=1"], r"^metric\.slicd=.* slicd is not in metric="),
        (["+start.exakt.std=1"], r"^start\.exakt=.*\[prior,exact\]$"),
        (["+picture.sampels.chains=9"], r"^picture\.sampels=.*picture=\[\]$"),
        # known, but not chosen, and asked for by the user
        (["+sampler.heun.order=1"], r"^sampler\.heun=.* heun is not in sampler=\[ddim\]$"),
        (
            ["experiment=n0/annealed", "sampler=[annealed_langevin]", "sampler.ddim.eta=0"],
            r"^sampler\.ddim=.* ddim is not in sampler=\[annealed_langevin\]$",
        ),
    ],
)
def test_settings_of_what_is_not_chosen_are_refused_by_name(composed, words, message):
    with pytest.raises(InvalidSetting, match=message):
        build(composed(*words), {}, "test")


@pytest.mark.parametrize(
    ("words", "shape", "rows"),
    [
        ([], (2,), 2000),
        ([], (784,), 2000),
        ([], (1, 8, 8), 100),
        ([], (3, 32, 32), 100),
        ([], (3, 256, 256), 5),
        ([], (3, 1024, 1024), 1),
        (["block=7"], (1, 8, 8), 7),
        (["n_samples=10"], (1, 8, 8), 100),  # n decides nothing
        (["n_samples=10"], (2,), 2000),
    ],
)
def test_the_shape_of_the_data_decides_how_many_rows_a_block_has(composed, words, shape, rows):
    assert chosen_block(composed(*words), shape) == rows


@pytest.mark.parametrize("block", ["0", "-1", "2.5", "many", "[1,2]"])
def test_no_number_of_rows(composed, block):
    with pytest.raises(InvalidSetting, match=r"^block="):
        build(composed(f"block={block}"), {}, "test")


def test_a_stored_config_is_not_asked_again(composed):
    words = ["experiment=n0/annealed", "sampler=[annealed_langevin]", "sampler.ddim.eta=0"]
    config = composed(*words)
    GlobalHydra.instance().clear()
    assert list(nodes(config, "sampler")) == ["annealed_langevin"]


def test_a_sampler_that_cannot_run_leaves_the_others_alone(composed):
    words = ["sampler=[ula,ddim]", "steps=4", "repetitions=1", "sampler.ddim.eta=0"]
    sweep = build(composed(*HELD, *words, *FEW), {}, "test").sweep
    cells = [cell for cell in sweep.cells() if cell.denoiser == "learned"]
    drawn = {cell.sampler: sweep.draw(cell) for cell in cells}
    assert {name: one.status for name, one in drawn.items()} == {
        "ula": "ok",
        "ddim": "incompatible",
    }
    assert "one level" in drawn["ddim"].message


@pytest.mark.parametrize("sampler", ["[ddim]", "[ddim,heun]"])
def test_where_none_can_run_that_is_refused(composed, sampler):
    with pytest.raises(InvalidSetting, match=r"^sampler=ddim: .*one level"):
        build(composed(*HELD, f"sampler={sampler}", *FEW), {}, "test")


def test_a_training_for_nothing_is_refused(composed):
    # on the exact score both can run
    words = ["objective=hyvarinen", "sampler=[ddim,heun]", "denoiser=[learned,oracle]"]
    with pytest.raises(InvalidSetting, match=r"^sampler=ddim: .*one level"):
        build(composed(*words, *FEW), {}, "test")


@pytest.mark.parametrize(
    ("objective", "network", "others"),
    [("hyvarinen", "ncsn_mlp", False), ("ncsn", "smooth_mlp", True)],
)
def test_every_network_that_would_do_is_named(composed, objective, network, others):
    words = [*HELD, f"objective={objective}", f"network={network}", "sampler=ula"]
    with pytest.raises(InvalidSetting) as caught:
        build(composed(*words, *FEW), {}, "test")
    named = caught.value.allowed.partition(": ")[2].split(", ")
    assert caught.value.field == "network"
    assert named == [name for name, level in networks().items() if level == others]


def test_networks_are_those_of_the_folder():
    assert set(networks()) == {path.stem for path in (conf_directory() / "network").glob("*.yaml")}
    assert not networks()["smooth_mlp"]
    assert networks()["time_mlp"]


@pytest.mark.parametrize("sampler", ["mala", "ddim"])
def test_what_a_score_lacks_is_said_in_words(composed, sampler):
    with pytest.raises(InvalidSetting) as caught:
        build(composed(*HELD, f"sampler={sampler}", *FEW), {}, "test")
    assert "LevelFree" not in str(caught.value)


def test_the_empirical_denoiser_is_of_the_training_points(composed):
    """With a data_seed of its own: where next to no noise is left it returns them."""
    words = ("experiment=tiny", "denoiser=[learned,empirical]", "seed=3", "data_seed=5")
    job = build(composed(*words, "logger=none", "n_train=50"), {}, "x")
    assert job.training is not None
    points = job.training.data.x0.double()
    model = job.sweep.denoisers["empirical"]
    x0_hat = model.denoiser(points + 1e-7, Level(0.0, 1.0, 1e-4))
    assert (x0_hat - points).abs().max() < 1e-5
    other = build(composed(*words[:3], "data_seed=6", "logger=none", "n_train=50"), {}, "x")
    assert job.sweep.origins["empirical"].id != other.sweep.origins["empirical"].id


def test_points_of_another_data_seed_are_another_reference(composed):
    """Also training points, which a budget measures to where no law is known."""
    words = (
        "experiment=tiny",
        "dataset=four_well",
        "metric=sliced",
        "denoiser=oracle",
        "logger=none",
    )
    budget = ("+budget.converged_steps=20", "+budget.tolerance=0.5", "start=exact", "steps=4")
    ids = []
    for data_seed in (0, 1):
        job = build(composed(*words, *budget, f"data_seed={data_seed}"), {}, "x")
        assert job.budget is not None
        rows = job.budget.run()
        ids.append({(row.reference, row.cell_id) for row in rows})
    shared = {reference for reference, _ in ids[0] & ids[1]}
    assert "training" in {reference for reference, _ in ids[0]}
    assert shared == {"doubled", "converged"}  # of samples, which data_seed does not decide
