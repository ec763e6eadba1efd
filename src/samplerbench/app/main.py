"""The command line: `samplerbench` and `python -m samplerbench`.

A mistake of the user's ends with one line on standard error and status 2, before any work is done;
`debug=true` shows where it was noticed. Nothing heavy is imported before the config is composed.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from samplerbench.errors import CellsFailed, InvalidSetting


def conf_directory() -> Path:
    """The folder of the config groups: inside an installed wheel, beside src/ in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def run_name() -> str:
    """A folder name that no other run has: the clock for people, 64 random bits for the rest."""
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{os.urandom(8).hex()}"


def _fidelity(quick: Any, notebook: Any, *, _root_: DictConfig) -> Any:
    """One of two settings of an experiment, by the key `fidelity`."""
    settings = {"quick": quick, "notebook": notebook}
    if _root_.fidelity not in settings:
        raise InvalidSetting("fidelity", _root_.fidelity, f"one of {', '.join(settings)}")
    return settings[_root_.fidelity]


OmegaConf.register_new_resolver("samplerbench.run_name", run_name, use_cache=True, replace=True)
OmegaConf.register_new_resolver("fidelity", _fidelity, replace=True)


@hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="config")
def _job(config: DictConfig) -> None:
    from samplerbench.app.job import run

    try:
        run(config)
    except (InvalidSetting, OmegaConfBaseException, CellsFailed) as error:
        # in a multirun the other jobs go on, and Hydra raises the error again at the end
        if HydraConfig.get().mode != RunMode.RUN or config.get("debug"):
            raise
        sys.exit(_complain(str(error), 1 if isinstance(error, CellsFailed) else 2))


#: What comes before Hydra: a module with a `main` that takes the words after the command.
COMMANDS = {
    "list": "samplerbench.app.listing",
    "check": "samplerbench.app.check",
    "score": "samplerbench.app.score",
}


def main() -> None:
    """Run the command line and leave with its status: 0, 1 for a failure, 2 for bad input."""
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        try:
            import_module(COMMANDS[sys.argv[1]]).main(sys.argv[2:])
        except (InvalidSetting, HydraException) as error:
            sys.exit(_complain(str(error)))
        return
    # Hydra then raises its errors instead of printing several lines and leaving with status 1
    os.environ["HYDRA_FULL_ERROR"] = "1"
    debug = any(re.fullmatch(r"\+*debug=(true|1|yes|on)", word, re.I) for word in sys.argv[1:])
    try:
        _job()
    except OverrideParseException as error:
        if debug:
            raise
        sys.exit(_complain(f"{error.override}: {error}"))
    except (InvalidSetting, HydraException, OmegaConfBaseException) as error:
        if debug:
            raise
        sys.exit(_complain(str(error)))
    except CellsFailed as error:
        sys.exit(_complain(str(error), 1))
    except (OSError, ValueError, yaml.YAMLError) as error:
        # from Hydra's own code: a folder it cannot make, a group set to what is no member, a yaml
        # that is none
        if debug or not _raised_by_hydra(error):
            raise
        emptied = "".join(f"{word}: " for word in sys.argv[1:] if word.endswith("=null"))
        sys.exit(_complain(f"{emptied}{error}"))
    except KeyboardInterrupt:
        print("samplerbench: interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(130)


def _raised_by_hydra(error: BaseException) -> bool:
    ours = traceback.extract_tb(error.__traceback__)
    return not any(f"samplerbench{os.sep}app{os.sep}job" in frame.filename for frame in ours)


def _complain(message: str, status: int = 2) -> int:
    """Print the message as one line; the status to leave with, 2 for bad input."""
    # Hydra adds where it looked and where to read more; the first part says what was wrong
    message = re.split(r"\n(?:Config search path|See https|    full_key)", message)[0]
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = " ".join(lines)
    print(f"samplerbench: {text}", file=sys.stderr)
    return status
