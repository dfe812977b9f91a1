"""The smallest step that uses every compiled part: `python -m trainer.smoke_step` prints one JSON line, or crashes.

Run by the doctor in a process of its own, because a broken build ends in a signal, not in an exception.
"""

import json

import torch
import torch.distributed as dist
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor


def embedding_step(device: torch.device) -> float:
    """Sum of squares of a few pooled and sequence embeddings, after a backward pass that must reach both tables.

    Raises:
        RuntimeError: a table got no gradient.
    """
    bag = EmbeddingBagConfig(name="t_user", embedding_dim=8, num_embeddings=16, feature_names=["user"])
    table = EmbeddingConfig(name="t_item", embedding_dim=8, num_embeddings=16, feature_names=["hist_item"])
    pooled = EmbeddingBagCollection(tables=[bag], device=device)
    sequence = EmbeddingCollection(tables=[table], device=device)
    lengths_B = torch.tensor([2, 0, 1], device=device)
    ids_J = torch.tensor([1, 5, 3], device=device)
    pooled_BD = pooled(KeyedJaggedTensor.from_lengths_sync(keys=["user"], values=ids_J, lengths=lengths_B)).values()
    history = sequence(KeyedJaggedTensor.from_lengths_sync(keys=["hist_item"], values=ids_J, lengths=lengths_B))
    loss = pooled_BD.square().sum() + history["hist_item"].values().square().sum()
    loss.backward()
    for name, parameter in [*pooled.named_parameters(), *sequence.named_parameters()]:
        if parameter.grad is None or not parameter.grad.abs().sum() > 0:
            raise RuntimeError(f"{name}: no gradient after backward()")
    return float(loss)


def main() -> None:
    """One step on the CPU, one on the GPU where PyTorch sees one, and a sum over one gloo rank."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    dist.all_reduce(torch.ones(1))
    dist.destroy_process_group()
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    losses = {device: embedding_step(torch.device(device)) for device in devices}
    print(json.dumps(losses))


if __name__ == "__main__":
    main()
