"""Guides that are networks: trained with the learned denoiser, kept in its run, and loaded."""

import pandas as pd
import pytest
import torch

import samplerbench as sb
from samplerbench.training.weights import LOSSES, WEIGHTS

GUIDES = ("guided", "autoguided")
WORDS = ("denoiser=[learned,guided,autoguided]", "altered=learned", "+dataset@guide=two_clusters")
WORDS += ("worse.trainer={steps: 3}", "steps=[2]", "sampler=[heun]", "guidance=3")


@pytest.mark.slow
def test_the_guides_of_a_run_are_trained_kept_and_loaded(command, tiny, tmp_path, capsys):
    words = [word for word in tiny if not word.startswith(("steps=", "sampler"))]
    words = [*words[:-1], f"cache_dir={tmp_path / 'cache'}", *WORDS]
    first, again = tmp_path / "first", tmp_path / "again"
    assert command(*words, f"hydra.run.dir={first}") == 0
    out = capsys.readouterr().out
    assert "training the guide of autoguided: 3 steps" in out
    for name in GUIDES:
        assert {WEIGHTS, LOSSES} <= {path.name for path in (first / "checkpoints" / name).iterdir()}
    assert command(*words, "cache=on", f"hydra.run.dir={again}") == 0
    assert capsys.readouterr().out.count("it was trained before") == 3
    tables = [pd.read_parquet(folder / "cells.parquet") for folder in (first, again)]
    assert tables[0]["value"].equals(tables[1]["value"])

    run = sb.load(first)
    learned, guided, worse = (run.denoisers[name] for name in ("learned", *GUIDES))
    for model in (guided, worse):
        assert model.model is learned
        pairs = zip(model.guide.parameters(), learned.parameters(), strict=True)
        assert not all(torch.equal(one, other) for one, other in pairs)
    table = sb.sweep(run, denoisers=["autoguided"])
    same = tables[0][tables[0]["denoiser"] == "autoguided"]
    found = table[table["denoiser"] == "autoguided"]
    assert sorted(found["cell_id"]) == sorted(same["cell_id"])
    assert sorted(found["value"]) == sorted(same["value"])
    # a guide that is changed later is another model
    with torch.no_grad():
        next(worse.guide.parameters()).add_(1)
    changed = sb.sweep(run, denoisers=["autoguided"])
    assert not set(changed["cell_id"]) & set(same["cell_id"])
