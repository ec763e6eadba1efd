"""A log as a Weights & Biases run."""

from __future__ import annotations

import logging
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from samplerbench.environment import environment
from samplerbench.errors import RunFailed, first_line, require
from samplerbench.logs.base import Log, Logger, RunInfo, curve_points, keep_earlier_log

if TYPE_CHECKING:
    import pandas as pd
    import wandb

message = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled"]


@dataclass(frozen=True)
class Wandb(Logger):
    """Weights & Biases; by default offline, without an account or a network.

    If the mode is online and the server cannot be reached or there is no key, the run continues
    offline with one warning. Code, git state, console output and machine data are not recorded.
    """

    project: str = "samplerbench"  # name of the project
    entity: str | None = None  # team or user; the account's own by default
    mode: Mode = "offline"  # online, offline or disabled
    # seconds to wait for the server at the start; wandb's own default is 90
    init_timeout: float = 6.0
    # seconds to wait for uploads at the end; the rest stays on the disk
    finish_timeout: float = 300.0

    def __post_init__(self) -> None:
        valid_name = 0 < len(self.project) <= 128 and not set(self.project) & set("/\\#?%:")
        require(valid_name, "project", self.project, "1 to 128 characters, none of / \\ # ? % :")
        modes = get_args(Mode)
        require(self.mode in modes, "mode", self.mode, f"one of {', '.join(modes)}")
        for field in ("init_timeout", "finish_timeout"):
            seconds = getattr(self, field)
            require(0 < seconds < math.inf, field, seconds, "more than 0 seconds, and finite")

    def open(self, run: RunInfo) -> Log:
        return WandbLog(self, run)


