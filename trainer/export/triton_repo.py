"""An artefact's modules as a model repository of the Triton Inference Server: `--layout triton`.

Each module is a model of Triton's PyTorch backend: a folder with config.pbtxt and 1/model.pt, whose tensors are the arguments of
its `forward` (Triton calls no other method, so a user tower's noise is an input there). What is ragged comes as values with
separate lengths, and the first dimension is no batch that Triton could cut or join: max_batch_size is 0. The other files of the
artefact lie beside them, where Triton does not look, and the manifest covers all.
"""

from typing import NamedTuple

from trainer.export.signature import StoreSignature, TableForm, UserSignature

MODEL_FILE = "1/model.pt"
CONFIG_FILE = "config.pbtxt"


class Tensor(NamedTuple):
    """An input or output."""

    name: str
    type: str
    """Triton's, as TYPE_INT64."""
    dims: tuple[int, ...]
    """-1 for any."""


class ModelConfig(NamedTuple):
    """What a config.pbtxt says."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def model_configs(
    *, user: UserSignature, num_item_features: int, store: StoreSignature, tables: TableForm, embedding_dim: int
) -> list[ModelConfig]:
    """The models of an artefact."""
    user_vectors = Tensor("user", "TYPE_FP32", (-1, user.num_queries, user.heads, user.width))
    index, item = Tensor("index", "TYPE_INT64", (-1,)), Tensor("item", "TYPE_FP32", (-1, store.heads, store.width))
    if tables == "outside":
        item_inputs: tuple[Tensor, ...] = (Tensor("item_vectors", "TYPE_FP32", (-1, num_item_features * embedding_dim)),)
    else:
        lengths = Tensor("item_lengths", "TYPE_INT64", (num_item_features, -1))
        item_inputs = (Tensor("item_values", "TYPE_INT64", (-1,)), lengths)
    candidates = (Tensor("index", "TYPE_INT64", (-1, -1)), Tensor("item", "TYPE_FP32", (-1, -1, store.heads, store.width)))
    return [
        ModelConfig("user_tower", _user_inputs(user, tables, embedding_dim), (user_vectors,)),
        ModelConfig("item_tower", item_inputs, (index, item)),
        ModelConfig("scorer", (user_vectors, *candidates), (Tensor("score", "TYPE_FP32", (-1, -1)),)),
    ]


def config_text(config: ModelConfig) -> str:
    """The config.pbtxt of a model."""
    lines = [f'name: "{config.name}"', 'backend: "pytorch"', "max_batch_size: 0"]
    for kind, tensors in (("input", config.inputs), ("output", config.outputs)):
        for place, tensor in enumerate(tensors):
            # Triton tells a tensor's place among the arguments by what follows the two underscores; it knows no dimension of 0
            dims = ", ".join(str(dim or -1) for dim in tensor.dims)
            lines.append(f'{kind} {{ name: "{tensor.name}__{place}" data_type: {tensor.type} dims: [ {dims} ] }}')
    lines.append("instance_group { count: 1 kind: KIND_CPU }")
    # the profiling executor would compile again for new batch sizes
    lines.append('parameters { key: "DISABLE_OPTIMIZED_EXECUTION" value { string_value: "true" } }')
    return "\n".join(lines) + "\n"


def _user_inputs(user: UserSignature, tables: TableForm, embedding_dim: int) -> tuple[Tensor, ...]:
    lengths = Tensor("history_lengths", "TYPE_INT64", (-1,))
    noise = Tensor("noise", "TYPE_FP32", (-1, user.noise_size))
    if tables != "outside":
        return (
            Tensor("user_values", "TYPE_INT64", (-1,)),
            Tensor("user_lengths", "TYPE_INT64", (len(user.features), -1)),
            Tensor("history_values", "TYPE_INT64", (len(user.history), -1)),
            lengths,
            noise,
        )
    looked_up = [feature for feature in user.history if feature.table is not None]
    return (
        Tensor("user_vectors", "TYPE_FP32", (-1, len(user.features) * embedding_dim)),
        Tensor("history_vectors", "TYPE_FP32", (-1, len(looked_up) * embedding_dim)),
        lengths,
        Tensor("context", "TYPE_INT64", (-1, len(user.history) - len(looked_up))),
        noise,
    )
