"""Fetches a published archive, checks its md5 before a byte is unpacked, and unpacks only the named files."""

import hashlib
import http.client
import io
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

from dataloaders.errors import DataError

TIMEOUT_SECONDS = 60


def fetch_archive(url: str, *, md5: str, folder: Path, names: tuple[str, ...]) -> None:
    """Put the files `names` of the zip archive at `url` into `folder`; nothing is fetched where all are there already.

    Members are found by their last path component and written under that name alone, so no member can leave `folder`.

    Raises:
        ConnectionError: the address cannot be reached, or the connection breaks.
        DataError: the archive's md5 differs, or it lacks one of the names.
    """
    if all((folder / name).is_file() for name in names):
        return
    by_hand = f"fetch {url} by hand and unpack {', '.join(names)} into {folder}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(f"{url}: {error}; expected to download an archive; check the network, or {by_hand}") from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(f"{url}: md5 of the {len(content)} bytes received is {found}, expected {md5}; try again, or {by_hand}")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {PurePosixPath(member.filename).name: member for member in archive.infolist() if not member.is_dir()}
        missing = sorted(set(names) - set(members))
        if missing:
            raise DataError(f"{url}: the archive lacks {missing}, it holds {sorted(members)}; {by_hand}")
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).write_bytes(archive.read(members[name]))
