"""What differs between the schedulers of diffusers: their paths, their networks and their loops.

Most schedulers are run by the loop of the documentation, and the attributes of the object say what
the path is. `LOOPS` has the others, by the names of their classes: their pipelines hand other
things to `step`, or have other methods.

A network that was trained on the scheduler's levels knows its level only from t. So the denoiser is
evaluated at the level that belongs to t, even if the scheduler has rounded t and its state is at a
slightly different level:

- a table ᾱ: t is an index, α² = ᾱ_t, σ² = 1 − ᾱ_t. Between two indices ln σ/α is linear, which
  is the inverse of the formula by which diffusers finds t. If the job's schedule is a table too, as
  that of a pretrained pipeline, the network gets the same t;
- flow matching (`FlowMatch…`, `use_flow_sigmas`, Helios, π-flow): t = T·σ, α = 1 − σ. MiniMax-H3
  has t = 1 − σ and a velocity towards the data;
- EDM (`EDMEuler…`, `EDMDPMSolver…`) and `timestep_type: continuous`: the scheduler's σ, since t is
  a logarithm of it; in EDM the network gives (x̂₀ − c_skip·x)/c_out with the scheduler's own c_skip
  and c_out;
- consistency models (`CMStochasticIterative…`): the same, with the posterior mean of the state at
  σ_min, x̂₀ + (σ_min/σ)²·(x − x̂₀), instead of x̂₀. That is what such a network learns if it is
  trained with one step, and x itself at σ_min, as their c_skip = 1 and c_out = 0 demand;
- TrigFlow (`SCM…`): α = cos t, σ = σ_d·sin t; the network gives (α·x − x̂₀)/sin t. Their pipeline
  multiplies latents of deviation 1 by σ_d; here the states are those of the data themselves;
- `IPNDMScheduler`: its own α and σ; the network gives v;
- `DDPMWuerstchen…`: its own function ᾱ(t), t in [0, 1]; the network gives ε;
- `ScoreSdeVe…`: α = 1, and its σ(t); the network gives the score −ε̂/σ. `KarrasVe…`: α = 1 and σ̂
  after the churn; it takes −ε̂. `ScoreSdeVp…`: the path of its linear β(t); it takes ε̂.

The networks of LCM, consistency models, SCM, Helios-DMD and π-flow are distilled ones, which know
more than x̂₀. With a denoiser instead, a scheduler shows its own scheme: π-flow, whose network gives
x̂₀ at several later times, gets the same x̂₀ for all of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplerbench.samplers.peers import Place

#: (α, σ) of some levels.
Scales = list[tuple[float, float]]
#: What a denoiser gives on a path whose scheduler has a `prediction_type`.
PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow_prediction")


@dataclass
class Run:
    """A run of a scheduler.

    Args:
        scheduler: the run's own copy.
        network: the model, called with the scaled state, the number of the call and the state.
        within: the context in which the code of the scheduler draws.
        more: arguments of the scheduler's methods that the settings give.
    """

    scheduler: Any
    network: Callable[[Tensor, int, Tensor], Tensor]
    within: Callable[[], AbstractContextManager[Any]]
    more: Mapping[str, Mapping[str, Any]]

    def call(self, method: str, *args: Any, **more: Any) -> Any:
        """Call a method of the scheduler."""
        with self.within():
            return getattr(self.scheduler, method)(*args, **more, **self.more[method])


def _documented(run: Run, x: Tensor) -> Iterator[Tensor]:
    """The loop of the documentation."""
    scaled = getattr(run.scheduler, "scale_model_input", _unscaled)
    for at, t in enumerate(run.scheduler.timesteps):
        x = run.call("step", run.network(scaled(x, t), at, x), t, x).prev_sample
        yield x


def _set_timesteps(scheduler: Any, steps: int, **more: Any) -> None:
    scheduler.set_timesteps(steps, **more)


def _by_prediction(scheduler: Any, at: int, place: Place, x: Tensor, x0_hat: Tensor) -> Tensor:
    """The output that `prediction_type` names."""
    kind = scheduler.config.prediction_type
    if kind == "sample":
        return x0_hat
    eps_hat = place.eps_hat(x, x0_hat)
    if kind == "epsilon":
        return eps_hat
    if kind == "v_prediction":
        return place.alpha * eps_hat - place.sigma * x0_hat
    return eps_hat - x0_hat


@dataclass(frozen=True)
class Loop:
    """How the schedulers of a class are run.

    Args:
        calls: (α, σ) of the network's input in each call, from the prepared scheduler.
        gives: the output of the network, from the scheduler, the number of the call, the place, the
            network's input and x̂₀.
        run: the states after each step, from the first one.
        states: (α, σ) of the states; None if each state is the input of one call.
        prepare: sets the timesteps for N steps.
        methods: the methods that the loop calls, whose other arguments are settings.
        hands: the arguments that the loop itself gives to these methods.
        unscaled: whether `gives` needs the state itself, not the scaled input.
        why_not: why a denoiser cannot replace the network with some settings, or None.
    """

    calls: Callable[[Any], Scales]
    gives: Callable[[Any, int, Place, Tensor, Tensor], Tensor] = _by_prediction
    run: Callable[[Run, Tensor], Iterator[Tensor]] = _documented
    states: Callable[[Any], Scales] | None = None
    prepare: Callable[..., None] = _set_timesteps
    methods: tuple[str, ...] = ("step",)
    hands: frozenset[str] = field(default_factory=frozenset)
    unscaled: bool = False
    why_not: Callable[[Any], str | None] = lambda scheduler: None

    @property
    def predicts(self) -> bool:
        """Whether the output depends on `prediction_type`."""
        return self.gives in (_by_prediction, _helios_gives)

    @property
    def indexed(self) -> bool:
        """Whether t is an index of a table of ᾱ."""
        return self.calls is _on_table


def _unscaled(x: Tensor, t: Tensor) -> Tensor:
    return x


def loop_of_class(kind: type) -> Loop | None:
    """The loop of a class with a row in `LOOPS`, or of a subclass of one."""
    return next((LOOPS[one.__name__] for one in kind.__mro__ if one.__name__ in LOOPS), None)


def loop_of(scheduler: Any) -> Loop | None:
    """The loop of a scheduler; None if its path is not known."""
    known = loop_of_class(type(scheduler))
    if known is not None:
        return known
    if hasattr(scheduler, "precondition_outputs"):
        return _EDM
    if not hasattr(scheduler, "alphas_cumprod"):
        return None
    if scheduler.config.get("use_flow_sigmas"):
        return _STRAIGHT
    return _CONTINUOUS if scheduler.config.get("timestep_type") == "continuous" else _TABLE


def states_of(loop: Loop, scheduler: Any, exploding: bool) -> Scales:
    """(α, σ) of the states of a run, with the last one."""
    if loop.states is not None:
        return loop.states(scheduler)
    scales = [(1.0, s / a) if exploding else (a, s) for a, s in loop.calls(scheduler)]
    return [*scales, _last(scheduler, exploding)]


def is_exploding(scheduler: Any) -> bool:
    """Whether its states have α = 1: then it scales the network's input."""
    if not hasattr(scheduler, "scale_model_input"):
        return False
    one = torch.ones(1)
    # on a copy, because the call may change its state
    scaled = copy.deepcopy(scheduler).scale_model_input(one, scheduler.timesteps[0])
    return not torch.equal(scaled, one)


