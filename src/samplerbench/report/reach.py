"""The number of evaluations that a curve needs for a target distance.

This is the runtime of `bench.suite.standing`: the smallest number of evaluations from which the
distance stays at or below the target, among the numbers at which the curve was measured. It is
computed for the means, and its interval from the ends of their 95 % intervals. A cell that failed
or lost repetitions is above every target.

A distance contains its floor. So a target at or below the floor, the mean distance of perfect
samples of this size, is no test of the sampler, and the verdict says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from samplerbench.bench.rounding import plain
from samplerbench.bench.suite.standing import least_from, worst_from

#: A curve of a report.
_CURVE = ["measure", "run", "start", "denoiser", "name"]
COLUMNS = [*_CURVE, "target", "evaluations", "earliest", "latest", "most", "floor", "verdict"]


def reach(curves: pd.DataFrame, lines: pd.DataFrame, targets: Sequence[float]) -> pd.DataFrame:
    """One line for each curve and target; the curves that need the fewest evaluations come first.

    Args:
        curves: from `cells.over_seeds`; metrics whose smaller values need not be better are left
            out.
        lines: from `cells.cell_lines`, for the cells without a value.
        targets: distances, in the units of the metric.

    Returns:
        The columns of a curve, target, evaluations (NaN if the target is not reached), earliest and
        latest (the interval of that number; latest is infinite if the upper ends of the intervals
        stay above the target), most (the largest measured number), floor (NaN if there is none) and
        verdict, in words.
    """
    failed = lines[lines["mean"].isna() & (lines["lost"] > 0)]
    cells = pd.concat([curves[curves["ordered"]], failed[failed["ordered"]]])
    # a seed without a value is among the lost repetitions of the curve over seeds
    cells = cells.drop_duplicates(["measure", "setting_id", "denoiser", "start", "name", "steps"])
    if cells.empty or not targets:
        return pd.DataFrame(columns=COLUMNS)
    setting = ["measure", "setting_id", "denoiser", "start", "name", "curve"]
    cells = cells.assign(code=cells.groupby(setting).ngroup(), status="ok")
    cells["status"] = cells["status"].mask((cells["lost"] > 0) | cells["mean"].isna(), "lost")
    half = cells["half"].fillna(0.0)
    ends = {"evaluations": cells["mean"], "earliest": cells["mean"] - half}
    ends["latest"] = cells["mean"] + half
    worst = {name: worst_from(cells.assign(value=values)) for name, values in ends.items()}
    of_curve = cells.groupby("code").agg(
        **{name: (name, "first") for name in _CURVE}, most=("nfe", "max"), floor=("floor", "mean")
    )
    lost = cells[cells["status"] == "lost"].sort_values("steps").groupby("code")["steps"]
    at = lost.agg(lambda steps: ", ".join(map(str, steps))).reindex(of_curve.index)
    of_curve = of_curve.assign(lost=at.fillna(""))
    blocks = []
    for target in targets:
        found = {name: least_from(own, target) for name, own in worst.items()}
        blocks.append(of_curve.assign(target=target, **found))
    table = pd.concat(blocks).fillna({"earliest": math.inf, "latest": math.inf})
    table = table.assign(verdict=[_words(line) for _, line in table.iterrows()])
    order = [*("measure", "target", "start", "denoiser", "evaluations", "earliest"), "name"]
    table = table.sort_values(order, ignore_index=True)
    return table[COLUMNS]


def _words(line: pd.Series) -> str:
    target, floor = float(line["target"]), float(line["floor"])
    early, late, most = line["earliest"], line["latest"], int(line["most"])
    if target <= floor:
        return f"no verdict: not above the floor of {plain(floor)}"
    if line["evaluations"] != line["evaluations"]:
        text = f"not reached within {most}"
        text += f" (the lower end of its interval: {early:.0f})" if early < math.inf else ""
        text += f"; repetitions are lost at N={line['lost']}" if line["lost"] else ""
    elif early == late:
        text = f"{line['evaluations']:.0f}"
    else:
        until = f"{late:.0f}" if late < math.inf else f"more than {most}"
        text = f"{line['evaluations']:.0f} ({early:.0f} to {until})"
    return text
