"""Keys of the config that are used or refused, before any work."""

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from helpers import mostly_slow, refused_in_one_line
from samplerbench.app.config.construct import construct, construct_grid, read_member
from samplerbench.app.config.folders import conf_directory, member_files
from samplerbench.app.config.groups import chosen_nodes, drop_settings_of_replaced
from samplerbench.app.config.numbers import check_numbers, whole_number, whole_numbers
from samplerbench.app.job import basis
from samplerbench.app.job.basis import chosen_block
from samplerbench.app.job.build import build
from samplerbench.app.job.training import networks
from samplerbench.core.grids import Level
from samplerbench.datasets.gaussian_spectrum import GaussianSpectrum
from samplerbench.errors import InvalidSetting
from samplerbench.figures.common import Look
from samplerbench.objectives import base as objectives

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


@pytest.mark.slow
def test_what_an_experiment_chose_can_be_replaced(composed):
    for experiment, *words in (
        ("n0/chain", "start=prior", "picture=[samples]"),  # its start has a width, its picture a k
        ("shapes/samplers", "metric=sliced", "sampler=heun"),
    ):
        assert build(composed(f"experiment={experiment}", *words, *FEW), {}, "test")


@pytest.mark.parametrize(
    ("experiment", "word", "dropped", "kept"),
    mostly_slow(
        [
            ("digits", "level_law=uniform_time", ["mean", "std", "minimum"], {"t_max": 1.0}),
            ("images/edm", "level_law=log_uniform", ["mean", "std"], {"minimum": 0.02}),
            ("digits", "network=pixel_mlp", ["level"], {"width": 384}),
            ("n1/ddim", "grid=log_snr", [], {}),
        ],
        0,
    ),
)
def test_settings_for_a_replaced_member_go_with_it(composed, experiment, word, dropped, kept):
    words = [f"experiment={experiment}", word, *FEW]
    group = word.partition("=")[0]
    config = composed(*words)
    assert set(dropped) <= set(config[group]), "the experiment has them"
    drop_settings_of_replaced(config)
    assert not set(dropped) & set(config[group])
    assert kept.items() <= dict(config[group]).items()
    assert build(config, {}, "test").training is not None
    if dropped:  # typed, so it is a mistake
        config = composed(*words, f"{group}.{dropped[0]}=1")
        drop_settings_of_replaced(config)
        with pytest.raises(InvalidSetting, match=rf"^{group}\.{dropped[0]}=1.*must be left out"):
            build(config, {}, "test")


def test_settings_of_what_is_not_chosen_are_refused_by_name(composed):
    annealed = ["experiment=n0/annealed", "sampler=[annealed_langevin]"]
    for words, message in (
        (["+sampler.dimm.eta=1"], r"^sampler\.dimm=.* dimm is not in sampler=\[ddim\]$"),
        (["+metric.slicd.p=1"], r"^metric\.slicd=.* slicd is not in metric="),
        (["+start.exakt.std=1"], r"^start\.exakt=.*\[prior,exact\]$"),
        (["+picture.sampels.chains=9"], r"^picture\.sampels=.*picture=\[\]$"),
        # known but not chosen, and set by the user
        (["+sampler.heun.order=1"], r"^sampler\.heun=.* heun is not in sampler=\[ddim\]$"),
        ([*annealed, "sampler.ddim.eta=0"], r"^sampler\.ddim=.*sampler=\[annealed_langevin\]$"),
    ):
        config = composed(*words)
        with pytest.raises(InvalidSetting, match=message):
            build(config, {}, "test")
    GlobalHydra.instance().clear()  # a stored config was accepted when it was run
    assert list(chosen_nodes(config, "sampler")) == ["annealed_langevin"]


@pytest.fixture
def small(tmp_path):
    """The words for a file of 200 rows."""
    path = tmp_path / "small.csv"
    np.savetxt(path, np.random.default_rng(0).normal(size=(200, 2)), delimiter=",")
    return ["dataset=file", f"dataset.path={path}"]


