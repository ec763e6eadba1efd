"""Runs with invented values, as a report reads them."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import pandas as pd
import pytest

from helpers import row
from samplerbench.bench.cell import Row
from samplerbench.bench.store import as_table
from samplerbench.report.entries import Entry

MADE = {"experiment": "main", "dataset": "moons", "version": "0.1.0", "dtype": "float64"}
MADE |= {"network": "mlp", "objective": "edm", "schedule": "edm", "target": "edm", "device": "cpu"}
MADE |= {"denoiser": "learned", "start": "prior", "sampler": "ddim", "grid": "karras"}
MADE |= {"final": "denoise", "steps": 4, "nfe": 4, "rounds": 4, "n_samples": 500, "block": 500}
MADE |= {"reference": "data", "n_reference": 1000, "metric": "sliced", "seconds": 0.1, "value": 1.0}
MADE |= {"metric_settings": '{"class": "Sliced", "p": 2}', "lower": np.nan, "upper": np.nan}
SOUND = row(**MADE)


def make_rows(
    *,
    etas: Sequence[float] = (0.0, 1.0),
    steps: Sequence[int] = (4, 16, 64),
    repetitions: int = 4,
    shift: float = 0.0,
    seed: int = 0,
    **changes: object,
) -> list[Row]:
    """Distances 1 + eta + 4/N + shift over a floor of 1; all cells share their noise."""
    noise = np.random.default_rng(seed).normal(0, 0.05, (2, repetitions))
    law = dict.fromkeys(("start", "sampler", "schedule", "grid", "final", "network"), "")
    law |= {"denoiser": "law", "objective": "", "target": "", "steps": 0, "nfe": 0, "rounds": 0}
    rows = [
        replace(SOUND, **law, eta=float("nan"), repetition=r, value=1 + noise[0, r])
        for r in range(repetitions)
    ]
    rows += [
        replace(
            SOUND,
            eta=eta,
            sampler_settings=json.dumps({"eta": eta}),
            steps=n,
            nfe=n,
            rounds=n,
            seed=seed,
            repetition=r,
            value=1 + eta + 4 / n + shift + noise[1, r],
            seconds=n / 1000,
        )
        for eta in etas
        for n in steps
        for r in range(repetitions)
    ]
    return [_identified(replace(row, **changes)) for row in rows]


def _identified(row: Row) -> Row:
    """The row with identities of what it holds."""
    names = [row.denoiser, row.start, row.sampler, row.sampler_settings, row.objective, row.dataset]
    seeds = [row.seed, row.train_seed, row.data_seed, row.steps, row.repetition, row.value]
    setting = blake2b(repr(names).encode(), digest_size=8).hexdigest()
    cell = blake2b(repr([*names, *seeds]).encode(), digest_size=8).hexdigest()
    return replace(row, setting_id=setting, cell_id=cell)


def make_entry(label: str, rows: Sequence[Row], **changes: object) -> Entry:
    sound = Entry(
        label=label,
        name=f"run_{label.strip('#')}",
        state="finished",
        message="",
        expected=len(rows),
        values=as_table([vars(row) for row in rows]),
        overrides=["experiment=tiny"],
        config={"dataset": {"_target_": "samplerbench.datasets.two_moons.two_moons"}},
        config_text="dataset: moons\n",
        versions={"samplerbench": "0.1.0", "torch": "2.13.0"},
        problems=[],
    )
    return replace(sound, **changes)


def pytest_collection_modifyitems(items):
    """A browser takes seconds to start and to end: what uses one is slow."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def rows():
    return make_rows


@pytest.fixture(scope="session")
def entry():
    return make_entry


#: Name, package, order, error at one evaluation, floor, and whether it draws noise.
ENTRANTS = [
    ("ddim η=0", "samplerbench", 1.0, 2.0, 0.0, False),
    ("ddim η=1", "samplerbench", 1.0, 4.0, 0.03, True),
    ("heun", "samplerbench", 2.0, 9.0, 0.0, False),
    ("dpmpp_2m", "samplerbench", 2.0, 4.0, 0.0, False),
    ("dpmpp_3m", "samplerbench", 3.0, 30.0, 0.0, False),
    ("deis order=3", "samplerbench", 3.0, 20.0, 0.002, False),
    ("unipc", "samplerbench", 3.0, 12.0, 0.0, False),
    ("sde_heun", "samplerbench", 1.0, 6.0, 0.1, True),
    ("diffusers DPMSolverMultistepScheduler", "diffusers", 2.0, 5.0, 0.0, False),
    ("diffusers EulerDiscreteScheduler", "diffusers", 1.0, 2.2, 0.0, False),
    ("k_diffusion sample_lms", "k-diffusion", float("nan"), 15.0, 0.004, False),
    ("azula DDIMSampler", "azula", 1.0, 2.1, 0.0, False),
    ("<img src=x onerror=window.hit=1>", "lab", 2.0, 40.0, 0.2, False),
]
TARGETS = {
    "paired": (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005),
    "kl_law": (1.0, 0.3, 0.1, 0.03, 0.01),
    "w2_law_gaussian": (0.5, 0.1, 0.02),
}