def _last(scheduler: Any, exploding: bool) -> tuple[float, float]:
    """(α, σ) of the last state."""
    config = scheduler.config
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None:
        sigma = float(sigmas[-1])
        if exploding:
            return 1.0, sigma
        if config.get("use_flow_sigmas") or not hasattr(scheduler, "alphas_cumprod"):
            return 1 - sigma, sigma
        return 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)
    signal = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    return math.sqrt(signal), math.sqrt(1 - signal)


def _pairs(alpha: Tensor, sigma: Tensor) -> Scales:
    return list(zip(alpha.tolist(), sigma.tolist(), strict=True))


def _double(values: Any) -> Tensor:
    return torch.as_tensor(values).double().cpu()


def _exploding_path(sigma: Any) -> Scales:
    return [(1.0, float(one)) for one in sigma]


def _on_table(scheduler: Any) -> Scales:
    times, table = _double(scheduler.timesteps), _double(scheduler.alphas_cumprod)
    low = times.floor().long().clamp(0, len(table) - 1)
    high = (low + 1).clamp(max=len(table) - 1)
    # at an index take ᾱ itself, without rounding
    share = times - low
    logs = (1 - table).div(table).log() / 2
    kappa = torch.where(share == 0, logs[low], logs[low].lerp(logs[high], share)).exp()
    signal = torch.where(share == 0, table[low], 1 / (1 + kappa.square()))
    return _pairs(signal.sqrt(), (1 - signal).sqrt())


def _on_straight_path(scheduler: Any) -> Scales:
    sigma = _double(scheduler.timesteps) / scheduler.config.num_train_timesteps
    return _pairs(1 - sigma, sigma)


def _on_sigmas(scheduler: Any) -> Scales:
    return _exploding_path(_double(scheduler.sigmas)[: len(scheduler.timesteps)])


