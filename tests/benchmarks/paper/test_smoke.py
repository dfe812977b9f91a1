import pytest

from benchmarks.paper.smoke import smoke


@pytest.mark.timeout(900)  # half a minute of one core, of which a busy machine gives little
@pytest.mark.parametrize("paper", ["t2diff", "fit"])
def test_every_cell_of_the_papers_tables_trains_and_gets_its_row(paper: str, capsys: pytest.CaptureFixture[str]):
    smoke(paper)
    text = capsys.readouterr().out
    assert "| best baseline |" in text
    assert "are not compared row by row yet" not in text
