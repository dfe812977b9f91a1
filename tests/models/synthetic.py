"""A tiny schema with every kind of feature, and random batches of it."""

import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from dataloaders.batch import Batch
from dataloaders.schema import Feature, Schema
from models.types import InputDims, ItemInputs, UserInputs

SCHEMA = Schema(
    name="synthetic",
    features=(
        Feature(name="user", side="user", space="user", vocab_size=50),
        Feature(name="tags", side="user", space="tag", vocab_size=7, max_len=3, min_len=0),
        Feature(name="hist_item", side="history", space="item", vocab_size=40, max_len=6, min_len=0),
        Feature(name="hist_category", side="history", space="category", vocab_size=9, max_len=6, min_len=0),
        Feature(name="hist_time_lag", side="history", space="time_lag", vocab_size=5, max_len=6, min_len=0),
        Feature(name="item", side="item", space="item", vocab_size=40),
        Feature(name="category", side="item", space="category", vocab_size=9),
        Feature(name="shop", side="item", space="shop", vocab_size=11),
        Feature(name="item_tags", side="item", space="tag", vocab_size=7, max_len=3, min_len=1),
    ),
    user_key="user",
    item_key="item",
)


def random_batch(num_rows: int, *, seed: int = 0, schema: Schema = SCHEMA, history_lengths: list[int] | None = None) -> Batch:
    """Random ids, random labels; histories of the given lengths, else random ones."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 7, (num_rows,), generator=generator) if history_lengths is None else torch.tensor(history_lengths)

    def jagged(features: tuple[Feature, ...]) -> KeyedJaggedTensor:
        values, counts = [], []
        for feature in features:
            count = torch.randint(feature.min_len, feature.max_len + 1, (num_rows,), generator=generator)
            counts.append(lengths if feature.side == "history" else count)
            values.append(torch.randint(0, feature.vocab_size, (int(counts[-1].sum()),), generator=generator))
        return KeyedJaggedTensor(
            keys=[feature.name for feature in features], values=torch.cat(values), lengths=torch.cat(counts).to(torch.int32)
        )

    return Batch(
        pooled=jagged(schema.pooled_features),
        sequence=jagged(schema.sequence_features),
        label_B=torch.randint(0, 2, (num_rows,), generator=generator).float(),
        row_id_B=torch.arange(num_rows),
        global_rows=torch.tensor(num_rows),
    )


DIMS = InputDims(profile=6, attributes=4, position=8)


def random_inputs(num_rows: int, *, seed: int = 0, history_lengths: list[int] | None = None) -> tuple[UserInputs, ItemInputs]:
    """Random vectors of widths DIMS."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 7, (num_rows,), generator=generator) if history_lengths is None else torch.tensor(history_lengths)
    users = UserInputs(
        torch.randn(num_rows, DIMS.profile, generator=generator),
        torch.randn(int(lengths.sum()), DIMS.position, generator=generator),
        lengths,
    )
    items = ItemInputs(
        torch.randn(num_rows, DIMS.attributes, generator=generator), torch.randn(num_rows, DIMS.position, generator=generator)
    )
    return users, items


def random_statistics(module: torch.nn.Module, *, seed: int = 0) -> torch.nn.Module:
    """`module` in evaluation mode with batch statistics and Dice slopes away from their start, so that tests see them."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in list(module.named_buffers()) + list(module.named_parameters()):
        if name.endswith("running_mean"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
        elif name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif name.endswith("alpha_C"):
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * 0.5)
    return module.eval()
