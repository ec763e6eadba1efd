"""Numbers as text: a value ± half of its interval, rounded to two digits of the half.

    0.090 ± 0.047    205 ± 12    1.20e-07 ± 3.4e-08

An expected distance is not negative. If its symmetric interval would include negative numbers, the
text has the upper end instead: 0.090 (≤ 0.21).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Metrics that are no distances: their values may have any sign.
SIGNED = {"log_z"}
#: Numbers from `_LARGE` on and below `_SMALL` are written with an exponent.
_LARGE, _SMALL = 1e6, 1e-4


def counted(number: int, noun: str) -> str:
    """A number of things: 1 step, 2 steps."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def plain(value: float, digits: int = 3) -> str:
    """A number without an interval, rounded to `digits` significant digits."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    power = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return _written(value, power - digits + 1, power)


def difference(value: float, half: float, *, signed: bool = False) -> str:
    """A value ± half of its interval, or the value alone if there is no interval.

    Args:
        value: any number.
        half: half of its interval; 0 if the value is exact, NaN if the interval is not known.
        signed: whether a positive value gets a sign.
    """
    text = plain(value)
    if math.isfinite(value) and math.isfinite(half):
        last = int(f"{half:.1e}".partition("e")[2]) - 1 if half > 0 else 0
        power = int(f"{max(abs(value), half):.1e}".partition("e")[2])
        if half == 0:
            text = plain(value, 4)  # exact: it has no interval
        else:
            text = f"{_written(value, last, power)} ± {_written(half, last, power)}"
    positive = 0 < value < math.inf and float(text.partition(" ")[0]) > 0
    return f"+{text}" if signed and positive else text


def distance(value: float, half: float, metric: str = "") -> str:
    """As `difference`, for an expected distance: it is not negative, unless in `SIGNED`."""
    if metric in SIGNED or value < 0 or not half > value:
        return difference(value, half)
    end = difference(value + half, half).partition(" ")[0]
    return f"{difference(value, half).partition(' ')[0]} (≤ {end})"


def sum_of(total: float, parts: Sequence[float]) -> list[str]:
    """A total and its parts with the same number of decimals, without -0.00.

    The last decimal is the third digit of the total, or the second of the first part if that is
    finer, unless this part is less than a ten-thousandth of the total.
    """
    values, ends = [total, *parts], []
    if total:
        ends.append(math.floor(math.log10(abs(total))) - 2)
    if parts and parts[0] and abs(parts[0]) >= 1e-4 * abs(total):
        ends.append(math.floor(math.log10(abs(parts[0]))) - 1)
    last = min(ends, default=0)
    power = math.floor(math.log10(abs(total))) if total else 0
    rounded = [round(value, -last) for value in values]
    if _has_exponent(power):
        return [_written(value, last, power) if value else "0" for value in rounded]
    return [_written(value, last, power) for value in rounded]


def _has_exponent(power: int) -> bool:
    return 10.0**power >= _LARGE or 10.0**power < _SMALL


def _written(value: float, last: int, power: int) -> str:
    """A number rounded to 10^last, with an exponent if 10^power is large or small."""
    if _has_exponent(power):
        own = int(f"{value:.1e}".partition("e")[2]) if value else power
        text = f"{value:.{max(own - last, 0)}e}"
    else:
        text = f"{round(value, -last):.{max(-last, 0)}f}"
    return text.removeprefix("-") if float(text) == 0 else text
