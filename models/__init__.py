"""The registry: every model by name, and the task that trains it. Pure modules: no file access, no torch.distributed."""

import functools
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dataloaders.batch import Catalogue
from dataloaders.schema import Schema
from models.bert4rec import BERT4Rec, BERT4RecConfig
from models.caser import Caser, CaserConfig
from models.cold import COLD, COLDConfig
from models.contrastvae import ContrastVAE, ContrastVAEConfig
from models.dat import DAT, DATConfig
from models.dat_plus import DATPlus, DATPlusConfig
from models.diffurec import DiffuRec, DiffuRecConfig
from models.embeddings import EmbeddingConfig, FeatureEmbeddings
from models.fit import FIT, FITConfig
from models.gru4rec import GRU4Rec, GRU4RecConfig
from models.hstu import HSTU, HSTUConfig
from models.inttower import IntTower, IntTowerConfig
from models.ranktower import RankTower, RankTowerConfig
from models.regular_two_tower import RegularTwoTower, RegularTwoTowerConfig
from models.sasrec import SASRec, SASRecConfig
from models.stosa import STOSA, STOSAConfig
from models.t2diff import T2Diff, T2DiffConfig
from models.tasks import MatchingTask, PreRankingTask
from models.two_tower import TwoTower, TwoTowerConfig

__all__ = ["MODELS", "ModelConfig", "ModelSpec", "build_task", "spec_of"]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What belongs to a model's name."""

    config_class: type
    """Frozen dataclass of hyper-parameters, all with defaults."""
    model_class: type[nn.Module]
    """`model_class(config, dims=InputDims(...), device=...)`."""
    task_class: type[PreRankingTask] | type[MatchingTask]
    """What trains it: PreRankingTask scores given candidates, MatchingTask finds the item among all."""


MODELS: dict[str, ModelSpec] = {
    "bert4rec": ModelSpec(config_class=BERT4RecConfig, model_class=BERT4Rec, task_class=MatchingTask),
    "caser": ModelSpec(config_class=CaserConfig, model_class=Caser, task_class=MatchingTask),
    "cold": ModelSpec(config_class=COLDConfig, model_class=COLD, task_class=PreRankingTask),
    "contrastvae": ModelSpec(config_class=ContrastVAEConfig, model_class=ContrastVAE, task_class=MatchingTask),
    "dat": ModelSpec(config_class=DATConfig, model_class=DAT, task_class=PreRankingTask),
    "dat_plus": ModelSpec(config_class=DATPlusConfig, model_class=DATPlus, task_class=MatchingTask),
    "diffurec": ModelSpec(config_class=DiffuRecConfig, model_class=DiffuRec, task_class=MatchingTask),
    "fit": ModelSpec(config_class=FITConfig, model_class=FIT, task_class=PreRankingTask),
    "gru4rec": ModelSpec(config_class=GRU4RecConfig, model_class=GRU4Rec, task_class=MatchingTask),
    "hstu": ModelSpec(config_class=HSTUConfig, model_class=HSTU, task_class=MatchingTask),
    "inttower": ModelSpec(config_class=IntTowerConfig, model_class=IntTower, task_class=PreRankingTask),
    "ranktower": ModelSpec(config_class=RankTowerConfig, model_class=RankTower, task_class=PreRankingTask),
    "regular_two_tower": ModelSpec(config_class=RegularTwoTowerConfig, model_class=RegularTwoTower, task_class=MatchingTask),
    "sasrec": ModelSpec(config_class=SASRecConfig, model_class=SASRec, task_class=MatchingTask),
    "stosa": ModelSpec(config_class=STOSAConfig, model_class=STOSA, task_class=MatchingTask),
    "t2diff": ModelSpec(config_class=T2DiffConfig, model_class=T2Diff, task_class=MatchingTask),
    "two_tower": ModelSpec(config_class=TwoTowerConfig, model_class=TwoTower, task_class=PreRankingTask),
}

if TYPE_CHECKING:
    # type checkers accept a literal union alone, which would be a second list of the models
    ModelConfig = Any
else:
    ModelConfig = functools.reduce(operator.or_, (spec.config_class for spec in MODELS.values()))
    """Union of the config classes in MODELS, `FITConfig | TwoTowerConfig | …`: the type of a field that holds any of them."""


def spec_of(config: ModelConfig) -> ModelSpec:
    """The entry of MODELS whose config class this is; ValueError lists the known ones."""
    for spec in MODELS.values():
        if type(config) is spec.config_class:
            return spec
    raise ValueError(
        f"{type(config).__name__} is no model's config, expected one of {[s.config_class.__name__ for s in MODELS.values()]}"
    )


def build_task(
    config: ModelConfig,
    *,
    schema: Schema,
    embeddings: EmbeddingConfig | None = None,
    catalogue: Catalogue | None = None,
    world_size: int = 1,
    device: torch.device | None = None,
    table_device: torch.device | None = None,
) -> PreRankingTask | MatchingTask:
    """Embeddings, model and loss for a schema.

    Args:
        config: the model's hyper-parameters; its type names the model.
        schema: the data's columns.
        embeddings: width and start of the tables, and the features to use; None is EmbeddingConfig().
        catalogue: every item of the data; matching models need it.
        world_size: ranks whose gradients are averaged.
        device: where the parameters live; meta is allowed.
        table_device: where the tables live, None: on `device`. On meta they take no memory until trainer.sharding.shard draws each
            rank's part; the weights are the same bits as those of tables on the CPU under the same torch.initial_seed().

    Raises:
        ValueError: the config is no model's, the schema does not fit (see FeatureEmbeddings), or a matching model has no catalogue.

    Example::

        task = build_task(FITConfig(), schema=Schema.load(Path("data/ml1m")))
        loss, out = task(batch)
    """
    spec = spec_of(config)
    lookups = FeatureEmbeddings(
        schema, config=embeddings or EmbeddingConfig(), device=device if table_device is None else table_device
    )
    model = spec.model_class(config, dims=lookups.dims, device=device)
    if spec.task_class is PreRankingTask:
        return PreRankingTask(lookups, model=model, world_size=world_size)
    if catalogue is None:
        raise ValueError(
            f"{type(config).__name__} is a matching model's: pass catalogue=, see dataloaders.catalogue.read_catalogue"
        )
    return MatchingTask(
        lookups, model=model, catalogue=catalogue, item_key=schema.item_key, config=config.loss, world_size=world_size
    )
