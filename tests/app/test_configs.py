"""Every yaml composes and builds; a new member is found by walking conf/."""

import copy

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict
from PIL import Image

from helpers import mostly_slow
from samplerbench.app.config.construct import read_member
from samplerbench.app.config.folders import conf_directory
from samplerbench.app.job.build import build

CONF = conf_directory()
NOT_OURS = {"hydra", "experiment"}
#: Built in tests of their own: tests/app/test_fid.py, and tests/datasets/test_density.py.
ELSEWHERE = ("fid", "kid", "density")
MEMBERS = [
    (path.parent.name, path.stem)
    for path in sorted(CONF.glob("*/*.yaml"))
    if path.parent.name not in NOT_OURS and path.stem not in ELSEWHERE
]
EXPERIMENTS = [
    path.relative_to(CONF / "experiment").with_suffix("").as_posix()
    for path in sorted((CONF / "experiment").rglob("*.yaml"))
    if path.stem != "celebahq"  # its weights are a download: tests/training/test_pretrained.py
]
CHOOSES_OTHERS = ("objective", "fidelity")  # members of these groups choose those of others
SEVERAL = ("sampler", "metric", "picture", "start")  # groups of which a job has several
LITTLE = ["n_train=50", "n_validation=10", "n_reference=50", "n_samples=50", "steps=[5]"]
FEW = ["n_train=10", "n_validation=5", "n_reference=10", "n_samples=10"]  # images
# the settings of other members that a member needs; the rest is that of the main job
LINE = ["dataset=four_well_boltzmann"]  # some pictures are of data on a line
FREE = ["objective=hyvarinen", "sampler=ula", "grid=hold", "start=gaussian"]  # without a level
CHAINS = ["denoiser=oracle", "sampler=hmc", "metric=moments"]
SPECTRUM = ["dataset=gaussian_spectrum", "denoiser=oracle", "metric=w2_law_gaussian"]
NEEDS = {
    ("dataset", "four_well"): ["metric=w_law_1d"],
    ("grid", "designed"): ["sampler=heun"],  # the default one draws noise
    **{
        ("objective", name): FREE[1:] for name in ("hyvarinen", "hutchinson", "sliced", "sliced_vr")
    },
    ("objective", "single_level"): [*FREE[1:], "grid.noise=1"],
    ("network", "fourier_mlp"): FREE,
    ("network", "layer_norm_mlp"): FREE,
    ("network", "mlp"): FREE,
    ("network", "smooth_mlp"): FREE,
    **{
        ("picture", name): ["metric=max_sliced", *LINE]
        for name in (
            "band_1d",
            "densities_1d",
            "forward_backward_1d",
            "forward_paths_1d",
            "score_heatmap",
        )
    },
    ("picture", "heavy_mode"): ["dataset=two_modes", "metric=sliced"],
    ("picture", "spectrum_error"): SPECTRUM,
    ("picture", "w2_path"): SPECTRUM,
    ("picture", "truth_generated_1d"): ["metric=max_sliced", *LINE],
    ("picture", "series_1d"): ["metric=max_sliced", "dataset=four_well"],
    ("dataset", "pinwheel"): ["denoiser=learned"],  # its law has no closed form
    ("metric", "w_law_1d"): LINE,
    ("metric", "w_output_1d"): LINE,
    ("metric", "kl_paths"): ["sampler=ancestral"],
    ("metric", "paired"): ["sampler=heun", "denoiser=oracle"],
    ("metric", "log_z"): ["sampler=smc", "denoiser=oracle"],
    ("metric", "w2_law_gaussian"): SPECTRUM,
    ("metric", "kl_law_gaussian"): [*SPECTRUM[:2], "law=gaussian_twin"],
    ("dataset", "gaussian_spectrum"): [*SPECTRUM, "dataset.dim=5"],
    ("dataset", "four_well_boltzmann"): ["metric=w_law_1d"],
    **{
        ("dataset", name): ["metric=sliced"]
        for name in ("two_modes", "lifted_modes", "random_modes")
    },
    ("dataset", "ill_conditioned"): ["metric=sliced", "denoiser=oracle"],
    ("dataset", "gaussian_mixture"): ["dataset.means=[[0,0],[3,1]]"],
    **{("dataset", name): CHAINS for name in ("funnel", "banana", "many_well")},
    **{
        ("sampler", name): ["denoiser=oracle"]
        for name in ("ula", "mala", "hmc", "replica_exchange", "ais", "smc", "underdamped")
    },
    ("start", "overdispersed"): ["sampler=ula", "denoiser=oracle"],
    **{("sampler", peer): ["denoiser=oracle"] for peer in ("azula", "diffusers", "k_diffusion")},
    ("grid", "ays_table"): ["schedule.sigma_max=80.0"],
    ("grid", "edm"): ["schedule.sigma_max=80.0"],
    ("grid", "hold"): ["sampler=ula", "denoiser=oracle"],
    ("dataset", "file"): ["dataset.path={points}"],
    ("dataset", "digits"): ["metric=sliced"],
    ("dataset", "faces"): ["metric=sliced", *FEW],
    ("dataset", "animal_mnist"): ["metric=sliced"],
    ("dataset", "image_folder"): ["dataset.path={images}", "metric=sliced", *FEW],
    ("network", "unet"): ["dataset=digits", "metric=sliced"],
    ("metric", "nearest_training"): ["dataset=digits"],
    ("picture", "image_panel"): ["dataset=digits", "metric=sliced"],
}


