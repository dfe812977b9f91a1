import pytest
import torch

from models.layers.wasserstein import Gaussians, WassersteinLayer, covariance, deviation, points

DIM, PLACES = 8, 5


def gaussians(*shape, seed=0, scale=1.5):
    generator = torch.Generator().manual_seed(seed)
    return Gaussians(torch.randn(*shape, generator=generator) * scale, torch.randn(*shape, generator=generator) * scale)


def layer(**options):
    torch.manual_seed(0)
    return WassersteinLayer(DIM, num_heads=2, hidden_dim=12, **options)


def distance(one, other):
    """W₂ of each pair."""
    return torch.linalg.vector_norm(points(one) - points(other), dim=-1)


def everything(num_rows):
    return torch.ones(num_rows, PLACES, PLACES, dtype=torch.bool)


def test_the_distance_obeys_the_triangle_inequality():
    one, two, three = (gaussians(2_000, 1, seed=seed) for seed in range(3))
    detour = distance(one, two) + distance(two, three)
    assert (distance(one, three) <= detour + 1e-6).all()
    assert (distance(one, three) > 0.98 * detour).any()  # some detours are hardly any


def test_the_distance_of_two_normal_distributions_is_that_of_their_quantiles():
    """In one dimension W₂² is the mean squared difference of the quantile functions."""
    one, other = Gaussians(torch.tensor([0.3]), torch.tensor([1.1])), Gaussians(torch.tensor([-0.8]), torch.tensor([-0.6]))
    quantile = torch.special.ndtri((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000)
    first, second = (pair.mean + covariance(pair.raw).sqrt() * quantile for pair in (one, other))
    torch.testing.assert_close(distance(one, other).double(), (first - second).square().mean().sqrt(), atol=1e-4, rtol=0)


def test_the_deviation_is_the_square_root_of_the_covariance():
    raw_X = torch.linspace(-12, 12, 97, dtype=torch.float64)
    torch.testing.assert_close(deviation(raw_X).square(), covariance(raw_X))


def test_the_deviations_gradient_is_finite_where_the_covariance_underflows():
    raw_X = torch.tensor([-300.0, -90.0, 0.0, 90.0], requires_grad=True)
    deviation(raw_X).sum().backward()
    assert torch.isfinite(raw_X.grad).all()
    assert covariance(raw_X)[0] == 0


def attended(encoder, hidden, allowed_BSS):
    """Mean and covariance that each place finds, one head, place and distance at a time."""
    width = DIM // encoder.num_heads
    mean_BSX, raw_BSX = encoder.mean_in(hidden.mean), encoder.raw_in(hidden.raw)
    found = Gaussians(torch.zeros_like(hidden.mean), torch.zeros_like(hidden.raw))
    for row, asking in allowed_BSS.any(2).nonzero().tolist():
        for head in range(encoder.num_heads):
            columns = [slice(part * DIM + head * width, part * DIM + (head + 1) * width) for part in range(3)]
            query = Gaussians(mean_BSX[row, asking, columns[0]], raw_BSX[row, asking, columns[0]])
            asked = allowed_BSS[row, asking].nonzero().flatten()
            keys = [Gaussians(mean_BSX[row, place, columns[1]], raw_BSX[row, place, columns[1]]) for place in asked]
            scores = torch.stack([-distance(query, key).square() for key in keys])
            weight = (scores / width**0.5).softmax(0)[:, None]
            found.mean[row, asking, columns[0]] = (weight * mean_BSX[row, asked, columns[2]]).sum(0)
            found.raw[row, asking, columns[0]] = (weight.square() * covariance(raw_BSX[row, asked, columns[2]])).sum(0)
    return found


@torch.no_grad()
def test_the_layer_equals_its_loop_form():
    encoder, hidden = layer(), gaussians(3, PLACES, DIM)
    allowed_BSS = torch.rand(3, PLACES, PLACES) < 0.5
    allowed_BSS[1, 2] = False
    found = attended(encoder, hidden, allowed_BSS)
    mean_BSD = encoder.mean_norm1(hidden.mean + encoder.mean_out(found.mean))
    raw_BSD = encoder.raw_norm1(hidden.raw + encoder.raw_out(found.raw))
    out = encoder(hidden, allowed_BSS)
    expected_BSD = encoder.mean_norm2(mean_BSD + encoder.mean_feed_forward(mean_BSD))
    torch.testing.assert_close(out.mean, expected_BSD, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.raw, encoder.raw_norm2(raw_BSD + encoder.raw_feed_forward(raw_BSD)), atol=1e-5, rtol=1e-5)


def test_the_last_places_alone_come_out_as_they_do_in_company():
    encoder, hidden = layer(), gaussians(4, PLACES, DIM)
    allowed_BSS = torch.rand(4, PLACES, PLACES) < 0.5
    every, last = encoder(hidden, allowed_BSS), encoder(hidden, allowed_BSS[:, -2:])
    torch.testing.assert_close(last.mean, every.mean[:, -2:], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(last.raw, every.raw[:, -2:], atol=1e-6, rtol=1e-5)


def test_gradients_are_finite_where_nothing_may_be_attended_to():
    encoder, hidden = layer(), gaussians(2, PLACES, DIM)
    out = encoder(hidden, torch.zeros(2, PLACES, PLACES, dtype=torch.bool))
    (out.mean.square().sum() + out.raw.square().sum()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())


def test_dropout_acts_in_training_alone():
    encoder, hidden = layer(dropout=0.5), gaussians(2, PLACES, DIM)
    assert not torch.equal(encoder(hidden, everything(2)).raw, encoder(hidden, everything(2)).raw)
    encoder.eval()
    assert torch.equal(encoder(hidden, everything(2)).mean, layer()(hidden, everything(2)).mean)


def test_weights_of_attention_are_dropped_too():
    dropped = []
    encoder = layer()
    encoder.dropout.register_forward_hook(lambda _module, given, _output: dropped.append(tuple(given[0].shape)))
    encoder(gaussians(2, PLACES, DIM), everything(2))
    assert (2, encoder.num_heads, PLACES, PLACES) in dropped


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="num_heads=3 does not divide the width 8"):
        WassersteinLayer(8, num_heads=3, hidden_dim=4)
