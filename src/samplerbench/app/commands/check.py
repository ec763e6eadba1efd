"""`samplerbench check [sampler…]`: what samplers really do, beside what they declare.

A sampler is named as in conf/sampler/, with its settings there, or as a class of any package that
can be imported, also from the current folder: `samplerbench check heun my_package.MySampler`.
Without a name all are checked. To name a class is to trust its code: it runs.

- *order*: on a Gaussian and on a mixture, on three paths; see `verify.orders`. More than is
  declared is no mistake on a Gaussian, whose linear field flatters some methods.
- *law*: whether it comes to the law of the data, or stays in that of its level: the error as a
  share of the width, at few steps and at many; see `verify.laws`.
- *contract*: what makes its numbers comparable; see `verify.contract`.

What fails is named on standard error, one line each, and the exit status is 1.
"""

from __future__ import annotations

from samplerbench.app.config.folders import members
from samplerbench.errors import InvalidSetting


def main(words: list[str]) -> None:
    """Measure and print.

    Raises:
        InvalidSetting: there is no such sampler.
    """
    known = list(members("sampler"))
    for word in words:
        if word not in known and "." not in word:
            allowed = f"one of {', '.join(known)}, or a sampler's class, package.Class"
            raise InvalidSetting("check", word, allowed)
    from samplerbench.app.commands.examine import (
        examine,  # slow to import: mistakes are told before
    )

    examine(words or known)
