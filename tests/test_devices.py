"""Training over several devices: two processes of the CPU, which agree on one model."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from pytorch_lightning.callbacks import Callback

from samplerbench.core.level_laws import LogNormal
from samplerbench.core.schedules import EDM
from samplerbench.core.targets import EDMTarget
from samplerbench.core.weightings import Uniform
from samplerbench.datasets.gaussian import gaussian
from samplerbench.errors import InvalidSetting
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.objectives.base import Recipe
from samplerbench.objectives.denoising import Denoising
from samplerbench.training.batches import Batches, TensorData
from samplerbench.training.loop import LOSSES, WEIGHTS, train

LAW = gaussian((3.0, -1.0), ((4.0, 1.0), (1.0, 0.5)))
ONE = Recipe(steps=12, batch_size=32, lr=3e-3, ema_decay=0.8, log_every=4, validate_every=6)
TWO = replace(ONE, devices=2)


def trained(directory, recipe, callbacks=(), x0=None, device="cpu", resumable=False):
    data = TensorData(LAW.draws(500, "train") if x0 is None else x0, LAW.draws(100, "validation"))
    objective = Denoising(
        network=ResidualMLP(2, 0, width=32),
        target=EDMTarget(),
        schedule=EDM(10.0),
        level_law=LogNormal(0.0, 1.2, 0.02, 10.0),
        weighting=Uniform(),
        recipe=recipe,
        mean=data.mean,
        std=data.std,
        train_seed=0,
    )
    where = {"directory": directory, "device": device, "resumable": resumable}
    return train(objective, data, **where, callbacks=callbacks, progress=False)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Witness(Callback):
    """Records the batches, the losses and the final weights of a process."""

    def __init__(self, directory):
        self.directory, self.batches, self.losses = directory, [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches.append(batch)
        self.losses.append(outputs["loss"].item())

    def on_fit_end(self, trainer, pl_module):
        seen = {
            "batches": self.batches,
            "losses": self.losses,
            "weights": weights(pl_module.objective.model),
        }
        torch.save(seen, self.directory / f"{trainer.global_rank}.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The model, its folder, and what each of two processes saw."""
    folder = tmp_path_factory.mktemp("two")
    model = trained(folder, TWO, [Witness(folder)])
    return model, folder, [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def test_both_processes_end_with_the_model_that_is_returned(two):
    model, _, (first, second) = two
    assert torch.equal(first["weights"], second["weights"])
    assert torch.equal(first["weights"], weights(model))


def test_they_share_every_batch(two):
    _, _, (first, second) = two
    whole = list(Batches(LAW.draws(500, "train").float(), ONE, 0))
    for mine, theirs, batch in zip(first["batches"], second["batches"], whole, strict=True):
        assert torch.equal(mine, batch[0::2])
        assert torch.equal(theirs, batch[1::2])


@pytest.mark.slow
def test_they_draw_different_noise(tmp_path):
    # one datum is all their data: only the noise can make their losses differ
    point = LAW.draws(1, "train").expand(64, -1)
    trained(tmp_path, TWO, [Witness(tmp_path)], point)
    first, second = (torch.load(tmp_path / f"{rank}.pt")["losses"] for rank in (0, 1))
    assert all(mine != theirs for mine, theirs in zip(first, second, strict=True))


def test_the_losses_of_both_are_written(two):
    _, folder, (first, second) = two
    losses = pd.read_csv(folder / LOSSES)
    train_losses = losses[losses["name"] == "train"]
    assert list(train_losses["step"]) == [4, 8, 12]
    both = torch.tensor([first["losses"], second["losses"]]).mean(0)
    assert train_losses["loss"].tolist() == pytest.approx(both.view(3, 4).mean(1).tolist())


@pytest.mark.slow
def test_an_interrupted_training_ends_with_the_same_bytes(two, tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            assert trainer.global_step < 9, "stopped here"

    with pytest.raises(Exception, match="stopped here"):
        trained(tmp_path, TWO, [Stop()], resumable=True)
    trained(tmp_path, TWO, [Witness(tmp_path)], resumable=True)
    assert len(torch.load(tmp_path / "0.pt")["batches"]) == 12 - 8
    for name in (LOSSES, WEIGHTS):
        assert (tmp_path / name).read_bytes() == (two[1] / name).read_bytes()


def test_it_is_another_training_than_with_one_device(two, tmp_path):
    model, _, _ = two
    one = trained(tmp_path, ONE)
    assert not torch.equal(weights(one), weights(model))
    # twelve steps move a weight by at most 12·lr
    assert (weights(one) - weights(model)).abs().max() < 12 * ONE.lr * 2


@pytest.mark.parametrize(
    ("setting", "changes"),
    [
        ("devices", {"devices": 0}),
        ("batch_size", {"devices": 3}),
        ("keep_last", {"devices": 2, "keep_last": True}),
    ],
)
def test_what_cannot_be_shared_is_refused(setting, changes):
    with pytest.raises(InvalidSetting, match=setting):
        replace(ONE, **changes)


@pytest.mark.parametrize(
    ("device", "count", "accelerator", "devices"),
    [
        ("cpu", 1, "cpu", 1),
        ("cpu", 2, "cpu", 2),
        ("cuda", 1, "gpu", 1),
        ("cuda:1", 1, "gpu", [1]),
        ("cuda:1", 2, "gpu", [1, 2]),
    ],
)
def test_it_trains_on_the_device_that_was_chosen(
    tmp_path, monkeypatch, device, count, accelerator, devices
):
    class Told(Exception):
        pass

    def told(**settings):
        raise Told(settings["accelerator"], settings["devices"])

    monkeypatch.setattr("pytorch_lightning.Trainer", told)
    with pytest.raises(Told) as caught:
        trained(tmp_path, replace(ONE, devices=count), device=device)
    assert caught.value.args == (accelerator, devices)