@pytest.mark.slow
def test_a_small_file_gives_all_its_rows_unless_a_number_was_typed(composed, small, monkeypatch):
    job = build(composed(*small), {}, "test")
    assert job.all_rows == {"n_train": 100, "n_validation": 20, "n_reference": 40}
    assert [len(x) for x in (job.training.data.x0, job.training.data.validation)] == [100, 20]
    assert len(job.sweep.reference) == 40
    typed = build(composed(*small, "n_train=100", "n_validation=20"), {}, "test")
    origins = [one.sweep.origins["learned"] for one in (job, typed)]
    assert origins[0] == origins[1], "one training, whoever chose the number of its rows"
    assert build(composed(*small, "denoiser=oracle"), {}, "test").all_rows == {"n_reference": 40}
    assert not build(composed(*FEW), {}, "test").all_rows
    monkeypatch.setattr(basis, "is_typed", lambda key: key in ("n_train", "n_validation"))
    with pytest.raises(InvalidSetting) as refused:
        build(composed(*small, "n_train=900", "n_validation=80"), {}, "test")
    assert str(refused.value) == (
        "n_train=900, n_validation=80: must be at most the rows of these parts of the data set: "
        "n_train=100, n_validation=20"
    )


def test_the_shape_of_the_data_decides_how_many_rows_a_block_has():
    config = OmegaConf.create({"block": None, "n_samples": 10})  # n is irrelevant here
    for shape, rows in (
        ((2,), 2000),
        ((784,), 2000),
        ((1, 8, 8), 100),
        ((3, 32, 32), 100),
        ((3, 256, 256), 5),
        ((3, 1024, 1024), 1),
    ):
        assert chosen_block(config, shape) == rows
    assert chosen_block(OmegaConf.create({"block": 7}), (1, 8, 8)) == 7


def test_whole_numbers_have_limits(composed):
    for key, value, allowed in (
        ("n_samples", 0, "n_samples=0: must be at least 1"),
        ("n_samples", True, "n_samples=True: must be a number"),
        ("repetitions", -1, "repetitions=-1: must be at least 1"),
        ("block", 2.5, "block=2.5: must be a valid integer"),
        ("block", [1, 2], "block="),
        ("workers", 0, "workers=0: must be at least 1"),
        ("workers", 1025, "workers=1025: must be at most 1,024"),
        ("seed", "one", "seed=one: must be a valid integer"),
        ("seed", -1, "seed=-1: must be at least 0"),
        ("seed", 10**20, "seed=1"),
        ("n_train", 2**39, "the memory of this machine"),
    ):
        with pytest.raises(InvalidSetting) as caught:
            whole_number(OmegaConf.create({key: value}), key)
        assert str(caught.value).startswith(allowed) or allowed in str(caught.value)
    for value, allowed in (
        ([4, 4], "none twice"),
        (2.5, "integer"),
        ([10**7], "at most 1,000,000"),
    ):
        with pytest.raises(InvalidSetting, match=allowed):
            whole_numbers(OmegaConf.create({"steps": value}), "steps")
    config = composed()
    check_numbers(config)
    for key, value in (("steps", [4, 0]), ("block", 0), ("floor_repetitions", -1)):
        with pytest.raises(InvalidSetting, match=f"^{key}="):
            check_numbers(OmegaConf.merge(config, {key: value}))


