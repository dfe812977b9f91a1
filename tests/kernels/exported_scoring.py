"""Prints what torch.export makes of the scoring kernels, with requests of any number; in a process without the interpreter."""

import torch

from kernels.lss_score import LSSWeights, StoredItems
from kernels.lss_score.launch import top_stored
from kernels.target_attention import AttentionWeights, DiceWeights
from kernels.target_attention.launch import attend_all
from kernels.target_attention.split import kernel_inputs

# B requests, N queries, U heads, P head width, K candidates, J history positions, D width of a position


class Serving(torch.nn.Module):
    """The kernels that serving runs, with weights that stay."""

    def __init__(self) -> None:
        super().__init__()
        self.scorer = LSSWeights(*[torch.randn(shape) for shape in [(4, 2), (4,), (4, 2), (4,), (4, 4)]])
        self.items = StoredItems(torch.randn(30, 16).half(), None, torch.randint(3, (30,), dtype=torch.uint8))
        dice = DiceWeights(torch.zeros(6), torch.ones(6), torch.zeros(6), 1e-8)
        layer1, layer2 = (torch.randn(6, 32), torch.randn(6)), (torch.randn(6, 6), torch.randn(6))
        self.attention = AttentionWeights(*layer1, dice, *layer2, dice, torch.randn(1, 6), torch.randn(1))
        self.query_ND = torch.randn(3, 8)

    def forward(
        self, user_BNUP: torch.Tensor, candidate_BK: torch.Tensor, history_JD: torch.Tensor, lengths_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        (history_JD, offset, query_ND, *weights), eps = kernel_inputs(history_JD, lengths_B, self.query_ND, self.attention)
        pooled_BND = attend_all(history_JD, offset, query_ND, weights, eps)
        return top_stored(user_BNUP, *self.items, candidate_BK, list(self.scorer), 5)[0], pooled_BND


if __name__ == "__main__":
    requests, positions = torch.export.Dim("requests", min=2), torch.export.Dim("positions", min=2)
    inputs = (torch.randn(4, 3, 2, 8), torch.randint(30, (4, 20)), torch.randn(7, 8), torch.tensor([3, 0, 4, 0]))
    program = torch.export.export(Serving(), inputs, dynamic_shapes=({0: requests}, {0: requests}, {0: positions}, {0: requests}))
    print(*(node.target for node in program.graph.nodes if node.op == "call_function"))
