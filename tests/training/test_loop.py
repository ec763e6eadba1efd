"""Training: it returns the average, a seed determines it, and the network learns."""

from __future__ import annotations

import os
import pickle
import signal
from dataclasses import replace
from functools import cache

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only

from helpers import mostly_slow
from samplerbench.core.grids import Level
from samplerbench.core.level_laws import LogNormal
from samplerbench.core.noise import torch_generator
from samplerbench.core.schedules import EDM
from samplerbench.core.targets import EDMTarget
from samplerbench.core.weightings import Uniform
from samplerbench.datasets.gaussian import gaussian
from samplerbench.errors import RunFailed
from samplerbench.networks.residual_mlp import ResidualMLP
from samplerbench.objectives.base import Recipe
from samplerbench.objectives.denoising import Denoising
from samplerbench.training.batches import TensorData
from samplerbench.training.fitting import Fitting
from samplerbench.training.loop import train
from samplerbench.training.weights import LOSSES, STATE, WEIGHTS, load

LAW = gaussian((3.0, -1.0), ((4.0, 1.0), (1.0, 0.5)))
SCHEDULE = EDM(10.0)
RECIPE = Recipe(steps=12, batch_size=32, lr=3e-3, ema_decay=0.8, log_every=4)


DATA = TensorData(LAW.draws(500, "train"), LAW.draws(100, "validation"))


def objective(recipe, seed=0):
    return Denoising(
        network=ResidualMLP(2, 0, width=32),
        target=EDMTarget(),
        schedule=SCHEDULE,
        level_law=LogNormal(0.0, 1.2, 0.02, 10.0),
        weighting=Uniform(),
        recipe=recipe,
        mean=DATA.mean,
        std=DATA.std,
        train_seed=seed,
    )


def run(directory, recipe=RECIPE, seed=0, callbacks=(), resumable=False, log=None):
    return train(
        objective(recipe, seed),
        DATA,
        directory=directory,
        callbacks=callbacks,
        progress=False,
        resumable=resumable,
        log=log,
    )


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Record(Callback):
    """Keeps the weights after every step, and the rates."""

    def __init__(self):
        self.weights, self.rates, self.batches = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.weights.append(weights(pl_module.objective.model).clone())
        self.batches.append(batch)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize("every", [1, 4])
def test_the_average_of_the_weights_is_returned(every, tmp_path):
    record = Record()
    state = torch.get_rng_state()
    model = run(tmp_path, replace(RECIPE, ema_every=every), callbacks=[record])
    assert torch.equal(state, torch.get_rng_state())
    average = record.weights[0].clone()
    for after in record.weights[every::every]:
        average = 0.8**every * average + (1 - 0.8**every) * after
    assert len(record.weights) == 12
    torch.testing.assert_close(weights(model), average, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(average, record.weights[-1], atol=1e-4)
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in model.parameters())
    assert not model.training
    for name, buffer in model.named_buffers():  # constants, to the last bit
        assert torch.equal(buffer, dict(objective(RECIPE).model.named_buffers())[name])


def test_without_averaging_the_last_weights_are_returned(tmp_path):
    record = Record()
    model = run(tmp_path, replace(RECIPE, ema_decay=None), callbacks=[record])
    assert torch.equal(weights(model), record.weights[-1])


