import pytest
import torch

from models.layers.drift_scale import DriftScale

# B rows, L positions, D width


def test_the_first_batch_sets_the_scale_and_later_ones_pull_it():
    torch.manual_seed(0)
    drift_scale, valid = DriftScale(momentum=0.1), torch.ones(40, 6, dtype=torch.bool)
    first, second = 0.02 * torch.randn(40, 6, 5) + 0.01, 3 * torch.randn(40, 6, 5)
    drift_scale.observe(first, valid)
    expected = first.std(correction=0)
    torch.testing.assert_close(drift_scale.scale, expected)
    drift_scale.observe(second, valid)
    torch.testing.assert_close(drift_scale.scale, 0.9 * expected + 0.1 * second.std(correction=0))
    assert drift_scale.num_batches == 2


def test_only_valid_positions_count():
    torch.manual_seed(0)
    valid = torch.tensor([[False, False, True], [False, True, True], [False, False, False]])
    z0 = torch.randn(3, 3, 4) * valid.unsqueeze(2)
    drift_scale = DriftScale()
    drift_scale.observe(z0, valid)
    torch.testing.assert_close(drift_scale.scale, z0[valid].std(correction=0))


@pytest.mark.parametrize(
    ("z0", "valid"),
    [
        (torch.zeros(0, 3, 4), torch.zeros(0, 3, dtype=torch.bool)),
        (torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)),
        (torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)),
        (torch.full((2, 3, 4), torch.nan), torch.ones(2, 3, dtype=torch.bool)),
        (torch.tensor([[[1.0, torch.inf]]]), torch.ones(1, 1, dtype=torch.bool)),
    ],
    ids=["no rows", "no histories", "constant", "NaN", "infinite"],
)
def test_a_batch_without_a_usable_deviation_leaves_the_scale_alone(z0, valid):
    drift_scale = DriftScale()
    drift_scale.observe(z0, valid)
    assert drift_scale.scale == 1
    assert drift_scale.num_batches == 0


def test_moments_of_two_halves_add_up_to_those_of_the_whole():
    torch.manual_seed(0)
    z0, valid = torch.randn(6, 3, 4), torch.ones(6, 3, dtype=torch.bool)
    whole, halves = DriftScale(), DriftScale()
    whole.observe(z0, valid)
    halves.absorb(halves.moments(z0[:2], valid[:2]) + halves.moments(z0[2:], valid[2:]))
    torch.testing.assert_close(halves.scale, whole.scale)


def test_a_saved_scale_goes_on_where_it_stopped():
    torch.manual_seed(0)
    valid = torch.ones(4, 3, dtype=torch.bool)
    drift_scale, loaded = DriftScale(), DriftScale()
    drift_scale.observe(torch.randn(4, 3, 2), valid)
    loaded.load_state_dict(drift_scale.state_dict())
    batch = 5 * torch.randn(4, 3, 2)
    for module in (drift_scale, loaded):
        module.observe(batch, valid)
    assert torch.equal(loaded.scale, drift_scale.scale)
    assert loaded.scale < 2  # pulled, not set
