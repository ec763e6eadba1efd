"""docs/peers.md: diffusers' schedulers for continuous data, k-diffusion's and azula's samplers.

    make peers              # measures all rows again, in two processes
    make peers ARGS=page    # writes the page from the last measurements

The facts go to `peer_table.KEPT`, from which a job's advice is taken too. A row that differs from
the one before is printed.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from samplerbench.verify.peer_curves import curve
from samplerbench.verify.peer_table import KEPT, Facts, dumped, facts, kept, page, rows

PAGE = Path(__file__).parents[2] / "docs" / "peers.md"


def measured(number: int) -> Facts:
    """The facts of one row."""
    torch.set_num_threads(1)
    return facts(rows()[number], curve(rows()[number]))


def main() -> None:
    """Measure, and write both files."""
    try:
        before = {(one.package, one.name, one.settings): one for one in kept()}
    except TypeError:  # `Facts` has got another property since
        before = {}
    if sys.argv[1:] != ["page"]:
        began, found = time.perf_counter(), []
        peers = rows()
        with ProcessPoolExecutor(2) as pool:
            for one in pool.map(measured, range(len(peers))):
                found.append(one)
                seconds = time.perf_counter() - began
                print(f"{seconds:4.0f} s  {one.name} {one.settings}", flush=True)
        KEPT.write_text(dumped(found), encoding="utf-8")
        kept.cache_clear()
        for one in kept():
            old = before.get((one.package, one.name, one.settings))
            if repr(old) != repr(one):
                print(f"{'changed' if old else 'new'}: {one.package} {one.name} {one.settings}")
    PAGE.write_text(page(kept()), encoding="utf-8")


if __name__ == "__main__":
    main()
