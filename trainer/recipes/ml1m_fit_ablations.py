"""MovieLens-1M: FIT's ablations, each `fit_ml1m_paper` with one change (sections 5.4.1 and 5.4.2, Figs. 4 and 5)."""

import dataclasses

from models.fit import FITConfig
from models.layers.meta_query import MetaQueryConfig
from trainer.config import RunConfig
from trainer.recipes.ml1m import fit_ml1m_paper


def _ablation(*, recipe: str, model: FITConfig) -> RunConfig:
    return dataclasses.replace(fit_ml1m_paper(), recipe=recipe, model=model)


def fit_no_mqm_ml1m_paper() -> RunConfig:
    """Fig. 4, "w/o MQM": no query, and the history's mean."""
    return _ablation(recipe="fit_no_mqm_ml1m_paper", model=FITConfig(use_meta_query=False))


def fit_no_lss_ml1m_paper() -> RunConfig:
    """Fig. 4, "w/o LSS": Two-Tower's output layer."""
    return _ablation(recipe="fit_no_lss_ml1m_paper", model=FITConfig(scorer="dot"))


def fit_sum_max_ml1m_paper() -> RunConfig:
    """Fig. 4, "w SumMax": the sum-max similarity in place of LSS."""
    return _ablation(recipe="fit_sum_max_ml1m_paper", model=FITConfig(scorer="sum_max"))


def fit_fc_ml1m_paper() -> RunConfig:
    """Fig. 4, "w FC": a fully connected layer on the similarity matrix in place of LSS (eq. 17)."""
    return _ablation(recipe="fit_fc_ml1m_paper", model=FITConfig(scorer="fc"))


def fit_hard_query_ml1m_paper() -> RunConfig:
    """Fig. 5, left: the hard query in training too."""
    return _ablation(recipe="fit_hard_query_ml1m_paper", model=FITConfig(meta_query=MetaQueryConfig(selection="hard")))


def fit_no_temperature_ml1m_paper() -> RunConfig:
    """Fig. 5, left: the soft query without temperature in training, the hard query in serving."""
    return _ablation(
        recipe="fit_no_temperature_ml1m_paper", model=FITConfig(meta_query=MetaQueryConfig(selection="soft_no_temperature"))
    )


def fit_no_self_attention_ml1m_paper() -> RunConfig:
    """Fig. 5, right: without the parameter-free self-attention of eq. 5."""
    return _ablation(recipe="fit_no_self_attention_ml1m_paper", model=FITConfig(meta_query=MetaQueryConfig(query_attention="none")))