def _on_sigmas_of_unit_variance(scheduler: Any) -> Scales:
    kappa = _double(scheduler.sigmas)[: len(scheduler.timesteps)]
    alpha = 1 / (1 + kappa.square()).sqrt()
    return _pairs(alpha, alpha * kappa)


def _flow(scheduler: Any, at: int, place: Place, x: Tensor, x0_hat: Tensor) -> Tensor:
    return place.eps_hat(x, x0_hat) - x0_hat


def _eps(scheduler: Any, at: int, place: Place, x: Tensor, x0_hat: Tensor) -> Tensor:
    return place.eps_hat(x, x0_hat)


_TABLE = Loop(_on_table)
_STRAIGHT = Loop(_on_straight_path)
_CONTINUOUS = Loop(_on_sigmas_of_unit_variance)
_FLOW = Loop(_on_straight_path, _flow)


def _edm(scheduler: Any, at: int, place: Place, x: Tensor, x0_hat: Tensor) -> Tensor:
    sigma, zero = scheduler.sigmas[at], torch.zeros_like(x)
    skip: Tensor = scheduler.precondition_outputs(x, zero, sigma)
    out: Tensor = scheduler.precondition_outputs(zero, zero + 1, sigma)
    return (x0_hat - skip) / out


_EDM = Loop(_on_sigmas, _edm, unscaled=True)


def _consistency(scheduler: Any, at: int, place: Place, x: Tensor, x0_hat: Tensor) -> Tensor:
    skip, out = scheduler.get_scalings_for_boundary_condition(scheduler.sigmas[at])
    if not out:  # at σ_min any output gives x
        return torch.zeros_like(x)
    share = (scheduler.config.sigma_min / place.sigma) ** 2
    output: Tensor = (x0_hat.lerp(x, share) - skip * x) / out
    return output


def _v(scheduler: Any, at: int, place: Place, x: Tensor, x0_hat: Tensor) -> Tensor:
    return place.alpha * place.eps_hat(x, x0_hat) - place.sigma * x0_hat


def _of_ipndm(scheduler: Any) -> Scales:
    return _pairs(scheduler.alphas.double()[:-1], scheduler.betas.double()[:-1])


def _trig(scheduler: Any) -> Scales:
    times = _double(scheduler.timesteps)[:-1]
    # the first time is π/2 rounded up, where α is −4e-6
    return _pairs(times.cos().clamp(min=0), scheduler.config.sigma_data * times.sin())


def _trig_flow(scheduler: Any, at: int, place: Place, x: Tensor, x0_hat: Tensor) -> Tensor:
    sine: float = place.sigma / scheduler.config.sigma_data
    return (place.alpha * x - x0_hat) / sine


def _not_trig_flow(scheduler: Any) -> str | None:
    predicts = scheduler.config.prediction_type
    return None if predicts == "trigflow" else f"its prediction_type={predicts} is not trigflow"


def _without_last_time(run: Run, x: Tensor) -> Iterator[Tensor]:
    """The last timestep is that of the last state."""
    for at, t in enumerate(run.scheduler.timesteps[:-1]):
        x = run.call("step", run.network(x, at, x), t, x).prev_sample
        yield x


def _on_cosine(scheduler: Any) -> Scales:
    signal = scheduler._alpha_cumprod(_double(scheduler.timesteps), torch.device("cpu"))
    return _pairs(signal.sqrt(), (1 - signal).sqrt())


def _wuerstchen(run: Run, x: Tensor) -> Iterator[Tensor]:
    """The last timestep is that of the last state, and `step` gets a time for each row.

    The pipeline casts the times to the dtype of the states. In float64 that gives √ of negative
    numbers, since `step` looks up the next time in float32. So they stay float32 here.
    """
    times = run.scheduler.timesteps = run.scheduler.timesteps.to(x.device)
    for at, t in enumerate(times[:-1]):
        x = run.call("step", run.network(x, at, x), t.expand(len(x)), x).prev_sample
        yield x


def _unclip(run: Run, x: Tensor) -> Iterator[Tensor]:
    """`step` gets the next timestep."""
    times = run.scheduler.timesteps
    for at, (t, after) in enumerate(zip(times, [*times[1:], None], strict=True)):
        y = run.network(run.scheduler.scale_model_input(x, t), at, x)
        x = run.call("step", y, t, x, prev_timestep=after).prev_sample
        yield x


