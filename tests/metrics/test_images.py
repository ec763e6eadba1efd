"""Metrics for images by their definitions: components, neighbours, copies; many pixels."""

from __future__ import annotations

import math
import tracemalloc

import pytest
import torch

from samplerbench.datasets.divided import Divided
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.max_sliced import MaxSliced
from samplerbench.metrics.max_sliced_refined import MaxSlicedRefined
from samplerbench.metrics.nearest_training import NearestTraining
from samplerbench.metrics.pairs import nearest, neighbour_radii, share_inside
from samplerbench.metrics.precision_recall import PrecisionRecall
from samplerbench.metrics.sliced import Sliced
from samplerbench.metrics.sliced_pca import SlicedPCA, principal_components


class TestComponents:
    @pytest.mark.parametrize(("m", "dim"), [(200, 12), (12, 200)])
    def test_they_are_those_of_the_singular_values(self, states, m, dim):
        cloud = states(m, dim) * torch.linspace(3, 0.1, dim)
        centred = cloud - cloud.mean(0)
        basis = principal_components(centred, 4)
        assert basis.shape == (dim, 4)
        torch.testing.assert_close(basis.T @ basis, torch.eye(4, dtype=basis.dtype))
        _, _, rows = torch.linalg.svd(centred, full_matrices=False)
        torch.testing.assert_close((rows[:4] @ basis).abs(), torch.eye(4, dtype=basis.dtype))

    def test_what_does_not_vary_is_no_component(self, states):
        cloud = torch.cat([states(50, 3), torch.ones(50, 5)], 1)
        assert principal_components(cloud - cloud.mean(0), 32).shape == (8, 3)
        assert principal_components(cloud[:3] - cloud[:3].mean(0), 32).shape == (8, 2)

    def test_equal_points_are_refused(self):
        with pytest.raises(InvalidSetting, match="reference=4 equal points"):
            SlicedPCA().against(torch.ones(4, 3), seed=0)

    def test_the_distance_is_that_on_the_components(self, states):
        scales = torch.cat([torch.tensor([4.0, 2.0]), torch.full((30,), 0.01)])
        x, y = states(80, 32) * scales + 1, states(90, 32) * scales
        metric = SlicedPCA(components=2, precision="float64")
        basis = principal_components(y - y.mean(0), 2)
        expected = Sliced(precision="float64").against(y @ basis, seed=1)(x @ basis).value
        assert metric.against(y, seed=1)(x).value == pytest.approx(expected, rel=1e-9)


class TestNeighbours:
    def test_pairs_by_hand(self):
        x = torch.tensor([[0.0], [1.0], [3.0], [10.0]])
        assert nearest(torch.tensor([[2.2], [8.0]]), x).tolist() == pytest.approx([0.8, 2.0])
        assert neighbour_radii(x, 1).tolist() == [1, 1, 2, 7]
        assert neighbour_radii(x, 2).tolist() == [3, 2, 3, 9]
        inside = share_inside(
            torch.tensor([[-0.5], [5.5], [4.5], [18.0]]), x, neighbour_radii(x, 1)
        )
        assert inside == 0.75

    def test_precision_and_recall_by_hand(self):
        data = torch.tensor([[0.0], [1.0], [2.0], [100.0], [101.0], [102.0]])
        samples = torch.tensor([[0.5], [0.9], [1.6], [50.0]])  # one mode, and one point of nothing
        metric = PrecisionRecall("precision", neighbours=1)
        result = metric.against(data, seed=0)(samples)
        assert result.info == {"precision": 0.75, "recall": pytest.approx(2 / 6)}
        assert result.value == 0.25
        other = PrecisionRecall("recall", neighbours=1).against(data, seed=0)(samples)
        assert other.value == pytest.approx(4 / 6)

    def test_too_few_points_are_refused(self, states):
        with pytest.raises(InvalidSetting, match=r"reference.shape\[0\]=3: must be at least 4"):
            PrecisionRecall().against(states(3, 2), seed=0)
        with pytest.raises(InvalidSetting, match=r"samples.shape\[0\]=2: must be at least 4"):
            PrecisionRecall().against(states(9, 2), seed=0)(states(2, 2))

    def test_pieces_change_nothing(self, states, monkeypatch):
        x, y = states(40, 3), states(30, 3)
        before = PrecisionRecall().against(y, seed=0)(x).info, nearest(x, y)
        monkeypatch.setattr("samplerbench.metrics.pairs.PIECE", 64)
        assert PrecisionRecall().against(y, seed=0)(x).info == before[0]
        assert torch.equal(nearest(x, y), before[1])


class TestNearestTraining:
    def test_copies_are_at_zero_and_held_out_points_are_not(self, states):
        data = Divided(states(400, 4))
        distance = NearestTraining().against_law(data, seed=0)
        assert distance(data.part("train")[:50]).value == 0
        fresh = distance(data.draws(80, "floor", 0))
        assert 0 < fresh.info["smallest"] < fresh.info["median"] < 3
        expected = torch.cdist(data.draws(80, "floor", 0), data.part("train")).amin(1).mean()
        assert fresh.value == pytest.approx(float(expected), rel=1e-6)

    def test_a_law_without_training_points_is_refused(self):
        reason = NearestTraining().why_incompatible(grid_mixture())
        assert reason is not None
        assert "dataset=digits" in reason


class TestManyPixels:
    """Max-sliced W₂ of many pixels: a lower bound, in bounded memory."""

    @pytest.mark.parametrize("dim", [64, 12_288])
    def test_a_shift_is_found_in_any_dimension(self, states, dim):
        x = states(64, dim)
        shift = torch.zeros(dim, dtype=x.dtype)
        shift[::7] = 3.0
        metric = MaxSlicedRefined(directions=32, starts=2)
        result = metric.against(x, seed=0)(x + shift)
        assert result.value == pytest.approx(float(shift.norm()), rel=1e-6)
        assert result.lower == result.value
        assert math.isnan(result.upper)

    def test_ascent_beats_random_directions_by_far(self, states):
        """A change of scale along one of 784 axes, which no random direction meets."""
        y, x = states(600, 784).chunk(2)
        x[:, 5] *= 12
        refined = MaxSlicedRefined(directions=64, starts=4).against(y, seed=0)(x)
        first = MaxSliced(directions=64).against(y, seed=0)(x)
        assert refined.value > 9
        assert refined.value > 5 * first.value
        along = (x @ refined.direction).sort().values - (y @ refined.direction).sort().values
        assert refined.value == pytest.approx(float(along.square().mean().sqrt()), rel=1e-9)

    def test_a_photograph_takes_no_more_than_some_copies(self):
        """Eight images of 12 288 numbers, and no matrix of 12 288 × 12 288."""
        dim = 3 * 64 * 64
        generator = torch.Generator().manual_seed(0)
        x, y = (torch.rand(8, dim, generator=generator) for _ in range(2))
        tracemalloc.start()  # NumPy's, of the directions
        result = MaxSlicedRefined(directions=64, starts=4, iterations=20).against(y, seed=0)(x)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * 32 * dim * 8
        assert 0 < result.value < float((x - y).norm(dim=1).max())
