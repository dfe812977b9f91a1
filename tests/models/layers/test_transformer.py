import pytest
import torch
from torch import nn

from models.layers.transformer import EncoderLayer

DIM, PLACES = 8, 5


def layer(**options):
    torch.manual_seed(0)
    return EncoderLayer(DIM, num_heads=2, hidden_dim=12, **options)


def everything(num_rows):
    return torch.ones(num_rows, PLACES, PLACES, dtype=torch.bool)


def torchs_own(ours, **options):
    """PyTorch's encoder layer with the same weights."""
    theirs = nn.TransformerEncoderLayer(DIM, nhead=2, dim_feedforward=12, dropout=0.0, batch_first=True, **options)
    pairs = [
        (theirs.self_attn.out_proj, ours.project_out),
        (theirs.linear1, ours.feed_forward[0]),
        (theirs.linear2, ours.feed_forward[2]),
        (theirs.norm1, ours.norm1),
        (theirs.norm2, ours.norm2),
    ]
    for target, source in pairs:
        target.load_state_dict(source.state_dict())
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(ours.project_in.weight)
        theirs.self_attn.in_proj_bias.copy_(ours.project_in.bias)
    return theirs


@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"activation": "gelu"}])
def test_it_is_pytorchs_encoder_layer_where_every_place_may_attend_to_something(options):
    ours = layer(**options)
    input_BSD = torch.randn(4, PLACES, DIM, generator=torch.Generator().manual_seed(0))
    padding_BS = torch.arange(PLACES) < torch.tensor([0, 1, 4, 2])[:, None]
    for mask_BS in (torch.zeros_like(padding_BS), padding_BS):
        allowed_BSS = ~mask_BS.unsqueeze(1).expand(-1, PLACES, -1)
        theirs_BSD = torchs_own(ours, **options).train()(input_BSD, src_key_padding_mask=mask_BS)
        torch.testing.assert_close(ours(input_BSD, allowed_BSS)[~mask_BS], theirs_BSD[~mask_BS], atol=1e-6, rtol=1e-5)


def test_what_may_not_be_attended_to_has_no_influence():
    allowed_BSS = everything(1)
    allowed_BSS[:, :, 1] = False
    input_BSD = torch.randn(1, PLACES, DIM)
    other_BSD = input_BSD.clone()
    other_BSD[:, 1] += 3.0
    unchanged = [0, 2, 3, 4]
    before_BSD, after_BSD = layer()(input_BSD, allowed_BSS), layer()(other_BSD, allowed_BSS)
    torch.testing.assert_close(after_BSD[:, unchanged], before_BSD[:, unchanged])
    assert not torch.allclose(after_BSD[:, 1], before_BSD[:, 1])


def test_a_place_that_may_attend_to_nothing_keeps_its_residual_alone():
    encoder, input_BSD = layer(), torch.randn(2, PLACES, DIM)
    allowed_BSS = everything(2)
    allowed_BSS[1] = False
    hidden_SD = encoder.norm1(input_BSD[1] + encoder.project_out.bias)
    torch.testing.assert_close(
        encoder(input_BSD, allowed_BSS)[1], encoder.norm2(hidden_SD + encoder.feed_forward(hidden_SD)), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("asking", [1, 3])
@pytest.mark.parametrize("norm_first", [False, True])
def test_the_last_places_alone_come_out_as_they_do_in_company(asking, norm_first):
    encoder, input_BSD = layer(norm_first=norm_first), torch.randn(4, PLACES, DIM)
    allowed_BSS = torch.rand(4, PLACES, PLACES) < 0.5
    every_BSD = encoder(input_BSD, allowed_BSS)
    torch.testing.assert_close(encoder(input_BSD, allowed_BSS[:, -asking:]), every_BSD[:, -asking:], atol=1e-6, rtol=1e-5)


def test_gradients_are_finite_where_nothing_may_be_attended_to():
    encoder = layer()
    input_BSD = torch.randn(2, PLACES, DIM, requires_grad=True)
    encoder(input_BSD, torch.zeros(2, PLACES, PLACES, dtype=torch.bool)).square().sum().backward()
    assert torch.isfinite(input_BSD.grad).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())


def test_dropout_acts_in_training_alone():
    encoder, input_BSD = layer(dropout=0.5), torch.randn(2, PLACES, DIM)
    assert not torch.equal(encoder(input_BSD, everything(2)), encoder(input_BSD, everything(2)))
    encoder.eval()
    assert torch.equal(encoder(input_BSD, everything(2)), layer()(input_BSD, everything(2)))


def test_weights_of_attention_are_dropped_too():
    encoder, input_BSD = layer(dropout=0.5), torch.randn(2, PLACES, DIM)
    encoder.dropout = nn.Dropout(0.5).eval()  # of the sub-layers' outputs nothing
    assert not torch.equal(encoder(input_BSD, everything(2)), encoder(input_BSD, everything(2)))
    encoder.eval()
    assert torch.equal(encoder(input_BSD, everything(2)), layer()(input_BSD, everything(2)))


@pytest.mark.parametrize("options", [{}, {"norm_first": True, "activation": "gelu"}])
def test_it_scripts(options):
    encoder, input_BSD = layer(**options), torch.randn(3, PLACES, DIM)
    allowed_BSS = torch.rand(3, PLACES, PLACES) < 0.4
    torch.testing.assert_close(torch.jit.script(encoder)(input_BSD, allowed_BSS), encoder(input_BSD, allowed_BSS))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="num_heads=3 does not divide the width 8"):
        EncoderLayer(8, num_heads=3, hidden_dim=4)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"activation='tanh', expected one of \('relu', 'gelu'\)"):
        layer(activation="tanh")