class WandbLog(Log):
    """One wandb run in its own wandb service, which ends with the log.

    So two runs in one process share neither a run nor settings, and no process is left behind.
    """

    def __init__(self, settings: Wandb, run: RunInfo) -> None:
        import wandb  # it takes about a second, and an error in the config is reported before

        folder = run.directory.absolute() / "wandb"
        if settings.mode != "disabled":
            keep_earlier_log(folder)
        # the tags of the user's environment may be too long, too
        tags = [*run.tags, *map(str.strip, os.environ.get("WANDB_TAGS", "").split(","))]
        with ExitStack() as stack:
            # wandb reads these settings only from the environment
            stack.enter_context(
                environment(
                    {
                        # Copies of the tables, which `wandb sync` uploads later, and the log of
                        # the service. By default both are in the home folder.
                        "WANDB_DATA_DIR": str(folder / "data"),
                        "WANDB_CACHE_DIR": str(folder / "cache"),
                        # Error reports are sent when the process ends; without a network it hangs.
                        "WANDB_ERROR_REPORTING": "false",
                        # A job has its own, complete run and never continues another one.
                        "WANDB_TAGS": None,
                        "WANDB_RUN_ID": None,
                        "WANDB_RESUME": None,
                    }
                )
            )
            stack.callback(wandb.teardown)
            identity = secrets.token_hex(4)
            options = {
                "dir": str(run.directory.absolute()),
                "id": identity,
                "project": settings.project,
                "entity": settings.entity,
                "name": _shortened(run.name, 128),
                "group": run.group and _shortened(run.group, 128),
                "tags": [_shortened(tag, 64) for tag in dict.fromkeys(filter(None, tags))],
                "config": dict(run.config),
            }
            try:
                self._run = _start(settings, settings.mode, options)
            except (wandb.Error, TimeoutError) as error:
                wandb.teardown()
                for attempt in folder.glob(f"run-*-{identity}"):
                    shutil.rmtree(attempt)
                reason = first_line(error).rstrip(".")
                message.warning("wandb: %s. This run is logged offline, in %s", reason, folder)
                self._run = _start(settings, "offline", options)
            # the x axis of the losses
            self._run.define_metric("trainer/global_step")
            self._run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
            self._stack = stack.pop_all()

    @property
    def where(self) -> str:
        folder = Path(self._run.dir).parent
        return self._run.url or (str(folder) if folder.exists() else "")

    def _loss(self, step: int, name: str, loss: float) -> None:
        self._run.log({f"{name}/loss": loss, "trainer/global_step": step})

    def table(self, key: str, frame: pd.DataFrame) -> None:
        import wandb

        most_rows = wandb.Table.MAX_ROWS
        if len(frame) > most_rows:
            message.warning(
                "wandb: shows the first %d of %d rows of %s", most_rows, len(frame), key
            )
        # wandb would write NaN, which is not JSON and which other programs cannot read
        plain = frame.astype(object).where(frame.notna(), None)
        # given a frame, or no `optional`, wandb checks the type of each single cell
        table = wandb.Table(
            columns=list(frame.columns),
            data=plain.to_numpy(),
            optional=frame.isna().any().tolist(),
            allow_mixed_types=True,
        )
        self._run.log({key: table})

    def figure(self, key: str, png: Path) -> None:
        import wandb

        self._run.log({key: wandb.Image(str(png))})

    def curves(
        self, key: str, frame: pd.DataFrame, x: Sequence[str], y: str, by: Sequence[str]
    ) -> None:
        # A metric has its own x axis: wandb silently drops a call whose `step=` is not the latest.
        # One call for each x and not for each point: the server limits the rate of calls.
        points = curve_points(key, frame, x, y, by)
        for axis in x:
            self._run.define_metric(axis, hidden=True)
        for curve in dict.fromkeys(curve for values in points.values() for curve in values):
            self._run.define_metric(_metric_name(curve), step_metric=x[0])
        for point, values in points.items():
            named = {_metric_name(curve): value for curve, value in values.items()}
            self._run.log({**dict(zip(x, point, strict=True)), **named})

    def files(self, paths: Iterable[Path]) -> None:
        for path in paths:
            # The file is finished: copy it now. By default wandb watches it until the run ends.
            self._run.save(path, base_path=path.parent, policy="now", glob=False)

    def close(self, failed: bool) -> None:
        with self._stack:
            try:
                self._run.finish(exit_code=int(failed))
            except TimeoutError:
                folder = Path(self._run.dir).parent
                message.warning("wandb: the upload is incomplete; run: wandb sync %s", folder)


def _metric_name(curve: str) -> str:
    """A curve's name in characters with which wandb's app can sort and filter runs.

    These are the characters of a GraphQL name, and the slash: "prior/ddim η=0.5" becomes
    "prior/ddim_eta_0_5".
    """
    return re.sub(r"[^a-zA-Z0-9_/]", "_", curve.replace("η", "eta").replace("+", ""))


def _shortened(text: str, most: int) -> str:
    """The text, or at most so many characters of it with a digest, so that long texts differ."""
    if len(text) <= most:
        return text
    return f"{text[: most - 9]}…{sha256(text.encode()).hexdigest()[:8]}"


def _start(settings: Wandb, mode: Mode, options: Mapping[str, Any]) -> wandb.Run:
    """Start a run; wandb may refuse one of its own settings in the environment."""
    import wandb
    from pydantic import ValidationError

    try:
        own_settings = wandb.Settings(
            mode=mode,
            silent=True,  # it also means that wandb raises an error instead of asking for a key
            init_timeout=settings.init_timeout,
            finish_timeout=settings.finish_timeout,
            finish_timeout_raises=True,
            console="off",
            save_code=False,
            disable_code=True,
            disable_git=True,
            symlink=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        wandb.setup(settings=own_settings)
    except ValidationError as error:
        wrong = error.errors()[0]
        setting = "_".join(map(str, wrong["loc"])).upper()
        raise RunFailed(f"logger=wandb: WANDB_{setting} is refused: {wrong['msg']}") from error
    return wandb.init(settings=own_settings, reinit="create_new", **options)