@pytest.fixture(scope="module")
def composed():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *words: compose("config", list(words))


@pytest.fixture(scope="module")
def main_job(composed):
    return composed(*LITTLE)


@pytest.fixture(scope="module")
def own_data(tmp_path_factory):
    """Files of points and images for the members that read a user's files."""
    folder = tmp_path_factory.mktemp("data")
    np.save(folder / "points.npy", np.random.default_rng(0).normal(size=(400, 2)))
    for k in range(50):
        Image.new("L", (8, 8), 5 * k).save(folder / f"{k}.png")
    return {"points": folder / "points.npy", "images": folder}


#: Groups of which only these members are in a job of the default suite; `test_members.py` builds
#: the others alone.
MANY = {
    "dataset": ("digits", "file", "four_well", "funnel", "gaussian_spectrum", "pinwheel"),
    "grid": ("custom", "designed", "edm", "hold"),
    "network": ("mlp", "unet"),
    "objective": ("edm", "hyvarinen", "single_level"),
}


def jobs():
    """The words of jobs that choose each member; of some groups one job has all members."""
    chosen = {}
    for group, member in MEMBERS:
        needs = tuple(NEEDS.get((group, member), ()))
        alone = member if group not in SEVERAL else ""
        chosen.setdefault((group, needs, alone), []).append(member)
    for (group, needs, alone), names in chosen.items():
        words = alone or f"[{','.join(names)}]"
        name, slow = f"{group}={words}", group in MANY and words not in MANY[group]
        marks = [pytest.mark.slow] * slow
        yield pytest.param(group, names, [name, *needs], id=name, marks=marks)


def chosen(config, word):
    """The config with a word that chooses members or sets a value, as Hydra would apply it.

    From the members' own files, which is much faster; `test_members_are_composed_as_they_are_read`
    compares the two.
    """
    key, _, text = word.partition("=")
    if not (CONF / key).is_dir():
        OmegaConf.update(config, key, yaml.safe_load(text))
        return
    nodes = {name: read_member(CONF / key / f"{name}.yaml") for name in text.strip("[]").split(",")}
    with open_dict(config):  # the main job has no picture
        config[key] = OmegaConf.create(nodes) if key in SEVERAL else nodes[text]


