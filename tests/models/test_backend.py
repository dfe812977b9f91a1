"""A model computes and learns the same whichever backend its kernels run on."""

import dataclasses

import pytest
import torch

from models import MODELS, build_task
from models.backend import set_backend
from models.fit import FIT, FITConfig
from models.layers.meta_query import MetaQueryConfig
from models.layers.mixed_attention import MixedAttentionConfig
from models.layers.mlp import TowerConfig
from models.t2diff import T2DiffConfig
from tests.kernels.devices import KERNEL_DEVICE
from tests.models.synthetic import DIMS, KINDS, catalogue_of, random_inputs, random_statistics

STEPS = 20
SMALL = {
    "fit": FITConfig(
        tower=TowerConfig(hidden_dims=(16, 8)),
        meta_query=MetaQueryConfig(num_queries=4),
        attention_dims=(16, 8),
        head_dim=8,
        scorer_dim=4,
    ),
    "t2diff": T2DiffConfig(attention=MixedAttentionConfig(session_len=3)),
}


def losses(name, backend):
    """Of STEPS steps of Adam on one small batch after another."""
    kind = KINDS[MODELS[name].task_class]
    torch.manual_seed(0)
    task = build_task(SMALL[name], schema=kind.schema, embeddings=kind.embeddings, catalogue=catalogue_of(kind.schema))
    task.to(KERNEL_DEVICE)
    set_backend(task, backend)
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-2)
    found = []
    for step in range(STEPS):
        task.model.schedule(step, STEPS)
        loss, _ = task(kind.batch(8, seed=step).to(KERNEL_DEVICE))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return torch.tensor(found)


@pytest.mark.parametrize("name", SMALL)
def test_a_model_learns_the_same_on_either_backend(name):
    torch_losses, triton_losses = losses(name, "torch"), losses(name, "triton")
    assert not torch.equal(torch_losses, triton_losses)  # other sums: the kernels did run
    torch.testing.assert_close(triton_losses, torch_losses, atol=1e-3, rtol=1e-3)


def test_fit_serves_the_same_on_either_backend():
    torch.manual_seed(0)
    model = random_statistics(FIT(SMALL["fit"], dims=DIMS)).to(KERNEL_DEVICE)
    users, items = (type(given)(*[tensor.to(KERNEL_DEVICE) for tensor in given]) for given in random_inputs(5))
    served = {}
    for backend in ("torch", "triton"):
        set_backend(model, backend)
        with torch.no_grad():
            stored, user_BNHP = model.item_vectors(items), model.all_user_vectors(users)
            index_BK, item_BKHP = stored.index_B.expand(5, -1), stored.item_BHP.expand(5, -1, -1, -1)
            served[backend] = (
                user_BNHP,
                model(users, items, users.profile_BU[:, 0]).logit_B,
                model.score_candidates(user_BNHP, index_BK, item_BKHP),
            )
    for ours, theirs in zip(served["triton"], served["torch"], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_every_module_that_calls_a_kernel_is_told_its_backend():
    kind = KINDS[MODELS["fit"].task_class]
    task = build_task(dataclasses.replace(SMALL["fit"], scorer="lss"), schema=kind.schema, embeddings=kind.embeddings)
    set_backend(task, "torch")
    told = {type(part).__name__ for part in task.modules() if getattr(part, "kernel_backend", None) == "torch"}
    assert {"DinUnit", "Dice", "LSS"} <= told
