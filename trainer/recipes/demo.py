"""The demonstrations: synthetic data sets with a planted structure, in about a minute each on a CPU.

`fit_demo` and `two_tower_demo` (what `make demo` runs): user-item crosses, on two ranks with sharded tables. `t2diff_demo` and
`mixed_attention_demo`: a temporal drift, prepared by `python -m dataloaders.prepare.synthetic_sequences --out data/demo_sequences`.
"""

import dataclasses
from pathlib import Path

from dataloaders.loader import LoaderConfig
from dataloaders.negatives import NegativeConfig
from models import ModelConfig
from models.embeddings import EmbeddingConfig
from models.fit import FITConfig
from models.layers.diffusion_config import DiffusionConfig
from models.layers.mixed_attention import MixedAttentionConfig
from models.t2diff import T2DiffConfig
from models.two_tower import TwoTowerConfig
from trainer.config import LoopConfig, RunConfig
from trainer.optim import OptimizerConfig
from trainer.sharding import ShardingConfig


def _demo(*, recipe: str, model: ModelConfig) -> RunConfig:
    return RunConfig(
        recipe=recipe,
        data=Path("data/demo"),
        model=model,
        loader=LoaderConfig(batch_size=1024, negatives=NegativeConfig(kind="none")),
        optimizer=OptimizerConfig(sparse="rowwise_adagrad", sparse_learning_rate=0.05),
        sharding=ShardingConfig(kind="planner"),
        loop=LoopConfig(max_epochs=3, log_every_steps=20, device="cpu"),
    )


def fit_demo() -> RunConfig:
    """FIT on the demo data, tables sharded by TorchRec's planner."""
    return _demo(recipe="fit_demo", model=FITConfig())


def two_tower_demo() -> RunConfig:
    """Two-Tower on the demo data, tables sharded by TorchRec's planner."""
    return _demo(recipe="two_tower_demo", model=TwoTowerConfig())


def _sequences(*, recipe: str, model: T2DiffConfig) -> RunConfig:
    return RunConfig(
        recipe=recipe,
        data=Path("data/demo_sequences"),
        model=model,
        embeddings=EmbeddingConfig(dim=16, init_std=0.05, features=("hist_item", "hist_category", "item", "category")),
        loader=LoaderConfig(batch_size=256),
        optimizer=OptimizerConfig(learning_rate=2e-3, sparse="adam", sparse_learning_rate=5e-3, schedule="cosine"),
        sharding=ShardingConfig(kind="replicated"),
        loop=LoopConfig(max_epochs=5, log_every_steps=50, monitor="recall@20", device="cpu"),
    )


T2DIFF = T2DiffConfig(
    diffusion=DiffusionConfig(tower_condition="sampled", num_sample_steps=5), attention=MixedAttentionConfig(time_lag=None)
)


def t2diff_demo() -> RunConfig:
    """T2Diff on the demo sequences."""
    return _sequences(recipe="t2diff_demo", model=T2DIFF)


def mixed_attention_demo() -> RunConfig:
    """Mixed-attention, which is T2Diff without diffusion, on the demo sequences."""
    return _sequences(recipe="mixed_attention_demo", model=dataclasses.replace(T2DIFF, use_diffusion=False))
