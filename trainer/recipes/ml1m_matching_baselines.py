"""MovieLens-1M, T2Diff's task: its baselines that read the sequence of items alone, and HSTU, which knows their times too.

`<model>_ml1m` has the data, loss, width, optimizer and budget of `mixed_attention_ml1m`, and like it no dropout. No learning rate
was searched for these models.

`<model>_ml1m_paper` has the model's own size, dropout, batch size and learning rate, as its paper or its authors' program has them
for MovieLens-1M and as far as Adam at this width goes, until validation stops improving; the loss is the same. So is the data, but
where the paper has every behaviour of a sequence predicted from those before it (SASRec, GRU4Rec, HSTU). There a training row is
the newest 50 behaviours of a user, the 50 before them, and so on, and all of them are predicted: `--train-stride 50 --time-gaps
--out data/ml1m_next_item_strided`, which has the same validation and test rows. HSTU reads how long it was from each behaviour to
the next: `--time-gaps --out data/ml1m_next_item_gaps`, the same rows in all splits.
"""

import dataclasses
from pathlib import Path

from models import ModelConfig
from models.bert4rec import BERT4RecConfig
from models.caser import CaserConfig
from models.embeddings import EmbeddingConfig
from models.gru4rec import GRU4RecConfig
from models.hstu import HSTUConfig
from models.sasrec import SASRecConfig
from trainer.config import LoopConfig, RunConfig
from trainer.optim import OptimizerConfig
from trainer.recipes.ml1m_matching import mixed_attention_ml1m

ITEMS = EmbeddingConfig(dim=32, init_std=0.05, features=("hist_item", "item"))
WITH_TIMES = dataclasses.replace(ITEMS, features=("hist_item", "hist_time_gap", "item"))
WITH_USERS = dataclasses.replace(ITEMS, features=("user", "hist_item", "item"))
SEQUENCES = Path("data/ml1m_next_item_strided")
TIME_GAPS = Path("data/ml1m_next_item_gaps")
"""The data of the other models, and beside it the time from each behaviour to the next one."""
PATIENT = LoopConfig(max_epochs=20, evals_per_epoch=2, patience=6, monitor="recall@20")
"""Until validation has not improved for three epochs."""
PATIENT_WITH_SEQUENCES = LoopConfig(max_epochs=100, patience=10, monitor="recall@20")
"""The same for epochs that are shorter: until validation has not improved for ten."""


def tuned(*, recipe: str, model: ModelConfig, embeddings: EmbeddingConfig = ITEMS) -> RunConfig:
    """`mixed_attention_ml1m` with another model."""
    return dataclasses.replace(mixed_attention_ml1m(), recipe=recipe, model=model, embeddings=embeddings)


def of_paper(
    *,
    recipe: str,
    model: ModelConfig,
    embeddings: EmbeddingConfig = ITEMS,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    loop: LoopConfig = PATIENT,
) -> RunConfig:
    """A paper's own optimization by Adam at a constant learning rate, on the data of `mixed_attention_ml1m`."""
    run = tuned(recipe=recipe, model=model, embeddings=embeddings)
    return dataclasses.replace(
        run,
        loader=dataclasses.replace(run.loader, batch_size=batch_size),
        optimizer=OptimizerConfig(learning_rate=learning_rate, sparse="adam", sparse_learning_rate=learning_rate),
        loop=loop,
    )


def of_paper_with_sequences(
    *, recipe: str, model: ModelConfig, embeddings: EmbeddingConfig = ITEMS, batch_size: int = 128
) -> RunConfig:
    """`of_paper` on rows that are sequences."""
    run = of_paper(recipe=recipe, model=model, embeddings=embeddings, batch_size=batch_size, loop=PATIENT_WITH_SEQUENCES)
    return dataclasses.replace(run, data=SEQUENCES)


def sasrec_ml1m() -> RunConfig:
    """SASRec, two blocks."""
    return tuned(recipe="sasrec_ml1m", model=SASRecConfig(dropout=0.0))


def sasrec_ml1m_paper() -> RunConfig:
    """SASRec with a dropout of 0.2 and batches of 128 rows (section IV-D)."""
    return of_paper_with_sequences(recipe="sasrec_ml1m_paper", model=SASRecConfig(all_positions=True))


def gru4rec_ml1m() -> RunConfig:
    """GRU4Rec, as many units as a behaviour is wide."""
    return tuned(recipe="gru4rec_ml1m", model=GRU4RecConfig(hidden_dim=32, dropout=0.0))


def gru4rec_ml1m_paper() -> RunConfig:
    """GRU4Rec with 100 units and a dropout of 0.5; its paper has other data, and Adagrad at 0.01."""
    return of_paper_with_sequences(recipe="gru4rec_ml1m_paper", model=GRU4RecConfig(all_positions=True))


def hstu_ml1m() -> RunConfig:
    """HSTU, two layers with positions and times."""
    return dataclasses.replace(tuned(recipe="hstu_ml1m", model=HSTUConfig(dropout=0.0), embeddings=WITH_TIMES), data=TIME_GAPS)


def hstu_ml1m_paper() -> RunConfig:
    """HSTU with a dropout of 0.2 and batches of 128 rows."""
    return of_paper_with_sequences(recipe="hstu_ml1m_paper", model=HSTUConfig(all_positions=True), embeddings=WITH_TIMES)


def bert4rec_ml1m() -> RunConfig:
    """BERT4Rec, two layers, a fifth of the behaviours hidden in half of the rows."""
    return tuned(recipe="bert4rec_ml1m", model=BERT4RecConfig(dropout=0.0))


def bert4rec_ml1m_paper() -> RunConfig:
    """BERT4Rec with a dropout of 0.2, batches of 256 rows and a learning rate of 1e-4, which needs long training.

    100 epochs are about the 400,000 steps of the program, whose warm-up and linear decay it has; its decay of the weights, which is
    apart from the gradient, it has not.
    """
    loop = dataclasses.replace(PATIENT, max_epochs=100, patience=10)
    run = of_paper(recipe="bert4rec_ml1m_paper", model=BERT4RecConfig(), batch_size=256, learning_rate=1e-4, loop=loop)
    return dataclasses.replace(run, optimizer=dataclasses.replace(run.optimizer, schedule="linear", warmup_steps=100))


def caser_ml1m() -> RunConfig:
    """Caser over the newest five behaviours, and the user's own vector."""
    return tuned(recipe="caser_ml1m", model=CaserConfig(dropout=0.0), embeddings=WITH_USERS)


def caser_ml1m_paper() -> RunConfig:
    """Caser with a dropout of 0.5 and a decay of 1e-6 of all weights."""
    run = of_paper(recipe="caser_ml1m_paper", model=CaserConfig(), embeddings=WITH_USERS)
    return dataclasses.replace(run, optimizer=dataclasses.replace(run.optimizer, weight_decay=1e-6, embedding_decay=1e-6))
