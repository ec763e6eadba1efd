"""Runs with invented values, as a report reads them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import pytest

from samplerbench.bench.cell import Row
from samplerbench.bench.store import as_table
from samplerbench.report.entries import Entry

SOUND = Row(
    cell_id="",
    samples_id="",
    setting_id="",
    measure_id="",
    sweep_id="",
    training_id="",
    run="",
    experiment="main",
    dataset="moons",
    network="mlp",
    objective="edm",
    schedule="edm",
    target="edm",
    grid="karras",
    final="denoise",
    denoiser="learned",
    start="prior",
    sampler="ddim",
    sampler_settings="",
    eta=0.0,
    steps=4,
    nfe=4,
    rounds=4,
    seed=0,
    data_seed=0,
    train_seed=0,
    metric_seed=0,
    repetition=0,
    n_samples=500,
    reference="data",
    n_reference=1000,
    metric="sliced",
    metric_settings='{"class": "Sliced", "p": 2}',
    value=1.0,
    lower=float("nan"),
    upper=float("nan"),
    info="",
    seconds=0.1,
    block=500,
    device="cpu",
    dtype="float64",
    version="0.1.0",
    status="ok",
    message="",
)


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


@pytest.fixture(scope="session")
def rows():
    return make_rows


@pytest.fixture(scope="session")
def entry():
    return make_entry
