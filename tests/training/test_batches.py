"""Batches: every datum once in a pass, and batch k is the same whatever came before it."""

from __future__ import annotations

import pytest
import torch

from samplerbench.errors import InvalidSetting
from samplerbench.objectives.base import Recipe
from samplerbench.training.batches import Batches, SingleBatch, TensorData

X0 = torch.arange(20.0).unsqueeze(-1)


def batches(size=5, seed=0, steps=8, first=0, **settings):
    return list(Batches(X0, Recipe(steps, size, 1.0, **settings), seed, first))


def test_without_replacement_every_datum_comes_once_in_a_pass():
    passes = torch.cat(batches()).reshape(2, 20)
    assert torch.equal(passes.sort(dim=-1).values, X0.T.expand(2, 20))
    assert not torch.equal(passes[0], passes[1])


def test_rows_that_do_not_fill_a_batch_wait_for_the_next_pass():
    got = batches(size=6, steps=300)
    assert {tuple(batch.shape) for batch in got} == {(6, 1)}
    assert all(len(batch.unique()) == 6 for batch in got)
    assert len(torch.cat(got).unique()) == 20


def test_the_last_smaller_batch_can_be_kept():
    got = batches(size=8, steps=6, keep_last=True)
    assert [len(batch) for batch in got] == [8, 8, 4, 8, 8, 4]
    for one_pass in (got[:3], got[3:]):
        assert torch.equal(torch.cat(one_pass).sort(0).values, X0)
    assert [len(batch) for batch in batches(size=5, steps=5, keep_last=True)] == [5] * 5


def test_with_replacement_batches_are_independent_draws():
    got = torch.stack(batches(size=50, replacement=True, steps=400)).flatten()
    assert len(got) == 400 * 50
    counts = torch.bincount(got.long(), minlength=20)
    expected = 1000.0
    assert float(((counts - expected) ** 2 / expected).sum()) < 43.8  # χ² with 19 df, 0.1 %
    assert not torch.equal(got[:50], got[50:100])


@pytest.mark.parametrize("replacement", [True, False])
def test_batch_k_depends_on_the_seed_and_k_alone(replacement):
    whole, rest, other = (
        batches(replacement=replacement, **settings) for settings in ({}, {"first": 3}, {"seed": 1})
    )
    assert len(whole) == 8
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], rest, strict=True))
    assert not torch.equal(torch.cat(whole), torch.cat(other))


def test_fewer_data_than_a_batch_are_one_batch():
    assert [len(batch) for batch in batches(size=64, steps=3)] == [20, 20, 20]


def test_mean_and_std_of_the_training_data():
    x0 = torch.tensor([[0.0, 2.0], [2.0, 8.0]], dtype=torch.float64)
    data = TensorData(x0, x0)
    assert data.mean.tolist() == [1.0, 5.0]
    assert data.std == pytest.approx(5**0.5)  # of variances 1 and 9
    assert TensorData(torch.ones(3, 2), None).std == 1
    assert data.x0.dtype == data.validation.dtype == torch.float32
    (whole,) = SingleBatch(data.validation)
    assert torch.equal(whole, data.validation)


@pytest.mark.parametrize("x0", [torch.empty(0, 2), torch.tensor([[float("nan"), 1.0]])])
def test_impossible_data(x0):
    with pytest.raises(InvalidSetting):
        TensorData(x0, None)
