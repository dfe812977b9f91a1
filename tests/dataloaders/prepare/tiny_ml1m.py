"""Raw files in MovieLens-1M's format, small enough to work out every row by hand; and a random larger set."""

import random
from pathlib import Path

from dataloaders.prepare.ml1m_raw import GENRES

RATINGS = """\
1::10::5::100
2::20::4::50
1::20::3::90
1::30::2::100
2::10::1::60
1::40::4::200
3::50::5::10
2::30::5::70
2::40::3::80
4::70::4::500
4::50::2::400
"""
"""In time: user 1 rates 20, 10, 30 (a tie with 10, later in the file), 40; user 2 rates 20, 10, 30, 40; user 3 rates 50; user 4
rates 50, 70. Dense item ids: 10, 20, 30, 40, 50, 70 -> 0 ... 5; movie 60 is never rated."""

USERS = """\
4::M::56::20::02139-4307
1::F::1::10::48067
2::M::25::0::98765
3::F::18::4::10001
5::M::35::7::55117
"""

MOVIES = f"""\
10::Toy Story (1995)::Animation|Children's|Comedy
20::Cité des enfants perdus, La (1995)::Adventure|Sci-Fi
30::Heat (1995)::Action
40::Star Wars: Episode IV :: A New Hope (1977)::{"|".join(GENRES)}
50::Alien (1979)::Action
60::Unrated (2000)::Western
70::Ran (1985)::Drama|War
"""


def write_raw(folder: Path, *, ratings: str = RATINGS, users: str = USERS, movies: str = MOVIES) -> Path:
    """Write the three files, latin-1, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("ratings.dat", ratings), ("users.dat", users), ("movies.dat", movies)):
        (folder / name).write_text(text, encoding="latin-1", newline="")
    return folder


def write_random_raw(folder: Path, *, num_users: int = 40, num_movies: int = 150, seed: int = 0) -> Path:
    """Users with 1 to 90 ratings each, in mixed file order, with many ties in time."""
    draw = random.Random(seed)
    events = [
        (user, movie, draw.randint(1, 5), 1_000 + draw.randint(0, 60))
        for user in range(1, num_users + 1)
        for movie in draw.sample(range(1, num_movies + 1), draw.randint(1, 90))
    ]
    draw.shuffle(events)
    return write_raw(
        folder,
        ratings="".join(f"{user}::{movie}::{stars}::{time}\n" for user, movie, stars, time in events),
        users="".join(f"{user}::M::25::1::12345\n" for user in range(1, num_users + 1)),
        movies="".join(f"{movie}::Film {movie}::Drama\n" for movie in range(1, num_movies + 1)),
    )
