import pytest
import torch

from models.layers.squeeze_excitation import LightSE, SqueezeExcitation, over_fields

# B rows, M fields, X width of all fields beside each other
WIDTHS = [3, 2, 4]
BOUNDS = [(0, 3), (3, 5), (5, 9)]


def rows(num_rows=6, *, seed=0):
    return torch.randn(num_rows, sum(WIDTHS), generator=torch.Generator().manual_seed(seed))


def seeded(block_class):
    torch.manual_seed(0)
    return block_class(WIDTHS)


def fields(row_X):
    return [row_X[first:last] for first, last in BOUNDS]


def test_each_field_gets_its_value_at_all_its_columns():
    assert over_fields(torch.tensor([[1.0, 2.0, 3.0]]), WIDTHS).tolist() == [[1, 1, 1, 2, 2, 3, 3, 3, 3]]


def test_squeeze_excitation_equals_its_loop_form():
    block, field_BX = seeded(SqueezeExcitation), rows()
    for found_X, row_X in zip(block(field_BX), field_BX, strict=True):
        score_M = torch.sigmoid(block.excitation.weight @ row_X + block.excitation.bias)
        expected = [score * part for score, part in zip(score_M, fields(row_X), strict=True)]
        torch.testing.assert_close(found_X, torch.cat(expected))


def test_light_se_equals_its_loop_form():
    block, field_BX = seeded(LightSE), rows()
    for found_X, row_X in zip(block(field_BX), field_BX, strict=True):
        mean_M = torch.stack([part.mean() for part in fields(row_X)])
        weight_M = torch.softmax(block.excitation.weight @ mean_M + block.excitation.bias, dim=0)
        expected = [part + weight * part for weight, part in zip(weight_M, fields(row_X), strict=True)]
        torch.testing.assert_close(found_X, torch.cat(expected))


def test_light_ses_weights_sum_to_one_and_colds_are_each_between_0_and_1():
    torch.testing.assert_close(seeded(LightSE).weights(rows()).sum(1), torch.ones(6))
    weight_BM = seeded(SqueezeExcitation).weights(rows())
    assert ((weight_BM > 0) & (weight_BM < 1)).all()
    assert not torch.allclose(weight_BM.sum(1), torch.ones(6), atol=0.05)


@pytest.mark.parametrize("block_class", [SqueezeExcitation, LightSE])
def test_a_fields_weight_depends_on_every_field(block_class):
    field_BX = rows().requires_grad_()
    block = seeded(block_class)
    for place in range(len(WIDTHS)):
        (gradient_BX,) = torch.autograd.grad(block.weights(field_BX)[:, place].sum(), field_BX)
        assert (gradient_BX != 0).all()


def test_mean_weights_follow_the_training_batches_alone():
    block = seeded(SqueezeExcitation)
    with torch.no_grad():
        block.excitation.weight.zero_()
        block.excitation.bias.copy_(torch.tensor([-1.0, 0.0, 2.0]))
    block.eval()(rows())
    assert block.mean_weights() == [0.0, 0.0, 0.0]
    block.train()
    for seed in range(150):
        block(rows(seed=seed))
    assert block.mean_weights() == pytest.approx(torch.sigmoid(block.excitation.bias).tolist(), abs=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_selected_fields_are_those_of_the_largest_mean_weight_and_nothing_sees_the_others(training):
    block, field_BX = seeded(SqueezeExcitation).train(training), rows().requires_grad_()
    block.statistics.running_mean.copy_(torch.tensor([0.4, 0.1, 0.7]))
    block.select(2)
    assert block.mean_weights() == pytest.approx([0.4, 0.0, 0.7])
    block.sees_all = not training
    output_BX = block(field_BX)
    assert torch.equal(output_BX[:, 3:5], torch.zeros(6, 2))
    output_BX.square().sum().backward()
    assert torch.equal(field_BX.grad[:, 3:5], torch.zeros(6, 2)), "neither as values nor through the weights"
    assert (field_BX.grad[:, [0, 1, 2, 5, 6, 7, 8]] != 0).all()


def test_training_may_see_all_fields_while_evaluation_does_not():
    block, field_BX = seeded(SqueezeExcitation), rows()
    expected_BX = block(field_BX)
    block.select(1)
    assert torch.equal(block(field_BX), expected_BX)
    assert (block.eval()(field_BX) == 0).sum() >= 6 * 5


def test_a_selection_is_saved_with_the_weights():
    block, other = seeded(SqueezeExcitation), seeded(SqueezeExcitation)
    block.statistics.running_mean.copy_(torch.tensor([0.4, 0.1, 0.7]))
    block.select(1)
    other.load_state_dict(block.state_dict())
    assert other.kept_M.tolist() == [0.0, 0.0, 1.0]


def test_all_fields_are_kept_at_first_whatever_memory_held():
    block = SqueezeExcitation(WIDTHS, device=torch.device("meta")).to_empty(device="cpu")
    block.kept_M.fill_(torch.nan)
    block.reset_parameters()
    assert block.kept_M.tolist() == [1.0, 1.0, 1.0]