@pytest.mark.parametrize(("group", "names", "words"), jobs())
def test_every_member_builds(composed, main_job, own_data, group, names, words):
    if names == ["animal_mnist"]:
        pytest.importorskip("animal_mnist")  # no extra brings it, since it asks for tensorflow
    words = [word.format(**own_data) for word in words]
    if any(word.startswith(CHOOSES_OTHERS) for word in words):
        config = composed(*LITTLE, *words)
    else:
        config = copy.deepcopy(main_job)
        for word in words:
            chosen(config, word)
    job = build(config, {}, "test")
    assert job.sweep.cells()
    built = {"sampler": dict(job.sweep.samplers), "start": job.sweep.starts}
    built |= {"metric": job.sweep.metrics, "picture": job.pictures}
    assert group not in SEVERAL or list(built[group]) == names


def test_members_are_composed_as_they_are_read(composed, main_job):
    """All members of the groups of several at once, one of each other group, and values."""
    known = {key: [name for group, name in MEMBERS if group == key] for key in dict(MEMBERS)}
    words = [f"{key}=[{','.join(known[key])}]" for key in SEVERAL]
    words += [
        f"{key}={names[-1]}"
        for key, names in known.items()
        if key not in SEVERAL and not key.startswith(CHOOSES_OTHERS)
    ]
    words += ["steps=[5,6]", "n_validation=5", "schedule.beta_max=7.5"]
    config = copy.deepcopy(main_job)
    for word in words:
        chosen(config, word)
    assert config == composed(*LITTLE, *words)


#: Built in the default suite; their members are built above, and test_suite.py has the suite.
FEW_EXPERIMENTS = ("tiny", "main", "images/edm", "n1/ddim")


@pytest.mark.parametrize(
    "name",
    mostly_slow(EXPERIMENTS, *(k for k, one in enumerate(EXPERIMENTS) if one in FEW_EXPERIMENTS)),
)
def test_every_experiment_builds(composed, name):
    config = composed(f"experiment={name}")
    has_two = "${fidelity:" in (CONF / "experiment" / f"{name}.yaml").read_text()
    for config.fidelity in ("quick", "notebook") if has_two else ("quick",):
        job = build(config, {"experiment": name}, "test")
        assert job.sweep.labels.experiment == name


@pytest.mark.parametrize("name", mostly_slow(["n1/annealed_langevin", "n1/ddim"], 1))
def test_the_notebooks_setting_trains_the_notebooks_score(composed, name):
    own, headline = (
        build(composed(f"experiment={experiment}", "fidelity=notebook"), {}, "test")
        for experiment in (name, "n1/ncsn")
    )
    assert own.training.objective.recipe == headline.training.objective.recipe
    assert str(own.training.objective) == str(headline.training.objective)
    parts = ("target", "weighting", "level_law", "network", "objective", "trainer")
    for part in parts:
        assert own.config[part] == headline.config[part], part


@pytest.mark.parametrize("name", ["n1/hyvarinen_ula", "n1/hutchinson_ula"])
def test_the_notebooks_network_has_kinks_and_ours_has_none(composed, name):
    words = [f"experiment={name}"]
    assert "fourier_mlp" in composed(*words).network._target_
    network = composed(*words, "fidelity=notebook").network
    assert "layer_norm_mlp" in network._target_
    assert not network.smooth


def test_the_quick_recipe_is_the_default_one_with_fewer_steps():
    default, quick = (
        OmegaConf.to_container(read_member(conf_directory() / "trainer" / f"{name}.yaml"))
        for name in ("default", "quick")
    )
    assert quick.pop("steps") == default.pop("steps") / 2
    assert quick == default


def test_every_member_says_what_it_is_and_names_this_package_only():
    def targets(node):
        if isinstance(node, dict):
            yield from ([node["_target_"]] if "_target_" in node else [])
            for value in node.values():
                yield from targets(value)

    for group, member in MEMBERS:
        path = CONF / group / f"{member}.yaml"
        lines = path.read_text().splitlines()[:2]
        assert any(line.startswith("# ") and "@package" not in line for line in lines), path
        assert group not in SEVERAL or f"# @package {group}.{member}" in lines, path
        node = OmegaConf.to_container(OmegaConf.load(path))
        assert all(target.startswith("samplerbench.") for target in targets(node)), path
