import pytest

from dataloaders.errors import DataError
from trainer.errors import CheckpointError, UserError, exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [(UserError("x"), 2), (DataError("x"), 3), (CheckpointError("x"), 4), (ValueError("x"), 1), (KeyError("x"), 1)],
)
def test_each_kind_of_error_has_its_exit_code(error: Exception, code: int) -> None:
    assert exit_code(error) == code
