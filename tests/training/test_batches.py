"""Batches: every datum once a pass, and batch k the same whatever came before it."""

from __future__ import annotations

import pytest
import torch

from samplerbench.errors import InvalidSetting
from samplerbench.training.batches import Batches, TensorData
from samplerbench.training.fitting import Loading

X0 = torch.arange(20.0).unsqueeze(-1)


def batches(*, size=5, replacement=False, seed=0, steps=8, first=0):
    return list(Batches(X0, size, replacement, seed, steps, first))


def test_without_replacement_every_datum_comes_once_a_pass():
    passes = torch.cat(batches()).reshape(2, 20)
    assert torch.equal(passes.sort(dim=-1).values, X0.T.expand(2, 20))
    assert not torch.equal(passes[0], passes[1])


def test_rows_that_do_not_fill_a_batch_wait_for_the_next_pass():
    got = batches(size=6, steps=300)
    assert {tuple(batch.shape) for batch in got} == {(6, 1)}
    assert all(len(batch.unique()) == 6 for batch in got)
    assert len(torch.cat(got).unique()) == 20


def test_with_replacement_batches_are_independent_draws():
    got = torch.stack(batches(size=50, replacement=True, steps=400)).flatten()
    assert len(got) == 400 * 50
    counts = torch.bincount(got.long(), minlength=20)
    expected = 1000.0
    assert float(((counts - expected) ** 2 / expected).sum()) < 43.8  # χ² with 19 df, 0.1 %
    assert not torch.equal(got[:50], got[50:100])


@pytest.mark.parametrize("replacement", [True, False])
def test_batch_k_depends_on_the_seed_and_k_alone(replacement):
    whole = batches(replacement=replacement)
    rest = batches(replacement=replacement, first=3)
    assert len(whole) == 8
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], rest, strict=True))
    other = batches(replacement=replacement, seed=1)
    assert not torch.equal(torch.cat(whole), torch.cat(other))


def test_fewer_data_than_a_batch_are_one_batch():
    assert [len(batch) for batch in batches(size=64, steps=3)] == [20, 20, 20]


def data(x0, validation=None):
    return TensorData(x0, validation, batch_size=4, replacement=False, train_seed=0)


def test_mean_and_std_of_the_training_data():
    x0 = torch.tensor([[0.0, 2.0], [2.0, 8.0]], dtype=torch.float64)
    module = data(x0, x0)
    assert module.mean.tolist() == [1.0, 5.0]
    assert module.std == pytest.approx(5**0.5)  # of variances 1 and 9
    assert data(torch.ones(3, 2)).std == 1
    assert module.x0.dtype == torch.float32
    (whole,) = Loading(module).val_dataloader()
    assert torch.equal(whole, module.validation)


@pytest.mark.parametrize("x0", [torch.empty(0, 2), torch.tensor([[float("nan"), 1.0]])])
def test_impossible_data(x0):
    with pytest.raises(InvalidSetting):
        data(x0)


def test_the_last_smaller_batch_can_be_kept():
    x0 = torch.arange(300.0).unsqueeze(-1)
    batches = list(Batches(x0, 8, False, 0, steps=76, keep_last=True))
    assert [len(batch) for batch in batches] == 2 * (37 * [8] + [4])
    for one_pass in (batches[:38], batches[38:]):  # every datum once
        assert torch.equal(torch.cat(one_pass).sort(0).values, x0)
