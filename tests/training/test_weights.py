"""Weights and states are those that were written, or are not used."""

import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from helpers import Touch
from samplerbench.files import sealed
from samplerbench.training.resuming import States
from samplerbench.training.weights import STATE, WEIGHTS, check_losses, load, save


def model(seed):
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1))
    layers.register_buffer("scale", torch.tensor(2.0))
    layers.register_buffer("none", torch.empty(0))
    return layers


def tensors(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())


def spoil(path, places):
    """Flip the lowest bit of some bytes: a number of about the same size."""
    content = bytearray(path.read_bytes())
    for place in places:
        content[place] ^= 1
    path.write_bytes(content)


def test_weights_come_back(tmp_path):
    save(model(0), tmp_path / WEIGHTS)
    assert same(tensors(load(model(1), tmp_path / WEIGHTS)), tensors(model(0)))


@pytest.mark.parametrize("count", [1, 200])
def test_weights_with_other_bytes_are_refused_and_change_no_model(tmp_path, count):
    path = tmp_path / WEIGHTS
    save(model(0), path)
    size = path.stat().st_size
    spoil(path, range(size - count, size))
    safetensors.torch.load_file(path)  # they are weights as others are
    untouched = model(1)
    with pytest.raises(ValueError, match="have changed since"):
        load(untouched, path)
    assert same(tensors(untouched), tensors(model(1)))
    assert all(parameter.requires_grad for parameter in untouched.parameters())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_and_change_no_model(tmp_path, number):
    bad = model(0)
    bad[1].bias.data[0] = number
    save(bad, tmp_path / WEIGHTS)
    untouched = model(1)
    with pytest.raises(ValueError, match="not all finite"):
        load(untouched, tmp_path / WEIGHTS)
    assert same(tensors(untouched), tensors(model(1)))


def test_weights_of_somebody_who_keeps_no_digest_are_read(tmp_path):
    safetensors.torch.save_file(model(0).state_dict(), tmp_path / WEIGHTS)
    assert same(tensors(load(model(1), tmp_path / WEIGHTS)), tensors(model(0)))


def test_a_state_is_as_it_was_written_or_refused(tmp_path):
    path = tmp_path / "new" / STATE
    States().save_checkpoint({"step": 3, "x": torch.arange(1000.0)}, path)
    state = States().load_checkpoint(path)
    assert state["step"] == 3
    assert torch.equal(state["x"], torch.arange(1000.0))
    assert [file.name for file in path.parent.iterdir()] == [STATE]
    middle = path.stat().st_size // 2
    spoil(path, range(middle, middle + 200))
    with pytest.raises(ValueError, match="its content has changed"):
        States().load_checkpoint(path)


def test_a_state_with_a_digest_of_its_own_executes_nothing(tmp_path):
    torch.save({"state_dict": Touch(tmp_path / "touched")}, tmp_path / "made")
    (tmp_path / STATE).write_bytes(sealed((tmp_path / "made").read_bytes()))
    with pytest.raises(pickle.UnpicklingError):
        States().load_checkpoint(tmp_path / STATE, weights_only=False)
    assert not (tmp_path / "touched").exists()


def test_losses_are_those_of_their_weights(tmp_path):
    path = tmp_path / WEIGHTS
    save(model(0), path, b"step,name,loss\n1,train,2.5\n")
    check_losses(b"step,name,loss\n1,train,2.5\n", path)
    with pytest.raises(ValueError, match="do not belong to the weights"):
        check_losses(b"step,name,loss\n1,train,2\n", path)
    contents = set()
    for _ in range(5):  # the same file each time
        save(model(0), path, b"step,name,loss\n")
        contents.add(path.read_bytes())
    assert len(contents) == 1
