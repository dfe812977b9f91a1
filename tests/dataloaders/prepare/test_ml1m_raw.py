import re
from pathlib import Path

import numpy as np
import pytest

from dataloaders.errors import DataError
from dataloaders.prepare.ml1m_raw import GENRES, read_ml1m
from tests.dataloaders.prepare.tiny_ml1m import MOVIES, RATINGS, USERS, write_raw


def test_ids_follow_the_sorted_raw_ids_and_unrated_movies_get_none(tmp_path: Path) -> None:
    raw = read_ml1m(write_raw(tmp_path))
    assert raw.raw_user_U.tolist() == [1, 2, 3, 4, 5]
    assert raw.raw_item_I.tolist() == [10, 20, 30, 40, 50, 70]
    assert raw.user_N.tolist() == [0, 1, 0, 0, 1, 0, 2, 1, 1, 3, 3]
    assert raw.item_N.tolist() == [0, 1, 1, 2, 0, 3, 4, 2, 3, 5, 4]
    assert raw.rating_N.tolist() == [5, 4, 3, 2, 1, 4, 5, 5, 3, 4, 2]
    assert raw.time_N.tolist() == [100, 50, 90, 100, 60, 200, 10, 70, 80, 500, 400]


def test_user_columns_hold_dense_codes_and_the_first_zip_digit(tmp_path: Path) -> None:
    columns = read_ml1m(write_raw(tmp_path)).user_columns
    assert columns["gender"].to_pylist() == [0, 1, 0, 1, 1]
    assert columns["age"].to_pylist() == [0, 2, 1, 6, 3]
    assert columns["occupation"].to_pylist() == [10, 0, 4, 20, 7]
    assert columns["zip_region"].to_pylist() == [4, 9, 1, 0, 5]


def test_an_item_has_one_category_for_its_genre_combination_and_all_its_genres(tmp_path: Path) -> None:
    raw = read_ml1m(write_raw(tmp_path))
    names = [[GENRES[genre] for genre in genres] for genres in raw.item_columns["genres"].to_pylist()]
    assert names == [
        ["Animation", "Children's", "Comedy"],
        ["Adventure", "Sci-Fi"],
        ["Action"],
        list(GENRES),
        ["Action"],
        ["Drama", "War"],
    ]
    categories = [raw.categories[category] for category in raw.item_columns["category"].to_pylist()]
    assert categories == ["|".join(genres) for genres in names]
    assert len(raw.categories) == 6
    assert "Western" in raw.categories  # of the movie that nobody rated


def test_titles_are_latin_1_and_may_hold_the_separator(tmp_path: Path) -> None:
    titles = read_ml1m(write_raw(tmp_path)).title_I
    assert titles[1] == "Cité des enfants perdus, La (1995)"
    assert titles[3] == "Star Wars: Episode IV :: A New Hope (1977)"


def test_windows_line_ends_and_a_missing_last_newline_are_accepted(tmp_path: Path) -> None:
    unix = read_ml1m(write_raw(tmp_path / "unix"))
    other = write_raw(
        tmp_path / "windows",
        ratings=RATINGS.replace("\n", "\r\n"),
        users=USERS.removesuffix("\n"),
        movies=MOVIES.replace("\n", "\r\n"),
    )
    windows = read_ml1m(other)
    assert np.array_equal(unix.time_N, windows.time_N)
    assert unix.item_columns["genres"].equals(windows.item_columns["genres"])


@pytest.mark.parametrize(
    ("name", "line", "text"),
    [
        ("ratings", 3, "1::20::6::90"),
        ("ratings", 3, "1::20::3"),
        ("ratings", 3, "1::20::3::90::7"),
        ("ratings", 3, "1::20::3.5::90"),
        ("ratings", 3, "-1::20::3::90"),
        ("ratings", 3, "1::20::3::99999999999"),
        ("ratings", 3, ""),
        ("users", 2, "1::X::1::10::48067"),
        ("users", 2, "1::F::2::10::48067"),
        ("users", 2, "1::F::1::21::48067"),
        ("users", 2, "1::F::1::10::A1B"),
        ("movies", 2, "20::No Genre (1995)::"),
        ("movies", 2, "20::Adventure"),
        ("movies", 2, "x::Title::Adventure"),
    ],
)
def test_a_malformed_line_names_file_line_text_and_the_expected_form(tmp_path: Path, name: str, line: int, text: str) -> None:
    lines = {"ratings": RATINGS, "users": USERS, "movies": MOVIES}[name].splitlines()
    lines[line - 1] = text
    folder = write_raw(tmp_path, **{name: "\n".join(lines) + "\n"})
    expected = {"ratings": "UserID::MovieID::Rating", "users": "UserID::F|M::Age", "movies": "MovieID::Title::Genre"}[name]
    with pytest.raises(
        DataError, match=rf"{name}\.dat, line {line}: {re.escape(repr(text))} is malformed.*expected {re.escape(expected)}"
    ):
        read_ml1m(folder)


def test_a_blank_line_at_the_end_is_malformed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ratings\.dat, line 12: '' is malformed"):
        read_ml1m(write_raw(tmp_path, ratings=RATINGS + "\n"))


def test_an_unknown_genre_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"movies\.dat, line 3: unknown genre 'Mumblecore'; expected some of Action, .*Western"):
        read_ml1m(write_raw(tmp_path, movies=MOVIES.replace("Heat (1995)::Action", "Heat (1995)::Action|Mumblecore")))


@pytest.mark.parametrize(
    ("rating", "message"),
    [
        ("9::10::5::1", r"line 12: id 9 is not in users\.dat \(1 such lines\)"),
        ("1::65::5::1", r"line 12: id 65 is not in movies\.dat"),
    ],
)
def test_a_rating_of_an_undescribed_user_or_movie_is_refused(tmp_path: Path, rating: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_ml1m(write_raw(tmp_path, ratings=RATINGS + rating + "\n"))


def test_a_repeated_id_names_its_second_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"users\.dat, line 6: id 2 appears a second time"):
        read_ml1m(write_raw(tmp_path, users=USERS + "2::F::1::1::11111\n"))
    with pytest.raises(DataError, match=r"movies\.dat, line 8: id 10 appears a second time"):
        read_ml1m(write_raw(tmp_path, movies=MOVIES + "10::Again (1999)::Drama\n"))


def test_an_empty_file_and_a_missing_file_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ratings\.dat: the file is empty"):
        read_ml1m(write_raw(tmp_path, ratings=""))
    (tmp_path / "users.dat").unlink()
    with pytest.raises(
        DataError, match=r"users\.dat: no such file; pass --download, or fetch https://files\.grouplens\.org.*by hand"
    ):
        read_ml1m(tmp_path)
