"""`weights=FILE`: a learned denoiser with the weights of another run, and no training."""

import shutil

import pandas as pd
import pytest

import samplerbench as sb
from samplerbench.app.folder.runs import CHECKPOINTS
from samplerbench.training.weights import WEIGHTS


@pytest.mark.slow
def test_the_values_are_those_of_the_trained_network(finished, tiny, command, tmp_path, capsys):
    # the folder of the run has a "=", which a word cannot have without quotes
    given, folder = tmp_path / WEIGHTS, tmp_path / "given"
    shutil.copyfile(finished / CHECKPOINTS / WEIGHTS, given)
    words = [word for word in tiny if not word.startswith("cache")]
    assert command(*words, f"weights={given}", "cache=off", f"hydra.run.dir={folder}") == 0
    said = capsys.readouterr().out
    assert "no training" in " ".join(said.split())
    assert "trained in" not in said
    key = ["denoiser", "start", "sampler", "sampler_settings", "steps", "repetition", "metric"]
    tables = [pd.read_parquet(one / "cells.parquet") for one in (finished, folder)]
    before, after = (
        t[(t["denoiser"] == "learned") & (t["reference"] == "data")].set_index(key)["value"]
        for t in tables
    )
    assert len(after) > 0
    assert (after == before.loc[after.index]).all()
    # the run has its own copy of the weights, and can be used as any other
    assert (folder / CHECKPOINTS / WEIGHTS).read_bytes() == given.read_bytes()
    run = sb.load(folder)
    assert run.sweep.origins["learned"].id != sb.load(finished).sweep.origins["learned"].id


@pytest.mark.parametrize("case", ["absent", "other network", "no weights"])
def test_a_file_that_does_not_fit_is_one_line(case, finished, tiny, refuses, tmp_path):
    path, words = tmp_path / WEIGHTS, []
    shutil.copyfile(finished / CHECKPOINTS / WEIGHTS, path)
    if case == "absent":
        path = tmp_path / "none.safetensors"
    elif case == "no weights":
        path = tmp_path / "text.safetensors"
        path.write_text("text")
    else:
        words = ["network.width=5"]
    refuses([*tiny, *words, f"weights={path}"], f"weights={path}: must be a file with weights")
