from pathlib import Path

import pytest
import torch

from tests.trainer.export.small_runs import small_pre_ranking, untrained_parts
from tests.trainer.small_matching import small_t2diff
from trainer.config import RunConfig
from trainer.export.assemble import assemble
from trainer.export.eager import eager_users
from trainer.export.requests import Request, draw_requests, user_tensors
from trainer.export.run_parts import RunParts, user_signature
from trainer.export.torchscript import frozen

ANCESTRAL = (
    *("--model.diffusion.sampler", "ancestral", "--model.diffusion.num-sample-steps", "8"),
    *("--model.diffusion.tower-condition", "onestep"),  # training with the serving sampler takes one noise tensor
)
NO_CONTEXT = ("--model.attention.time-lag", "None", "--model.attention.session", "last_k")
ITEM_NETWORK = ("--model.item-tower", "mlp", "--model.output-dim", "6")
VARIANTS = {
    "fit without meta queries": ("fit_demo", ("--model.use-meta-query", "False", "--model.scorer", "dot")),
    "fit, sum max": ("fit_demo", ("--model.scorer", "sum_max", "--model.meta-query.query-attention", "softmax")),
    "mixed attention": ("t2diff", ("--model.use-diffusion", "False")),
    "t2diff, every step, no context": ("t2diff", (*ANCESTRAL, *NO_CONTEXT)),
    "t2diff, item network": ("t2diff", (*ITEM_NETWORK, "--model.diffusion.use-drift", "False")),
}
"""Beside the models as they are, whose golden requests every export answers."""


def config_of(variant: str, *, demo: Path, matching: Path) -> RunConfig:
    recipe, overrides = VARIANTS[variant]
    if recipe == "t2diff":
        return small_t2diff(matching, matching.parent / "runs", *overrides)
    return small_pre_ranking(recipe, demo, demo.parent / "runs", *overrides)


def draw(parts: RunParts, count: int) -> list[Request]:
    """Histories of 0, 1, all and some behaviours."""
    longest = parts.dims.history_len
    lengths = [(0, 1, longest, 7 * number % (longest + 1))[number % 4] for number in range(count)]
    generator = torch.Generator().manual_seed(count)
    return draw_requests(count, signature=user_signature(parts), max_history=longest, history_lengths=lengths, generator=generator)


@pytest.fixture(scope="module", params=VARIANTS)
def parts(request: pytest.FixtureRequest, small_demo: Path, small_matching: Path) -> RunParts:
    return untrained_parts(config_of(request.param, demo=small_demo, matching=small_matching))


@pytest.fixture(scope="module")
def scripted(parts: RunParts) -> torch.jit.RecursiveScriptModule:
    """The user tower as it is saved."""
    return frozen(assemble(parts, tables="inside").user_tower)


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 7, 256])
def test_a_scripted_user_tower_is_the_models_own_for_every_batch_size(
    parts: RunParts, scripted: torch.jit.RecursiveScriptModule, batch: int
) -> None:
    requests, signature = draw(parts, batch), user_signature(parts)
    expected = eager_users(parts, requests)
    assert expected.shape == (batch, signature.num_queries, signature.heads, signature.width)
    inputs = user_tensors(requests, signature)
    found = scripted.seeded(*inputs[:4], inputs.row_id, signature.seed)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    if batch > 1:
        assert not torch.allclose(found[0], found[1], atol=1e-4)


@torch.no_grad()
def test_noise_is_an_input_and_another_seed_other_noise(parts: RunParts, scripted: torch.jit.RecursiveScriptModule) -> None:
    signature = user_signature(parts)
    inputs = user_tensors(draw(parts, 8), signature)
    seeded = scripted.seeded(*inputs[:4], inputs.row_id, signature.seed)
    other = scripted.seeded(*inputs[:4], inputs.row_id, signature.seed + 1)
    silent = scripted(*inputs[:4], torch.zeros(8, signature.noise_size))
    assert torch.equal(seeded, other) == torch.equal(seeded, silent) == (signature.noise_size == 0)


@torch.no_grad()
def test_a_tower_refuses_what_its_model_does_not_know_unless_it_was_told_not_to_look(
    parts: RunParts, scripted: torch.jit.RecursiveScriptModule
) -> None:
    signature = user_signature(parts)
    requests = draw(parts, 4)
    inputs = user_tensors(requests, signature)
    noise = torch.zeros(4, signature.noise_size)
    scripted(*inputs[:4], noise)
    wrong = inputs.history_values.clone()
    wrong[0, 0] = signature.history[0].vocab_size
    with pytest.raises(torch.jit.Error, match="outside its feature's vocabulary"):
        scripted(inputs.user_values, inputs.user_lengths, wrong, inputs.history_lengths, noise)
    length = parts.dims.history_len + 1
    long = torch.zeros(len(signature.history), length, dtype=torch.int64)
    one = draw_requests(1, signature=signature, max_history=0, history_lengths=[0], generator=torch.Generator())
    user = user_tensors(one, signature)
    with pytest.raises(torch.jit.Error, match="a history is longer than"):
        scripted(user.user_values, user.user_lengths, long, torch.tensor([length]), noise[:1])
    unchecked = assemble(parts, tables="inside", check_inputs=False).user_tower
    assert unchecked.tower.check_lengths is unchecked.pooled.check_ids is unchecked.sequence.check_ids is False
