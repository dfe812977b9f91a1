"""Every item of a data set as item-only rows: what a softmax over the catalogue and a full ranking look up."""

from pathlib import Path

import numpy as np

from dataloaders.batch import Catalogue
from dataloaders.collate import Collator
from dataloaders.negatives import item_frequencies, log_q
from dataloaders.row_groups import read_items
from dataloaders.schema import Schema
from dataloaders.validation import BadRowPolicy


def read_catalogue(folder: Path, schema: Schema, *, bad_rows: BadRowPolicy = "raise") -> Catalogue:
    """The catalogue of the data set in `folder`: items.parquet, and how often train/ has each item as a positive.

    Raises:
        DataError: a file is missing or breaks the schema.
    """
    items = read_items(folder, schema)
    pooled, sequence = Collator(schema, items=items).items_only(np.arange(items.num_rows))
    return Catalogue(pooled=pooled, sequence=sequence, log_q_M=log_q(item_frequencies(folder / "train", schema, bad_rows=bad_rows)))
