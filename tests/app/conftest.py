"""What the tests of commands share."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from samplerbench.app.config.folders import conf_directory


@pytest.fixture
def composed():
    """Composes words as a command would, which build sees; forgets them afterwards."""
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):

        def commanded(*words):
            config = compose("config", list(words), return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            return compose("config", list(words))

        yield commanded
    HydraConfig.instance().cfg = None
