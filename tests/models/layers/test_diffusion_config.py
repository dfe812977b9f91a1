import pytest

from models.layers.diffusion import ScheduleConfig
from models.layers.diffusion_config import DiffusionConfig

ANCESTRAL = {"sampler": "ancestral", "schedule": ScheduleConfig(num_steps=10), "num_sample_steps": 10}


def test_the_number_of_noise_tensors_follows_from_the_sampler():
    assert DiffusionConfig().num_noise == 1
    assert DiffusionConfig(**ANCESTRAL).num_noise == 10  # z_T, and one for each step but the last
    assert DiffusionConfig(posterior_noise="none", **ANCESTRAL).num_noise == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sampler": "euler"}, "sampler='euler', expected one of"),
        ({"tower_condition": "noise"}, "tower_condition='noise', expected one of"),
        ({"num_sample_steps": 0}, "num_sample_steps=0, expected 1 to 50"),
        ({"num_sample_steps": 51}, "num_sample_steps=51, expected 1 to 50"),
        ({"sampler": "ancestral"}, "set num_sample_steps=50, or sampler='ddim'"),
        ({"tower_condition": "sampled", **ANCESTRAL}, "set sampler='ddim' or posterior_noise='none'"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DiffusionConfig(**fields)