def test_settings_of_members_are_checked_by_the_members():
    for key, value, message in (
        ("sampler.ddim.eta", [0, -1], r"eta=-1.*at least 0"),
        ("sampler.ddim.eta", "abc", r"eta=abc.*number"),
        ("sampler.ddim.eta", [], r"eta=\[\].*at least one"),
        ("sampler.ddim.eta", [0, 0.0], "without repetitions"),
        ("sampler.ddim.etta", 1, r"^sampler\.ddim\.etta=1.*eta"),
        ("schedule.edm.sigma_max", -3, r"sigma_max=-3.*positive"),
        ("dataset.gaussian.covariance", [[1, 0], [0, -1]], "semi-def"),
        ("dataset.gaussian.mean", [], "dimension"),
        ("dataset.gaussian.mean", "abc", "mean=abc: must be a list"),
        ("metric.max_sliced_certified.relative_tolerance", -1, "relative_tolerance=-1.*least 0"),
        ("trainer.default.lr", -1, r"lr=-1.*positive"),
        ("logger.wandb.mode", "foo", "mode=foo.*'offline'"),
        ("schedule.edm._target_", "samplerbench.nope.X", "_target_"),
    ):
        group, name, setting = key.split(".")
        node = read_member(member_files(group)[name])
        node[setting] = value
        with pytest.raises(InvalidSetting, match=message):
            (construct_grid if group == "sampler" else construct)(node, f"{group}.{name}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("steps=[]", r"^steps=\[\].*numbers of steps"),
        ("metric=[]", r"^metric=\[\].*at least one member"),
        ("start=[]", r"^start=\[\].*at least one member"),
        ("grid.noise_min=-0.1", "noise_min=-0.1.*positive"),
        ("schedule=vp_cosine grid.noise_max=inf", "noise_max=inf.*finite"),
        ("target=noise schedule=rectified grid=uniform", "denoiser=learned.*NoiseTarget is undef"),
        ("budget=true", "^budget=True.*converged_steps"),
        ("device=meta", "^device=meta.*cpu"),
        ("graphs=true", "^graphs=True.*device=cuda"),
        ("dtype=float8", "^dtype=float8.*float64"),
        ("denoiser=orakel", "^denoiser=orakel.*oracle"),
        ("denoiser=[]", r"^denoiser=\[\].*oracle"),
        ("denoiser=[oracle,oracle]", "must be one or several of .*, each named once"),
        ("dataset=gaussian dataset.mean=[0] dataset.covariance=[[1]]", "^metric=max_sliced_cert"),
        ("wanted=0", "^wanted=0.*positive"),
        ("experiment=budget budget.tolerance=-1", r"^budget\.tolerance=-1.*positive"),
        ("experiment=budget denoiser=learned", "^denoiser=.*oracle"),
        ("experiment=budget start=prior", "^start=.*exact"),
        ("experiment=budget repetitions=1", "^repetitions=1.*at least 2"),
        ("dataset=file dataset.path=no.npy", r"^dataset\.path=no\.npy"),
        ("dataset=pinwheel", "^denoiser=oracle.*learned"),
        ("objective=hyvarinen", "^sampler=ddim: .* one level: use sampler=ula"),
        ("objective=ncsn schedule.sigma_max=80", "^sampler=ddim: .* up to σ/α = 10"),
        ("sampler=ula", "^sampler=ula: .* use grid=hold"),
        ("sampler=ula grid=hold grid.noise=50", r"^grid\.noise=50.0: .* at most 10"),
        ("objective=hyvarinen sampler=ula grid=hold grid.noise=1", "learned only"),
        ("objective=hyvarinen sampler=[ddim,heun] denoiser=[learned,oracle]", "^sampler=ddim: .*"),
        ("metric=exact_w2", "^metric=exact_w2: .* more than max_pairs"),
        ("dataset=two_moons reference_noise=1", "^reference_noise=1.0: .* mixtures only"),
        ("picture=band_1d", "^picture=band_1d: .* 1 dimension"),
        ("steps=4 nfe=8", "^steps=4: must be left out beside nfe, which determines the numbers"),
        ("steps=null", "^steps=None: must be numbers of steps, or null with nfe given"),
        ("sweeper_metric=exact_w2", "^sweeper_metric=exact_w2: must be null or one of the metr"),
    ],
)
def test_what_cannot_work_is_said_before_any_work(composed, words, message):
    with refused_in_one_line(message):
        build(composed("n_train=50", "n_validation=10", *words.split()), {}, "test")


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
    for words in (["sampler=[ddim]"], ["sampler=[ddim,heun]"], ["sampler=mala"]):
        with pytest.raises(InvalidSetting, match=r"^sampler=") as caught:
            build(composed(*HELD, *words, *FEW), {}, "test")
        assert "LevelFree" not in str(caught.value)


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
    assert set(networks()) == {path.stem for path in (conf_directory() / "network").glob("*.yaml")}


def test_the_empirical_denoiser_is_of_the_training_points(composed):
    """It has its own data_seed: with almost no noise it returns the training points."""
    words = ("experiment=tiny", "denoiser=[learned,empirical]", "seed=3", "data_seed=5")
    job = build(composed(*words, "logger=none", "n_train=50"), {}, "x")
    assert job.training is not None
    points = job.training.data.x0.double()
    model = job.sweep.denoisers["empirical"]
    x0_hat = model.denoiser(points + 1e-7, Level(0.0, 1.0, 1e-4))
    assert (x0_hat - points).abs().max() < 1e-5
    other = build(composed(*words[:3], "data_seed=6", "logger=none", "n_train=50"), {}, "x")
    assert job.sweep.origins["empirical"].id != other.sweep.origins["empirical"].id


@pytest.mark.slow
def test_points_of_another_data_seed_are_another_reference(composed):
    """The training points of a budget differ too; they are used if the law is not known."""
    words = ("experiment=tiny", "dataset=four_well", "metric=sliced", "denoiser=oracle", *FEW)
    budget = ("+budget.converged_steps=8", "+budget.tolerance=0.5", "start=exact", "steps=4")
    few = ("sampler.ddim.eta=0", "floor_repetitions=0", "block=50", "logger=none")
    ids = []
    for data_seed in (0, 1):
        job = build(composed(*words, *budget, *few, f"data_seed={data_seed}"), {}, "x")
        assert job.budget is not None
        ids.append({(row.reference, row.cell_id) for row in job.budget.run()})
    assert "training" in {reference for reference, _ in ids[0]}
    shared = {reference for reference, _ in ids[0] & ids[1]}
    assert shared == {"doubled", "converged"}  # of samples, which do not depend on data_seed


