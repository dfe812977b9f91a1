import pytest
import torch
from torch import nn

from models.layers.mlp import Tower, TowerConfig


def kinds(config):
    return [type(layer).__name__ for layer in Tower(config, input_dim=4).layers]


def test_default_tower_is_equation_one_with_batch_norm():
    tower = Tower(TowerConfig(), input_dim=4)
    assert [layer.out_features for layer in tower.layers if isinstance(layer, nn.Linear)] == [300, 300, 128]
    assert kinds(TowerConfig(hidden_dims=(5, 3))) == ["Linear", "BatchNorm", "ReLU"] * 2
    assert (tower(torch.randn(6, 4)) >= 0).all()


def test_options_change_the_layers():
    assert kinds(TowerConfig(hidden_dims=(5, 3), norm="none", last_activation=False)) == ["Linear", "ReLU", "Linear"]
    assert kinds(TowerConfig(hidden_dims=(5, 3), norm="layer", dropout=0.1)) == [
        "Linear",
        "LayerNorm",
        "ReLU",
        "Dropout",
        "Linear",
        "LayerNorm",
        "ReLU",
    ]


def test_linear_layers_have_a_bias_exactly_where_no_batch_norm_follows():
    def biases(config):
        return [layer.bias is not None for layer in Tower(config, input_dim=4).layers if isinstance(layer, nn.Linear)]

    assert biases(TowerConfig(hidden_dims=(5, 3))) == [False, False]
    assert biases(TowerConfig(hidden_dims=(5, 3), last_activation=False)) == [False, True]
    assert biases(TowerConfig(hidden_dims=(5, 3), norm="none")) == [True, True]


@pytest.mark.parametrize(
    "config", [TowerConfig(hidden_dims=(5, 3, 2), dropout=0.4), TowerConfig(hidden_dims=(5, 3), last_activation=False)]
)
def test_every_layer_gives_what_a_tower_cut_there_gives(config):
    tower = Tower(config, input_dim=4)
    input_BI = torch.randn(6, 4)
    torch.manual_seed(0)
    outputs = tower.every_layer(input_BI)
    assert [output.shape[1] for output in outputs] == list(config.hidden_dims)
    # dropout, where there is one, is the end of its layer, so that the next layer and whoever else looks see the same
    ends = [
        place
        for place, layer in enumerate(tower.layers)
        if place + 1 == len(tower.layers) or isinstance(tower.layers[place + 1], nn.Linear)
    ]
    for end, output in zip(ends, outputs, strict=True):
        torch.manual_seed(0)
        torch.testing.assert_close(output, tower.layers[: end + 1](input_BI))


@pytest.mark.parametrize("fields", [{"hidden_dims": ()}, {"hidden_dims": (3, 0)}, {"norm": "group"}, {"dropout": 1.0}])
def test_bad_config_names_the_field(fields):
    with pytest.raises(ValueError, match=f"TowerConfig.{next(iter(fields))}="):
        TowerConfig(**fields)