def _cogvideo(run: Run, x: Tensor) -> Iterator[Tensor]:
    """`step` gets the x̂₀ and the timestep of the step before."""
    times, old = run.scheduler.timesteps, None
    for at, (t, back) in enumerate(zip(times, [None, *times[:-1]], strict=True)):
        y = run.network(run.scheduler.scale_model_input(x, t), at, x)
        x, old = run.call("step", y, old, t, back, x)
        yield x


def _on_time_to_data(scheduler: Any) -> Scales:
    times = _double(scheduler.timesteps)
    return _pairs(times, 1 - times)


def _towards_data(scheduler: Any, at: int, place: Place, x: Tensor, x0_hat: Tensor) -> Tensor:
    return x0_hat - place.eps_hat(x, x0_hat)


def _widened(scheduler: Any, at: int, place: Place, x: Tensor, x0_hat: Tensor) -> Tensor:
    """The same velocity at each point of the policy's grid: their x̂₀ is the same."""
    return torch.cat([_flow(scheduler, at, place, x, x0_hat)] * scheduler.n_grid, -1)


def _pyramid(scheduler: Any) -> str | None:
    if scheduler.config.stages != 1:
        return (
            f"its {scheduler.config.stages} stages have resolutions and paths of their own, and a "
            "law of data has one: stages=1"
        )
    if not scheduler.config.use_flow_sigmas:
        return "with use_flow_sigmas=false its timesteps are not those of its states"
    return None


def _prepare_helios(scheduler: Any, steps: int, **more: Any) -> None:
    """As `HeliosPipeline` does, which has no pyramid."""
    scheduler.set_timesteps(steps, sigmas=np.linspace(0.999, 0, steps + 1)[:-1], **more)


def _helios_gives(scheduler: Any, at: int, place: Place, x: Tensor, x0_hat: Tensor) -> Tensor:
    gives = _flow if scheduler.config.scheduler_type == "euler" else _by_prediction
    return gives(scheduler, at, place, x, x0_hat)


def _on_whole_times(scheduler: Any) -> Scales:
    """The pipeline rounds the time of the network down."""
    sigma = _double(scheduler.timesteps).floor() / scheduler.config.num_train_timesteps
    return _pairs(1 - sigma, sigma)


def _of_sigmas(scheduler: Any) -> Scales:
    sigma = _double(scheduler.sigmas)
    return _pairs(1 - sigma, sigma)


def _distilled_helios(run: Run, x: Tensor) -> Iterator[Tensor]:
    """Videos, whose noise is that of the start in every step; `HeliosPyramidPipeline`."""
    scheduler, shape = run.scheduler, x.shape
    frames = (-1, shape[-1], 1, 1, 1)
    start = x.reshape(frames)
    handed = {
        "dmd_noisy_tensor": start,
        "dmd_sigmas": scheduler.sigmas,
        "dmd_timesteps": scheduler.timesteps,
        "all_timesteps": scheduler.timesteps,
    }
    for at, t in enumerate(scheduler.timesteps):
        y = run.network(x, at, x).reshape(frames)
        video = run.call("step", y, t, x.reshape(frames), cur_sampling_step=at, **handed)
        x = video.prev_sample.reshape(shape)
        yield x


def _set_timesteps_and_sigmas(scheduler: Any, steps: int, **more: Any) -> None:
    scheduler.set_timesteps(steps, **more)
    scheduler.set_sigmas(steps)


def _corrected(scheduler: Any) -> Scales:
    each = scheduler.config.correct_steps + 1
    return [pair for pair in _exploding_path(scheduler.sigmas) for _ in range(each)]


def _score(scheduler: Any, at: int, place: Place, x: Tensor, x0_hat: Tensor) -> Tensor:
    return place.eps_hat(x, x0_hat) / -place.sigma


def _score_sde_ve(run: Run, x: Tensor) -> Iterator[Tensor]:
    """Corrections at a level, then a step to the next one; the last step adds no noise."""
    scheduler, call = run.scheduler, 0
    for step, t in enumerate(scheduler.timesteps, 1):
        for _ in range(scheduler.config.correct_steps):
            x = run.call("step_correct", run.network(x, call, x), x).prev_sample
            call += 1
        out = run.call("step_pred", run.network(x, call, x), t, x)
        x, call = out.prev_sample, call + 1
        yield out.prev_sample_mean if step == len(scheduler.timesteps) else x


def _churned(scheduler: Any) -> Scales:
    """σ̂ of each step, and σ of the correction that follows."""
    still, unused = torch.zeros(1), torch.Generator()
    sigmas: list[float] = []
    for t in scheduler.timesteps:
        _, churned = scheduler.add_noise_to_input(still, scheduler.schedule[t], generator=unused)
        sigmas += [churned, *([scheduler.schedule[t - 1]] if t > 0 else [])]
    return _exploding_path(sigmas)


