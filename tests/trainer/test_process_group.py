import pytest
import torch
import torch.distributed as dist

from trainer.errors import UserError
from trainer.process_group import distributed, first_rank_says


def test_a_process_that_torchrun_did_not_start_is_the_only_rank_and_leaves_the_group_behind():
    with distributed("cpu") as ranks:
        assert (ranks.rank, ranks.world_size, ranks.device) == (0, 1, torch.device("cpu"))
        assert ranks.is_first
        assert first_rank_says(True, ranks=ranks)
        assert not first_rank_says(False, ranks=ranks)
    assert not dist.is_initialized()


def test_the_group_is_left_when_the_run_fails():
    with pytest.raises(RuntimeError, match="training broke"), distributed("cpu"):
        raise RuntimeError("training broke")
    assert not dist.is_initialized()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asking_for_a_gpu_that_is_not_there_says_what_to_do():
    with pytest.raises(UserError, match=r"--loop\.device cpu"), distributed("cuda"):
        raise AssertionError("must not be reached")


def test_more_ranks_than_gpus_is_a_user_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UserError, match="local rank 1 has no GPU of its own: this machine has 1"), distributed("auto"):
        raise AssertionError("must not be reached")