def test_figures_have_one_setting(composed):
    assert build(composed(*FEW), {}, "test").look == Look()
    words = ["figure.style=column", "figure.format=[png,pdf,svg]", "figure.font=7"]
    chosen = build(composed(*FEW, *words), {}, "test").look
    assert chosen == Look("column", ("png", "pdf", "svg"), 7.0)


@pytest.mark.parametrize(
    "word", ["figure.style=poster", "figure.format=[png,tiff]", "figure.font=big", "figure.width=0"]
)
def test_another_look_is_refused_before_any_work(composed, word):
    with pytest.raises(InvalidSetting, match=word.partition("=")[0]):
        build(composed(*FEW, word), {}, "test")


@pytest.mark.parametrize(
    ("words", "has"),
    [
        ((), True),
        (("experiment=tiny",), False),
        (("experiment=tiny", "floor_free=true"), True),
        (("experiment=budget", "floor_free=true"), False),  # it shows that itself
        (("law=gaussian_twin", "metric=w2_law_gaussian", "denoiser=oracle"), False),
    ],
)
def test_the_main_job_has_what_its_floor_hides(composed, words, has):
    job = build(composed(*words), {}, "test")
    assert (job.floor_free is not None) is has


def test_the_budget_of_images_is_that_of_the_network_of_the_table(composed):
    budget, table = (composed(f"experiment=images/{name}") for name in ("budget", "ddim_table"))
    for key in ("trainer", "network", "objective", "target", "schedule"):
        assert budget[key] == table[key]


def test_edm_on_images_has_the_training_of_the_digits(composed):
    edm, digits = (composed(f"experiment={name}") for name in ("images/edm", "digits"))
    assert edm["trainer"] == digits["trainer"]


def test_the_gaussian_twin_replaces_the_law_of_a_data_set(composed):
    words = ["law=gaussian_twin", "dataset=two_moons", "denoiser=oracle", "metric=kl_law_gaussian"]
    sweep = build(composed(*words), {"dataset": "two_moons"}, "test").sweep
    assert isinstance(sweep.dataset, GaussianSpectrum)
    assert sweep.labels.dataset == "Gaussian twin of two_moons"
    with pytest.raises(InvalidSetting, match=r"^law=twin: must be null or gaussian_twin$"):
        build(composed("law=twin"), {}, "test")


@pytest.mark.slow
def test_lists_of_weights_and_errors_are_denoisers(composed):
    """If there are several, their names contain the value; each has its own identity."""
    words = ["denoiser=[guided,corrupted]", "+dataset@guide=two_clusters", *FEW]
    words += ["guidance=[1,2.5]", "corruption.amplitude=[0.1,0.3]", "corruption.direction=across"]
    sweep = build(composed(*words), {}, "test").sweep
    names = ["guided 1", "guided 2.5", "corrupted 0.1", "corrupted 0.3"]
    assert list(sweep.denoisers) == names
    assert sweep.denoisers["guided 2.5"].weight == 2.5
    assert sweep.denoisers["corrupted 0.3"].amplitude == 0.3
    origins = sweep.books.origins
    assert [origins[name].kind for name in names] == ["guided"] * 2 + ["corrupted"] * 2
    assert len({origin.id for origin in origins.values()}) == 4
    words = ["denoiser=corrupted", "corruption.amplitude=[0.1,0.10000001]", *FEW]
    sweep = build(composed(*words), {}, "test").sweep
    assert list(sweep.denoisers) == ["corrupted 0.1", "corrupted 0.10000001"]
    guided, guide = "denoiser=guided", "+dataset@guide="
    for wrong, words in (
        ([guided], "guide=None: must be a data set"),
        ([guided, f"{guide}pinwheel"], "guide=Pinwheel: must be one with an exact denoiser"),
        ([guided, f"{guide}gaussian_spectrum"], "guide.dim=3072: must be 2, as for the data"),
        ([guided, f"{guide}two_moons", "law=gaussian_twin"], "law=gaussian_twin: must be null"),
        ([guided, f"{guide}two_clusters", "guidance=[1,1]"], "must be different numbers"),
        (["denoiser=corrupted", "corruption.profile=late"], "corruption.profile=late: must be"),
        (["denoiser=corrupted", "corruption.amplitude=[]"], "corruption.amplitude=[]"),
        (["denoiser=corrupted", "dataset=pinwheel"], "dataset=Pinwheel: must be one with an exact"),
        (
            ["denoiser=corrupted", "dataset=four_well_boltzmann", "corruption.direction=across"],
            "corruption.direction=across: must be along: dim=1 is odd",
        ),
    ):
        with pytest.raises(InvalidSetting) as error:
            build(composed(*wrong, *FEW), {}, "test")
        assert words in str(error.value)