def _of_schedule(scheduler: Any) -> Scales:
    return _exploding_path([*reversed(scheduler.schedule.tolist()), 0.0])


def _karras_ve(run: Run, x: Tensor) -> Iterator[Tensor]:
    """Churn, a step of Euler, and the correction of Heun."""
    scheduler, call = run.scheduler, 0
    for t in scheduler.timesteps:
        sigma = scheduler.schedule[t]
        to = scheduler.schedule[t - 1] if t > 0 else 0
        noisy, churned = run.call("add_noise_to_input", x, sigma)
        y = run.network(noisy, call, noisy)
        out = run.call("step", y, churned, to, noisy)
        x, call = out.prev_sample, call + 1
        if to != 0:
            y = run.network(x, call, x)
            x = run.call("step_correct", y, churned, to, noisy, x, out.derivative).prev_sample
            call += 1
        yield x


def _minus_eps(scheduler: Any, at: int, place: Place, x: Tensor, x0_hat: Tensor) -> Tensor:
    return -place.eps_hat(x, x0_hat)


def _on_linear_beta(scheduler: Any) -> Scales:
    times, low = _double(scheduler.timesteps), scheduler.config.beta_min
    log_alpha = -0.25 * times.square() * (scheduler.config.beta_max - low) - 0.5 * times * low
    return _pairs(log_alpha.exp(), (-(2 * log_alpha).expm1()).sqrt())


def _score_sde_vp(run: Run, x: Tensor) -> Iterator[Tensor]:
    """`step_pred` gets a time for each row; the last step adds no noise."""
    times = run.scheduler.timesteps.to(x.device)
    for at, t in enumerate(times):
        x, mean = run.call("step_pred", run.network(x, at, x), x, t.expand(len(x)))
        yield mean if at + 1 == len(times) else x


#: The schedulers with paths, networks or loops of their own; their subclasses too.
LOOPS: Mapping[str, Loop] = {
    "FlowMatchEulerDiscreteScheduler": _FLOW,
    "FlowMatchHeunDiscreteScheduler": _FLOW,
    "FlowMatchLCMScheduler": _FLOW,
    "LTXEulerAncestralRFScheduler": _FLOW,
    "IPNDMScheduler": Loop(_of_ipndm, _v),
    "UnCLIPScheduler": replace(_TABLE, run=_unclip, hands=frozenset({"prev_timestep"})),
    "CogVideoXDPMScheduler": replace(
        _TABLE, run=_cogvideo, hands=frozenset({"old_pred_original_sample", "timestep_back"})
    ),
    "CMStochasticIterativeScheduler": Loop(_on_sigmas, _consistency, unscaled=True),
    "SCMScheduler": Loop(_trig, _trig_flow, _without_last_time, why_not=_not_trig_flow),
    "DDPMWuerstchenScheduler": Loop(
        lambda scheduler: _on_cosine(scheduler)[:-1], _eps, _wuerstchen, _on_cosine
    ),
    "MiniMaxH3Scheduler": Loop(_on_time_to_data, _towards_data),
    "PiflowScheduler": Loop(_on_straight_path, _widened),
    "HeliosScheduler": Loop(
        _on_straight_path,
        _helios_gives,
        prepare=_prepare_helios,
        hands=frozenset({"stage_index"}),
        why_not=_pyramid,
    ),
    "HeliosDMDScheduler": Loop(
        _on_whole_times,
        _flow,
        _distilled_helios,
        _of_sigmas,
        hands=frozenset(
            {
                *("stage_index", "cur_sampling_step", "dmd_noisy_tensor", "dmd_sigmas"),
                *("dmd_timesteps", "all_timesteps"),
            }
        ),
        why_not=_pyramid,
    ),
    "ScoreSdeVeScheduler": Loop(
        _corrected,
        _score,
        _score_sde_ve,
        lambda scheduler: _exploding_path([*scheduler.sigmas.tolist(), 0.0]),
        prepare=_set_timesteps_and_sigmas,
        methods=("step_correct", "step_pred"),
    ),
    "KarrasVeScheduler": Loop(
        _churned,
        _minus_eps,
        _karras_ve,
        _of_schedule,
        methods=("add_noise_to_input", "step", "step_correct"),
        hands=frozenset({"sigma", "sigma_hat", "sigma_prev", "sample_hat"})
        | {"sample_prev", "derivative"},
    ),
    "ScoreSdeVpScheduler": Loop(
        _on_linear_beta,
        _eps,
        _score_sde_vp,
        methods=("step_pred",),
        hands=frozenset({"score", "x", "t"}),
    ),
}
