from pathlib import Path

import pytest

from trainer.errors import UserError
from trainer.results import has_results, read_results


@pytest.mark.parametrize("content", ["", '{"recipe": "fit', "[]", "\0\0", None])
def test_results_that_are_missing_empty_or_unreadable_count_as_none(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    assert not has_results(tmp_path)
    with pytest.raises(UserError, match=r"results\.json: no results of a finished run"):
        read_results(tmp_path)


def test_whole_results_are_there(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"recipe": "fit_demo"}')
    assert has_results(tmp_path)
    assert read_results(tmp_path) == {"recipe": "fit_demo"}
