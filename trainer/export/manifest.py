"""manifest.json of an artefact: binds its files into one version, and refuses whatever is not exactly that."""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trainer.checkpoint_manifest import entry_of
from trainer.durable_file import write_durably
from trainer.errors import CheckpointError
from trainer.export.golden import ANSWERS, REQUESTS
from trainer.export.item_store import INDEX, QUERIES, SCALES, VECTORS
from trainer.export.signature import (
    InputFeature,
    ItemSignature,
    Layout,
    StoreSignature,
    TableForm,
    Task,
    UserSignature,
)

FORMAT_VERSION = 1
FILE_NAME = "manifest.json"
_SEAL = re.compile(rb'"seal": "([0-9a-f]{64})"')
_AGAIN = "export the run again"


@dataclass(frozen=True, kw_only=True)
class FileDigest:
    """What one file must be."""

    sha256: str
    """Hexadecimal digest of its content."""
    bytes: int
    """Its size."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where an artefact comes from."""

    task: Task
    model: str
    """Class of the model."""
    recipe: str
    step: int
    """Optimizer steps of the checkpoint; towers, tables, store and Q* are all of this one."""
    config: dict
    """RunConfig.as_dict() of the run."""
    config_fingerprint: str
    schema_fingerprint: str
    commit: str
    created: str
    """UTC."""
    versions: dict[str, str]
    """Of the libraries that exported it."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about an artefact but its tensors."""

    artefact: str
    """Its id: `artefact_id` of files, step and configuration."""
    origin: Provenance
    tables: TableForm
    layout: Layout
    modules: dict[str, str]
    """user_tower, item_tower, scorer -> file."""
    operators: dict[str, list[str]]
    """File of a module -> operators that it needs."""
    user: UserSignature
    item: ItemSignature
    store: StoreSignature
    lookups: dict[str, str]
    """For tables outside: table -> file with its float32 rows."""
    packages: dict[str, dict[str, str]]
    """Module -> its AOTInductor package (`file`) and what that was built for (`device`, `architecture`, `torch`); may be empty."""
    embedding_dim: int
    """D, width of every table."""
    max_history: int
    """Most behaviours of a request's history."""
    files: dict[str, FileDigest]
    """Every other file of the folder, by its path in it."""


def artefact_id(manifest: Manifest) -> str:
    """16 hexadecimal digits that differ wherever a file's name or content, the step or the configuration does."""
    lines = [f"{name} {manifest.files[name].sha256}\n" for name in sorted(manifest.files)]
    lines += [f"step {manifest.origin.step}\n", f"config {manifest.origin.config_fingerprint}\n"]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def digest_files(folder: Path) -> dict[str, FileDigest]:
    """Every file below `folder` but the manifest."""
    return {name: _digest(folder / name) for name in _files_in(folder)}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `folder`/manifest.json with its seal: the sha256 of its own bytes with the seal's digits all 0."""
    content = json.dumps(_as_json(manifest) | {"seal": "0" * 64}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    raw = content.encode()
    assert len(_SEAL.findall(raw)) == 1, "a manifest says seal once"
    write_durably(folder / FILE_NAME, _SEAL.sub(b'"seal": "%s"' % hashlib.sha256(raw).hexdigest().encode(), raw))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artefact, sealed and of this format version; its files are not looked at.

    Raises:
        CheckpointError: it is missing, damaged, or of another version.
    """
    path = folder / FILE_NAME
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}; the folder holds no artefact") from error
    seals = _SEAL.findall(raw)
    if len(seals) != 1 or hashlib.sha256(_SEAL.sub(b'"seal": "%s"' % (b"0" * 64), raw)).hexdigest().encode() != seals[0]:
        raise CheckpointError(f"{path}: does not match its own sha256 (seal); the file is damaged: {_AGAIN}")
    try:
        content = json.loads(raw)
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise CheckpointError(f"{path}: format_version={version}, this program reads {FORMAT_VERSION}; {_AGAIN}")
        return _from_json(content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a manifest of format {FORMAT_VERSION} ({error!r}); {_AGAIN}") from error


def verify(folder: Path) -> Manifest:
    """Read every byte of an artefact and compare it with its manifest.

    Raises:
        CheckpointError: the manifest is damaged, a file is missing, changed or not listed, or the parts are not of one version.
    """
    manifest = read_manifest(folder)
    unlisted = [name for name in _needed_files(manifest) if name not in manifest.files]
    if unlisted:
        raise CheckpointError(f"{folder / FILE_NAME}: does not list {unlisted[0]}, which such an artefact needs; {_AGAIN}")
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path}: missing, but the manifest lists it; {_AGAIN}")
        found = _digest(path)
        if found != expected:
            raise CheckpointError(
                f"{path}: {found.bytes} bytes with sha256 {found.sha256[:12]}…, but the manifest says {expected.bytes} bytes and "
                f"{expected.sha256[:12]}…; it is damaged or of another artefact: {_AGAIN}"
            )
    extra = [name for name in _files_in(folder) if name not in manifest.files]
    if extra:
        raise CheckpointError(
            f"{folder / extra[0]}: not listed in {FILE_NAME}; it is no part of artefact {manifest.artefact}: remove it"
        )
    expected_id = artefact_id(manifest)
    if manifest.artefact != expected_id:
        raise CheckpointError(f"{folder / FILE_NAME}: artefact {manifest.artefact}, but its parts make {expected_id}; {_AGAIN}")
    return manifest


def _needed_files(manifest: Manifest) -> list[str]:
    """Files that whoever serves the artefact opens."""
    files = ["schema.json", REQUESTS, ANSWERS, VECTORS, *manifest.modules.values(), *manifest.lookups.values()]
    files += [package["file"] for package in manifest.packages.values()]
    if manifest.store.vector_dtype == "int8":
        files.append(SCALES)
    return files if manifest.store.index_dtype is None else [*files, INDEX, QUERIES]


def _as_json(manifest: Manifest) -> dict:
    content = dataclasses.asdict(manifest)
    origin, limits = content.pop("origin"), {"max_history": content.pop("max_history")}
    head = {"format_version": FORMAT_VERSION, "artefact": content.pop("artefact")}
    return head | origin | content | {"limits": limits}


def _from_json(content: dict) -> Manifest:
    """ValueError, TypeError, KeyError or AttributeError where a field is missing, unknown or of another kind."""
    rest = {name: value for name, value in content.items() if name not in ("format_version", "seal", "limits")}
    origin = Provenance(**{field.name: rest.pop(field.name) for field in dataclasses.fields(Provenance)})
    user = rest.pop("user")
    features, history = _features(user.pop("features")), _features(user.pop("history"))
    files = {name: FileDigest(**entry) for name, entry in rest.pop("files").items()}
    outside = [name for name in files if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
    if outside:
        raise ValueError(f"lists {outside[0]!r}, which is no file of its folder")
    return Manifest(
        origin=origin,
        user=UserSignature(features=features, history=history, **user),
        item=ItemSignature(features=_features(rest.pop("item")["features"])),
        store=StoreSignature(**rest.pop("store")),
        files=files,
        max_history=content["limits"]["max_history"],
        **rest,
    )


def _features(entries: list[dict]) -> tuple[InputFeature, ...]:
    return tuple(InputFeature(**entry) for entry in entries)


def _digest(path: Path) -> FileDigest:
    entry = entry_of(path)
    return FileDigest(sha256=entry.sha256, bytes=entry.size)


def _files_in(folder: Path) -> list[str]:
    """Paths of the files below `folder`, but the manifest, in order."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return sorted(name for name in names if name != FILE_NAME)