def test_a_seed_is_a_run(tmp_path):
    first, second, other = (weights(run(tmp_path, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.allclose(first, other, atol=1e-4)


class Killed(Exception):
    """As if the process had ended there."""


class KillAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            raise Killed


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path):
    recipe = replace(RECIPE, steps=24, lr_final=0.0, warmup=3, validate_every=6)
    whole, rest = Record(), Record()
    expected = run(tmp_path / "whole", recipe, callbacks=[whole])
    with pytest.raises(Killed):
        run(tmp_path, recipe, callbacks=[KillAt(11)], resumable=True)
    assert not (tmp_path / WEIGHTS).exists()
    resumed = run(tmp_path, recipe, callbacks=[rest], resumable=True)
    assert len(rest.batches) == 24 - 8  # the state was kept after steps 4 and 8
    assert all(torch.equal(a, b) for a, b in zip(rest.batches, whole.batches[8:], strict=True))
    assert rest.rates == whole.rates[8:]
    assert torch.equal(weights(resumed), weights(expected))
    assert (tmp_path / LOSSES).read_text() == (tmp_path / "whole" / LOSSES).read_text()
    assert not (tmp_path / STATE).exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folders of uninterrupted trainings, by their validate_every."""

    @cache
    def folder(validate_every):
        place = tmp_path_factory.mktemp("whole")
        run(place, replace(RECIPE, steps=16, validate_every=validate_every))
        return place

    return folder


def same_files(one, other):
    return all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in (LOSSES, WEIGHTS)
    )


@pytest.mark.parametrize(
    ("validate_every", "stop"),
    mostly_slow([(4, 4), (4, 5), (4, 8), (3, 9), (3, 12), (3, 13), (12, 12), (12, 13)], 4),
)
def test_whenever_it_is_interrupted_the_files_have_the_same_bytes(
    whole, tmp_path, validate_every, stop
):
    """The state is kept after every fourth step, some of which are followed by validation."""
    recipe = replace(RECIPE, steps=16, validate_every=validate_every)
    with pytest.raises(Killed):
        run(tmp_path, recipe, callbacks=[KillAt(stop)], resumable=True)
    assert (tmp_path / STATE).exists() == (stop > 4)
    run(tmp_path, recipe, resumable=True)
    assert same_files(tmp_path, whole(validate_every))


def test_an_interrupted_validation_is_done_again(whole, tmp_path):
    class KillInValidation(Callback):
        def on_validation_start(self, trainer, pl_module):
            if trainer.global_step == 8:
                raise Killed

    recipe = replace(RECIPE, steps=16, validate_every=4)
    with pytest.raises(Killed):
        run(tmp_path, recipe, callbacks=[KillInValidation()], resumable=True)
    rest = Record()
    run(tmp_path, recipe, callbacks=[rest], resumable=True)
    assert len(rest.batches) == 16 - 4
    assert same_files(tmp_path, whole(4))


#: Whatever Lightning reads of the environment, with what would change a training.
SURROUNDINGS = {
    "RANK": "1",
    "LOCAL_RANK": "3",
    "SLURM_PROCID": "1",
    "JSM_NAMESPACE_RANK": "1",
    "NODE_RANK": "1",
    "GROUP_RANK": "1",
    "WORLD_SIZE": "4",
    "MASTER_ADDR": "192.0.2.1",
    "MASTER_PORT": "1",
    "PL_TRAINER_GRADIENT_CLIP_VAL": "1e-9",
    "PL_TRAINER_FAST_DEV_RUN": "1",
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_environment_has_no_say_in_a_training(tmp_path, monkeypatch, devices):
    recipe = replace(RECIPE, devices=devices, validate_every=4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run(tmp_path / "alone", recipe)
    for name, value in SURROUNDINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # Lightning reads it when it is imported
    before = dict(os.environ)

    class Look(Callback):
        def on_fit_end(self, trainer, pl_module):
            seen = f"{rank_zero_only.rank} {trainer.global_rank} {torch.get_num_threads()}"
            (tmp_path / str(trainer.local_rank)).write_text(seen)

    threads = torch.get_num_threads()
    run(tmp_path, recipe, callbacks=[Look()], resumable=True)
    for rank in range(devices):
        assert (tmp_path / str(rank)).read_text() == f"{rank} {rank} {threads}"
    assert same_files(tmp_path, tmp_path / "alone")
    assert dict(os.environ) == before
    assert rank_zero_only.rank == 1


def test_slurm_s_signals_are_left_to_who_requeues_the_job(tmp_path, monkeypatch):
    """Lightning's own handler would keep a state from the middle of a step and go on from it."""
    job = {"SLURM_NTASKS": "1", "SLURM_JOB_ID": "5"}
    task = dict.fromkeys(("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"), "0")
    for name, value in {**job, **task}.items():
        monkeypatch.setenv(name, value)
    found = []

    class Look(Callback):
        def on_train_start(self, trainer, pl_module):
            found.append(signal.getsignal(signal.SIGUSR1))

    run(tmp_path, callbacks=[Look()])
    assert found == [signal.SIG_DFL]


def test_a_training_that_ended_as_its_weights_were_written_ends_the_same(tmp_path, monkeypatch):
    expected = weights(run(tmp_path / "whole"))
    with monkeypatch.context() as patched:
        patched.setattr(
            "samplerbench.training.loop.save", lambda *_: (_ for _ in ()).throw(Killed())
        )
        with pytest.raises(Killed):
            run(tmp_path, resumable=True)
    assert torch.equal(weights(run(tmp_path, resumable=True)), expected)


@pytest.mark.parametrize("content", [b"", b"PK", pickle.dumps(print)])
def test_a_state_that_cannot_be_used_is_named_and_put_aside(tmp_path, caplog, content):
    (tmp_path / STATE).write_bytes(content)
    found = run(tmp_path, resumable=True)
    assert "is not usable" in caplog.text
    assert torch.equal(weights(found), weights(run(tmp_path / "other")))
    assert (tmp_path / f"{STATE}.unusable").read_bytes() == content


def test_a_state_with_other_bytes_is_put_aside(tmp_path, caplog):
    expected = weights(run(tmp_path / "whole"))
    with pytest.raises(Killed):
        run(tmp_path, callbacks=[KillAt(6)], resumable=True)
    content = bytearray((tmp_path / STATE).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(b ^ 1 for b in content[middle : middle + 200])
    (tmp_path / STATE).write_bytes(content)
    assert torch.equal(weights(run(tmp_path, resumable=True)), expected)
    assert "is not usable" in caplog.text
    assert (tmp_path / f"{STATE}.unusable").read_bytes() == content


def test_weights_are_written_and_read_back(tmp_path):
    model = run(tmp_path)
    again = load(objective(RECIPE, 5).model, tmp_path / WEIGHTS)
    x = LAW.draws(10, "test")
    level = Level(0.1, 1.0, 1.0)
    assert torch.equal(model.denoiser(x, level), again.denoiser(x, level))


def test_losses_are_logged_now_and_then(tmp_path):
    logged = []
    run(tmp_path, replace(RECIPE, validate_every=6), log=lambda rows: logged.append(list(rows)))
    steps = [(step, name) for step, name, _ in logged[-1]]
    train, validation = "train", "validation"
    assert steps == [(4, train), (6, validation), (8, train), (12, train), (12, validation)]
    assert logged == [logged[-1][:count] for count in range(1, 6)]
    lines = "".join(f"{step},{name},{loss!r}\n" for step, name, loss in logged[-1])
    assert (tmp_path / LOSSES).read_text() == f"step,name,loss\n{lines}"


def test_a_run_without_validation_data(tmp_path):
    recipe = replace(RECIPE, validate_every=6)
    data = TensorData(LAW.draws(50, "train"), None)
    train(objective(recipe), data, directory=tmp_path, progress=False)
    assert (tmp_path / WEIGHTS).exists()


def test_validation_has_the_same_noise_every_time():
    one = Fitting(objective(RECIPE, 1), DATA)
    logged = []
    one.log = lambda name, value, **_: logged.append(float(value))
    for _ in range(2):
        with torch.no_grad():
            one.validation_step(DATA.validation, 0)
    assert logged[0] == logged[1]


@pytest.mark.parametrize("devices", mostly_slow([1, 2], 0))
@pytest.mark.parametrize(
    ("lr", "steps", "said"),
    [
        (1e25, 12, "the training loss is not finite by step"),
        (1e39, 1, "the weights are not finite"),
    ],
)
def test_what_is_not_finite_ends_the_training_with_one_line(tmp_path, devices, lr, steps, said):
    with pytest.raises(RunFailed) as caught:
        run(tmp_path, replace(RECIPE, lr=lr, steps=steps, devices=devices))
    assert str(caught.value).startswith(f"trainer.lr={lr}: must be smaller: {said}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / WEIGHTS).exists()


def test_bfloat16_training_returns_float32(tmp_path):
    model = run(tmp_path, replace(RECIPE, precision="bf16-mixed"))
    exact = weights(run(tmp_path))
    assert weights(model).dtype == torch.float32
    assert not torch.equal(weights(model), exact)
    torch.testing.assert_close(weights(model), exact, rtol=0, atol=0.05)


@pytest.mark.slow
def test_the_network_learns_a_gaussian(tmp_path):
    def error(model):
        """Mean squared distance to the exact denoiser, as a share of the posterior variance."""
        oracle, x0 = LAW.oracle(SCHEDULE), LAW.draws(4000, "test")
        eps = torch.randn(x0.shape, generator=torch_generator("eps"), dtype=x0.dtype)
        shares = []
        for sigma in (0.5, 1.0, 2.0):
            level = Level(sigma / 10, 1.0, sigma)
            x = x0 + sigma * eps
            exact = oracle.denoiser(x, level)
            distance = (model.denoiser(x, level) - exact).square().sum(-1).mean()
            shares.append(float(distance / (x0 - exact).square().sum(-1).mean()))
        return max(shares)

    recipe = Recipe(
        steps=200, batch_size=256, lr=1e-2, lr_final=0.0, warmup=10, ema_decay=0.9, log_every=100
    )
    # the preconditioning alone denoises as if the covariance were std²·I
    before = error(objective(recipe).model.requires_grad_(False))
    after = error(run(tmp_path, recipe))
    assert before > 0.15
    assert after < 0.03


def test_validation_is_one_batch_of_all_held_out_data(tmp_path, monkeypatch):
    sizes, loss = [], Denoising.loss

    def watched(self, x0, generator):
        sizes.append(len(x0))
        return loss(self, x0, generator)

    monkeypatch.setattr(Denoising, "loss", watched)
    run(tmp_path, replace(RECIPE, validate_every=6))
    assert [size for size in sizes if size != 32] == [100, 100]