@pytest.mark.slow
def test_the_arithmetic_that_auto_chooses_is_in_the_identity_of_a_training(composed, monkeypatch):
    def identity(able, *words):
        monkeypatch.setattr(objectives, "multiplies_bfloat16", lambda: able)
        job = build(composed("denoiser=learned", *words, *FEW), {}, "test")
        return job.sweep.origins["learned"].id

    chosen, fixed = "trainer.precision=auto", "trainer.precision=32-true"
    assert identity(True, chosen) != identity(False, chosen)
    assert identity(True, fixed) == identity(False, fixed)


@pytest.mark.slow
def test_a_worse_model_is_a_guide_and_alters_like_any_other(composed):
    """The exact denoiser is guided by that of the noised law, and a network by a worse network."""
    words = ["denoiser=[autoguided,corrupted]", "worse.noise=0.5", "guidance=[1,3]", *FEW]
    words += ["corruption.profile=[noise,data]", "corruption.cut=0.5"]
    sweep = build(composed(*words), {}, "test").sweep
    names = ["autoguided 1", "autoguided 3", "corrupted noise", "corrupted data"]
    assert list(sweep.denoisers) == names
    x, level = torch.ones(1, 2).double(), Level(0.1, 1.0, 1.0)
    exact, worse = (
        law.oracle(sweep.schedule).denoiser(x, level)
        for law in (sweep.dataset, sweep.dataset.noised(0.5))
    )
    found = sweep.denoisers["autoguided 3"].denoiser(x, level)
    torch.testing.assert_close(found, 3 * exact - 2 * worse)
    assert sweep.books.origins["autoguided 3"].kind == "autoguided"

    learned = ["denoiser=[learned,guided,autoguided,corrupted]", "altered=learned", *FEW]
    learned += ["+dataset@guide=two_clusters", "worse.network={width: 16}"]
    job = build(composed(*learned), {}, "test")
    assert list(job.trainings) == ["learned", "guided", "autoguided"]
    assert job.training is job.trainings["learned"]
    models = {name: one.objective.model for name, one in job.trainings.items()}
    for kind in ("guided", "autoguided"):
        assert job.sweep.denoisers[kind].model is models["learned"]
        assert job.sweep.denoisers[kind].guide is models[kind]
    assert job.sweep.denoisers["corrupted"].model is models["learned"]
    widths = [model.network.width for model in models.values()]
    assert widths == [96, 96, 16]
    assert len({one.id for one in job.trainings.values()}) == 3
    # each denoiser depends on its own trainings
    ids = {name: origin.id for name, origin in job.sweep.books.origins.items()}
    for change, changed in (
        ("worse.trainer={steps: 7}", {"autoguided"}),
        ("guide.variance=2", {"guided"}),
        ("guidance=4", {"guided", "autoguided"}),
        ("corruption.cut=0.3", {"corrupted"}),
        ("trainer.steps=11", set(ids)),
    ):
        other = build(composed(*learned, change), {}, "test").sweep.books.origins
        assert {name for name in ids if other[name].id != ids[name]} == changed, change
    for wrong, message in (
        (["denoiser=[autoguided]", "altered=learned"], r"^altered=learned: must be oracle, or lea"),
        (["altered=oracle2", "denoiser=corrupted"], r"^altered=oracle2: must be oracle or learned"),
        (["denoiser=autoguided", "worse.noise=0"], r"^worse.noise=0.0: must be positive"),
        (["denoiser=autoguided", "dataset=two_moons"], r"^dataset=.*a Gaussian mixture; or altere"),
        ([*learned, "worse.network={width: 96}"], r"^worse=.*: must be with settings that"),
        ([*learned[:-1], "worse.network={wdith: 9}"], r"^worse.network.wdith=9: must be left out"),
        ([*learned[:-1], "worse.trainer={steps: 7}", *HELD], r"^altered=learned: must be oracle"),
    ):
        with pytest.raises(InvalidSetting, match=message):
            build(composed(*wrong, *FEW[: 0 if wrong[0] == learned[0] else None]), {}, "test")
