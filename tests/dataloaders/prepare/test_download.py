import hashlib
import zipfile
from pathlib import Path

import pytest

from dataloaders.errors import DataError
from dataloaders.prepare.download import fetch_archive

NAMES = ("ratings.dat", "users.dat")


def write_zip(path: Path, members: dict[str, str]) -> dict[str, str]:
    """A zip archive as `fetch_archive` takes it: its address and md5."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return {"url": path.as_uri(), "md5": hashlib.md5(path.read_bytes()).hexdigest()}


def test_only_the_named_files_are_unpacked_and_none_outside_the_folder(tmp_path: Path) -> None:
    members = {"ml-1m/ratings.dat": "r", "../../users.dat": "u", "../evil.txt": "x", "ml-1m/README": "readme"}
    source = write_zip(tmp_path / "archive.zip", members)
    fetch_archive(source["url"], md5=source["md5"], folder=tmp_path / "a" / "b" / "raw", names=NAMES)
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert written == ["a/b/raw/ratings.dat", "a/b/raw/users.dat", "archive.zip"]
    assert (tmp_path / "a/b/raw/users.dat").read_text() == "u"


def test_an_archive_with_another_md5_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "archive.zip", {"ratings.dat": "r", "users.dat": "u"})
    with pytest.raises(
        DataError, match=rf"md5 of the \d+ bytes received is {source['md5']}, expected 0000; try again, or fetch .* by hand"
    ):
        fetch_archive(source["url"], md5="0000", folder=tmp_path / "raw", names=NAMES)
    assert not (tmp_path / "raw").exists()


def test_an_archive_without_a_needed_file_names_it(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "archive.zip", {"ratings.dat": "r"})
    with pytest.raises(DataError, match=r"the archive lacks \['users\.dat'\], it holds \['ratings\.dat'\]"):
        fetch_archive(source["url"], md5=source["md5"], folder=tmp_path / "raw", names=NAMES)


def test_an_unreachable_address_says_what_to_fetch_and_where_to_put_it(tmp_path: Path) -> None:
    url = (tmp_path / "absent.zip").as_uri()
    with pytest.raises(ConnectionError, match=r"absent\.zip.* by hand and unpack ratings\.dat, users\.dat into .*raw"):
        fetch_archive(url, md5="0", folder=tmp_path / "raw", names=NAMES)


def test_nothing_is_fetched_where_all_files_are_there(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).write_text("mine")
    fetch_archive((tmp_path / "absent.zip").as_uri(), md5="0", folder=tmp_path, names=NAMES)
    assert (tmp_path / "ratings.dat").read_text() == "mine"
