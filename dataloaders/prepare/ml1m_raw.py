"""Reads MovieLens-1M's three `::`-separated latin-1 files, every line checked, into arrays of dense ids."""

# N behaviours in file order, U users, I rated items

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from dataloaders.errors import DataError
from dataloaders.prepare.raw_lines import read_lines

ARCHIVE_URL = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
FILE_NAMES = ("ratings.dat", "users.dat", "movies.dat")
ARCHIVE_MD5 = "c4d9eecfca2ab87c1945afe126590906"
RATINGS_MD5 = "a89aa3591bc97d6d4e0c89459ff39362"
"""md5 of the official ratings.dat: its counts are known and asserted."""

GENRES = (
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""Genre names in id order."""
GENDERS = ("F", "M")
AGES = {1: "Under 18", 18: "18-24", 25: "25-34", 35: "35-44", 45: "45-49", 50: "50-55", 56: "56+"}
"""Raw age code and what it stands for, in id order."""
OCCUPATIONS = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service", "doctor/health care",
    "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer", "retired", "sales/marketing",
    "scientist", "self-employed", "technician/engineer", "tradesman/craftsman", "unemployed", "writer",
)  # fmt: skip
"""Occupation names; the raw code is the id."""
NUM_ZIP_REGIONS = 10

RATING_PATTERN = r"^([0-9]{1,9})::([0-9]{1,9})::([1-5])::([0-9]{1,10})$"
USER_PATTERN = r"^([0-9]{1,9})::([FM])::(1|18|25|35|45|50|56)::(1?[0-9]|20)::([0-9])[0-9-]*$"
MOVIE_PATTERN = r"^([0-9]{1,9})::(.+)::([^:|]+(?:\|[^:|]+)*)$"


@dataclass(frozen=True, kw_only=True)
class RawMl1m:
    """The three files as arrays; ids are dense and follow the sorted raw ids."""

    user_N: np.ndarray
    """int32 [N] user of each behaviour, in file order."""
    item_N: np.ndarray
    """int32 [N] item of each behaviour."""
    rating_N: np.ndarray
    """int8 [N], 1 to 5 stars."""
    time_N: np.ndarray
    """int64 [N], seconds since 1970."""
    raw_user_U: np.ndarray
    """int64 [U] raw id of each user of users.dat."""
    user_columns: dict[str, pa.Array]
    """gender, age, occupation, zip_region: int32, row u describes user u."""
    raw_item_I: np.ndarray
    """int64 [I] raw id of each item rated at least once."""
    title_I: list[str]
    """Title of each item."""
    item_columns: dict[str, pa.Array]
    """category (int32) and genres (list of int32), row i describes item i."""
    categories: list[str]
    """Genre combinations in id order, over all movies."""
    md5: dict[str, str]
    """md5 of each file."""


def read_ml1m(raw: Path) -> RawMl1m:
    """Read `raw`/ratings.dat, users.dat and movies.dat.

    Raises:
        DataError: a file is missing or empty, a line is malformed (file, line number, text, what was expected), an id repeats
            in users.dat or movies.dat, a genre is unknown, or a rating names a user or movie that its file lacks.
    """
    users = _read_lines(raw / "users.dat", USER_PATTERN, "UserID::F|M::Age::Occupation::Zip-code")
    movies = _read_lines(raw / "movies.dat", MOVIE_PATTERN, "MovieID::Title::Genre|Genre|...")
    ratings = _read_lines(raw / "ratings.dat", RATING_PATTERN, "UserID::MovieID::Rating (1 to 5)::Timestamp in seconds")
    users = _sorted_by_id(raw / "users.dat", users)
    movies = _sorted_by_id(raw / "movies.dat", movies)
    time_N = ratings["field_4"].cast(pl.Int64).to_numpy()
    raw_user_U, raw_movie_M = users["field_1"].to_numpy(), movies["field_1"].to_numpy()
    user_N = _dense_ids(raw / "ratings.dat", ratings["field_1"], raw_user_U, "users.dat")
    movie_N = _dense_ids(raw / "ratings.dat", ratings["field_2"], raw_movie_M, "movies.dat")
    rated_I, item_N = np.unique(movie_N, return_inverse=True)
    genres = _genre_lists(raw / "movies.dat", movies)
    categories = sorted(set(movies["field_3"]))
    category_M = movies["field_3"].replace_strict(categories, list(range(len(categories))), return_dtype=pl.Int32).to_arrow()
    return RawMl1m(
        user_N=user_N.astype(np.int32),
        item_N=item_N.astype(np.int32),
        rating_N=ratings["field_3"].cast(pl.Int8).to_numpy(),
        time_N=time_N,
        raw_user_U=raw_user_U,
        user_columns=_user_columns(users),
        raw_item_I=raw_movie_M[rated_I],
        title_I=movies["field_2"].gather(rated_I).to_list(),
        item_columns={"category": category_M.take(pa.array(rated_I)), "genres": genres.take(pa.array(rated_I))},
        categories=categories,
        md5={name: hashlib.md5((raw / name).read_bytes(), usedforsecurity=False).hexdigest() for name in FILE_NAMES},
    )


def _read_lines(path: Path, pattern: str, expected: str) -> pl.DataFrame:
    return read_lines(path, pattern, expected=expected, url=ARCHIVE_URL, names="its three .dat files")


def _sorted_by_id(path: Path, frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with field_1 as int64, sorted by it; DataError where an id repeats."""
    frame = frame.with_columns(pl.col("field_1").cast(pl.Int64)).sort("field_1", maintain_order=True)
    repeated = frame.filter(pl.col("field_1") == pl.col("field_1").shift(1))
    if not repeated.is_empty():
        line, raw_id = repeated["line"][0], repeated["field_1"][0]
        raise DataError(f"{path}, line {line}: id {raw_id} appears a second time; expected one line per id; remove one of them")
    return frame


def _dense_ids(path: Path, raw_ids: pl.Series, known: np.ndarray, known_file: str) -> np.ndarray:
    """Position of each raw id in the sorted `known` ids."""
    raw_N = raw_ids.cast(pl.Int64).to_numpy()
    position_N = np.minimum(np.searchsorted(known, raw_N), len(known) - 1)  # the next line refuses what the minimum hides
    unknown = np.flatnonzero(known[position_N] != raw_N)
    if len(unknown):
        raise DataError(
            f"{path}, line {unknown[0] + 1}: id {raw_N[unknown[0]]} is not in {known_file} ({len(unknown)} such lines); "
            f"expected an id that {known_file} describes; use the three files of one archive"
        )
    return position_N


def _genre_lists(path: Path, movies: pl.DataFrame) -> pa.ListArray:
    """Genre ids of every movie, as list<int32>."""
    names = movies.select("line", genre=pl.col("field_3").str.split("|")).explode("genre", empty_as_null=True, keep_nulls=True)
    unknown = names.filter(~pl.col("genre").is_in(GENRES))
    if not unknown.is_empty():
        line, genre = unknown["line"][0], unknown["genre"][0]
        raise DataError(f"{path}, line {line}: unknown genre {genre!r}; expected some of {', '.join(GENRES)}")
    ids = names["genre"].replace_strict(GENRES, list(range(len(GENRES))), return_dtype=pl.Int32).to_arrow()
    offsets = np.concatenate([[0], np.cumsum(movies["field_3"].str.count_matches("|", literal=True).to_numpy() + 1)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), ids)


def _user_columns(users: pl.DataFrame) -> dict[str, pa.Array]:
    """gender, age, occupation and zip_region ids, one row per user."""
    gender = users["field_2"].replace_strict(GENDERS, list(range(len(GENDERS))), return_dtype=pl.Int32)
    age = users["field_3"].cast(pl.Int32).replace_strict(list(AGES), list(range(len(AGES))), return_dtype=pl.Int32)
    return {
        "gender": gender.to_arrow(),
        "age": age.to_arrow(),
        "occupation": users["field_4"].cast(pl.Int32).to_arrow(),
        # The first digit is one of ten regions of the United States; three digits would be sparser than the user id explains.
        "zip_region": users["field_5"].cast(pl.Int32).to_arrow(),
    }
