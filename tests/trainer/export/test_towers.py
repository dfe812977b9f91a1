import torch

from models.ranking import exact_scores
from trainer.export.towers import DotScorer


def test_dot_scores_are_those_that_rank_the_catalogue() -> None:
    generator = torch.Generator().manual_seed(0)
    user_BC, item_BKC = torch.randn(4, 33, generator=generator), torch.randn(4, 50, 33, generator=generator)
    scorer = torch.jit.script(DotScorer())
    found = scorer(user_BC[:, None, None], torch.zeros(4, 50, dtype=torch.int64), item_BKC.unsqueeze(2))
    assert torch.equal(found, exact_scores(user_BC, item_BKC))


def test_equal_items_have_equal_scores_wherever_they_stand() -> None:
    generator = torch.Generator().manual_seed(1)
    item_C = torch.randn(77, generator=generator)
    item_1K1C = item_C.expand(1, 1001, 1, 77)
    scores = DotScorer()(torch.randn(1, 1, 1, 77, generator=generator), torch.zeros(1, 1001, dtype=torch.int64), item_1K1C)
    assert len(scores.unique()) == 1