def make_suite(evaluations: Sequence[int] = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128), seed: int = 0):
    """Results of a suite: errors c·n^-p + floor, with factors of task, entrant and value.

    One entrant diverges at few evaluations on one law, another has no density with few, and others
    cannot run on one path.
    """
    random = np.random.default_rng(seed)
    tasks = [
        *(
            (law, path, q)
            for law in ("two_moons", "grid_mixture")
            for path in ("edm", "rectified")
            for q in ("paired", "kl_law")
        ),
        ("power_law", "edm", "w2_law_gaussian"),
        ("power_law", "vp_linear", "w2_law_gaussian"),
    ]
    rows = []
    for law, path, quantity in tasks:
        hard = np.exp(random.normal(0, 0.6))
        for name, package, order, first, floor, noise in ENTRANTS:
            factor = np.exp(random.normal(0, 0.3))
            for grid in ("common", "own"):
                for nfe in evaluations:
                    p = 1.0 if np.isnan(order) else order
                    error = hard * factor * first * nfe**-p + floor
                    own = grid == "own" and package == "samplerbench"
                    error *= (0.6 if own else 1) * (2 if quantity == "kl_law" else 1)
                    if quantity == "kl_law":
                        error = error**2
                    status, message = "ok", ""
                    if path == "rectified" and package in ("k-diffusion", "lab"):
                        status, message = "incompatible", f"{package} has no rectified path"
                    elif name == "dpmpp_3m" and law == "grid_mixture" and nfe <= 12:
                        status, message = "diverged", "a state is not finite"
                    elif name == "deis order=3" and quantity == "kl_law" and nfe == 4:
                        status, message = "not a density", "the map folds"
                    value = error if status == "ok" else float("nan")
                    half = 0.05 * value if quantity == "kl_law" else 0.0
                    # some runs fail before their first evaluation
                    early = status == "diverged" and nfe == 4
                    key = [law, path, quantity, own, name, nfe]
                    rows.append(
                        {
                            "law": law,
                            "path": path,
                            "denoiser": "oracle",
                            "grid": grid,
                            "quantity": quantity,
                            "unit": "nats" if quantity == "kl_law" else "sd",
                            "entrant": name,
                            "package": package,
                            "version": {"samplerbench": "0.1.0"}.get(package, "1.2"),
                            "sampler": name.split()[0],
                            "sampler_settings": '{"order": 3}' if "order=3" in name else "{}",
                            "order": order,
                            "noise": noise,
                            "nfe": 0 if early else nfe,
                            "steps": nfe // 2 if name == "heun" else nfe,
                            "chosen": "shipped"
                            if package != "samplerbench"
                            else ("log_snr" if own else "karras"),
                            "value": value,
                            "lower": value - half,
                            "upper": value + half,
                            "status": status,
                            "message": message,
                            "cell_id": blake2b(repr(key).encode(), digest_size=8).hexdigest(),
                            "samples_id": blake2b(
                                repr(key[:2]).encode(), digest_size=8
                            ).hexdigest(),
                            "command": f"samplerbench experiment=suite/v1/{law} schedule={path} "
                            f"grids={'[karras,log_snr]' if grid == 'own' else 'null'}",
                        }
                    )
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def suite():
    return make_suite


@pytest.fixture(scope="session")
def suite_targets():
    return TARGETS


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium without a window, or a skipped test."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium with chromedriver on the path (Debian: chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    home = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(word)
    options.add_argument(f"--user-data-dir={home / 'profile'}")
    options.add_argument("--window-size=1280,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.downloads = home / "downloads"
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(driver.downloads)}
    )
    yield driver
    driver.quit()
