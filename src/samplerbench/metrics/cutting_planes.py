"""The maximum of W₂² over the directions in the plane, with bounds, by cutting planes.

For a coupling π of two laws and a direction θ let M_π = ∫ (x − y)(x − y)ᵀ dπ(x, y). The cost of the
best coupling along θ, W₂²(θ), is at most the cost of any other coupling:

    W₂²(θ) ≤ θᵀ M_π θ   for every θ,   with equality where π is the monotone coupling along θ.

In the plane, with θ = (cos φ, sin φ) and d = x − y as a complex number, the bound is a sinusoid:

    θᵀ M_π θ = A + Re(Z̄ e^{2iφ}),     A = ½ ∫ |d|² dπ,     Z = ½ ∫ d² dπ .

The minimum of all bounds found so far, the envelope, is above W₂²(θ). Its maximum is at the maximum
of a bound or at a crossing of two bounds. Each evaluation computes the monotone coupling at the
maximum of the envelope. This lowers the envelope there, and may raise the lower bound. Only the
arcs of the envelope above the lower bound are kept, usually a few.

Reference: J. E. Kelley, The Cutting-Plane Method for Solving Convex Programs, J. SIAM 8 (1960)
703–712, here with sinusoids instead of planes.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

from samplerbench.errors import require

_STARTS = 8
#: The first directions to evaluate, for all laws.
START_ANGLES = [math.pi * k / _STARTS for k in range(_STARTS)]


class Bound(NamedTuple):
    """The sinusoid A + Re(Z̄ e^{iψ}) in ψ = 2φ, an upper bound of W₂²."""

    mean: float  # A, with the margin
    wave: complex  # Z
    margin: float  # the largest rounding error of A, which A already includes

    def at(self, psi: float) -> float:
        """Return its height at an angle ψ."""
        return self.mean + abs(self.wave) * math.cos(psi - cmath.phase(self.wave))


class Peak(NamedTuple):
    """The result of a search."""

    phi: float  # the angle of the best direction
    upper: float  # an upper bound on max-W₂
    evaluations: int  # the number of couplings that were computed


class _Arc(NamedTuple):
    """An interval of angles ψ on which one bound is the envelope, with its maximum there."""

    start: float
    end: float
    bound: Bound
    peak: float
    height: float


def _arc(start: float, end: float, bound: Bound) -> _Arc:
    crest = cmath.phase(bound.wave) % (2 * math.pi)
    inside = start <= crest <= end
    peak = crest if inside else max(start, end, key=bound.at)
    return _Arc(start, end, bound, peak, bound.at(peak))


def _cut(arc: _Arc, bound: Bound) -> Iterator[_Arc]:
    """Lower an arc of the envelope to a new bound where the bound is lower; yield 1 to 3 arcs."""
    excess = Bound(bound.mean - arc.bound.mean, bound.wave - arc.bound.wave, 0.0)
    borders = [arc.start, arc.end]
    if abs(excess.wave) > abs(excess.mean):
        crest = cmath.phase(excess.wave)
        half = math.acos(-excess.mean / abs(excess.wave))
        crossings = ((crest - half) % (2 * math.pi), (crest + half) % (2 * math.pi))
        borders[1:1] = sorted(psi for psi in crossings if arc.start < psi < arc.end)
    for start, end in pairwise(borders):
        if excess.at((start + end) / 2) < 0:
            yield _arc(start, end, bound)
        elif len(borders) == 2:
            yield arc
        else:
            yield _arc(start, end, arc.bound)


def check_stop(relative_tolerance: float, evaluations: int) -> None:
    """Refuse settings of `search` that are out of range."""
    fits = 0 <= relative_tolerance < math.inf
    require(fits, "relative_tolerance", relative_tolerance, "at least 0 and finite")
    require(evaluations >= _STARTS, "evaluations", evaluations, f"at least {_STARTS}")


def search(couple: Callable[[float], Bound], relative_tolerance: float, evaluations: int) -> Peak:
    """Find the direction of the largest W₂; stop at a small gap or at the last evaluation.

    `couple` returns for an angle φ the bound of the monotone coupling along that direction.
    """
    bounds = [couple(phi) for phi in START_ANGLES]
    squares = [square_along(bound, phi) for phi, bound in zip(START_ANGLES, bounds, strict=True)]
    lower = max(squares)
    best = START_ANGLES[squares.index(lower)]
    envelope = [_arc(0.0, 2 * math.pi, bounds[0])]
    for bound in bounds[1:]:
        envelope = [piece for arc in envelope for piece in _cut(arc, bound)]

    evaluated = _STARTS
    while envelope and evaluated < evaluations:
        top = max(envelope, key=attrgetter("height"))
        gap = math.sqrt(top.height) - math.sqrt(lower)
        # two margins remain when the gap is closed
        lost_in_rounding = top.height - lower <= 4 * top.bound.margin
        if lost_in_rounding or gap <= relative_tolerance * math.sqrt(top.height):
            break
        phi = top.peak / 2
        bound = couple(phi)
        evaluated += 1
        if square_along(bound, phi) > lower:
            best, lower = phi, square_along(bound, phi)
        pieces = (piece for arc in envelope for piece in _cut(arc, bound))
        envelope = [piece for piece in pieces if piece.height > lower]

    return Peak(best, math.sqrt(max([lower, *(arc.height for arc in envelope)])), evaluated)


def square_along(bound: Bound, phi: float) -> float:
    """Return W₂² along a direction, rounded down, from the bound of the coupling along it."""
    return max(0.0, bound.at(2 * phi) - 2 * bound.margin)
