"""The rules of the source tree: which folder may import which, how long files and functions are, how they are called."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "kernels": {"kernels"},
    "dataloaders": {"dataloaders"},
    "models": {"models", "kernels", "dataloaders.schema", "dataloaders.batch"},
    "trainer": {"trainer", "models", "kernels", "dataloaders"},
    "torchx_specs": {"torchx_specs", "trainer", "models", "kernels", "dataloaders"},
    "benchmarks": {"benchmarks", "torchx_specs", "trainer", "models", "kernels", "dataloaders"},
    "requirements": set(),
}
"""bytes -> batch -> model -> trainer: each folder's own imports within the project. A name covers what is below it."""
PURE = {"models", "kernels"}
NOT_IN_PURE = ("pyarrow", "polars", "torch.distributed", "torchrec.distributed")
VAGUE_NAMES = {"utils", "util", "helper", "helpers", "manager", "managers", "misc", "data", "common_utils", "tools"}
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
MACHINE_PATH = re.compile(r"""["'\s(=](/(?:home|root|work|Users|mnt|opt)/[\w./-]+)""")


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


SOURCES = python_files(*MAY_IMPORT)
ALL_FILES = [*SOURCES, *python_files("tests")]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_modules(source: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all that `source` imports, anywhere; `from a import b` gives `a.b`, the use of `torch.b` that."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("torch", "torchrec"):
            yield node.lineno, f"{node.value.id}.{node.attr}"


def covers(allowed: str, module: str) -> bool:
    return module == allowed or module.startswith(allowed + ".")


def import_problems(folder: str, source: str) -> list[str]:
    problems = []
    for line, module in imported_modules(source):
        if module.startswith("."):
            problems.append(f"line {line}: relative import of {module}; write it out from the repository root")
        elif module.split(".")[0] in MAY_IMPORT and not any(covers(allowed, module) for allowed in MAY_IMPORT[folder]):
            allowed = ", ".join(sorted(MAY_IMPORT[folder])) or "nothing"
            problems.append(
                f"line {line}: {folder} may not import {module} (only {allowed}); move the code to where it may be used"
            )
        elif folder in PURE and any(covers(name, module) for name in NOT_IN_PURE):
            problems.append(
                f"line {line}: {folder} must stay pure, without {module}; files and ranks belong to dataloaders and trainer"
            )
    return problems


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of code of a function: its docstring and its signature document it and do not count."""
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def long_functions(source: str) -> list[str]:
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [
        f"line {node.lineno}: {node.name} has {function_lines(node)} lines of code; split it, at most {MAX_FUNCTION_LINES} each"
        for node in functions
        if function_lines(node) > MAX_FUNCTION_LINES
    ]


def vague_names(path: Path, source: str) -> list[str]:
    names = [path.stem, path.parent.name]
    classes = [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    found = [name for name in names if name.lower() in VAGUE_NAMES]
    found += [name for name in classes if re.search(r"(Utils?|Helpers?|Manager|Misc)$", name)]
    return [f"{name} says nothing; name it after what it holds or does" for name in found]


def folder_edges() -> dict[str, set[str]]:
    edges: dict[str, set[str]] = {folder: set() for folder in MAY_IMPORT}
    for path in SOURCES:
        folder = path.relative_to(ROOT).parts[0]
        modules = {module.split(".")[0] for _, module in imported_modules(path.read_text())}
        edges[folder] |= (modules & set(MAY_IMPORT)) - {folder}
    return edges


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_follow_the_arrows(path: Path) -> None:
    problems = import_problems(path.relative_to(ROOT).parts[0], path.read_text())
    assert not problems, "\n".join([relative(path), *problems])


def test_folders_do_not_import_each_other_in_a_circle() -> None:
    edges = folder_edges()
    while free := [folder for folder, targets in edges.items() if not targets]:
        for folder in free:
            del edges[folder]
        edges = {folder: targets - set(free) for folder, targets in edges.items()}
    assert not edges, f"these folders import each other in a circle: {edges}; the lower one must not know the upper one"


@pytest.mark.parametrize("path", ALL_FILES, ids=relative)
def test_files_and_functions_are_short(path: Path) -> None:
    source = path.read_text()
    lines = source.count("\n")
    assert lines <= MAX_FILE_LINES, (
        f"{relative(path)} has {lines} lines; split it by concept so that each file has at most {MAX_FILE_LINES}"
    )
    problems = long_functions(source)
    assert not problems, "\n".join([relative(path), *problems])


@pytest.mark.parametrize("path", ALL_FILES, ids=relative)
def test_names_say_what_things_are(path: Path) -> None:
    problems = vague_names(path, path.read_text())
    assert not problems, "\n".join([relative(path), *problems])


@pytest.mark.parametrize("path", ALL_FILES, ids=relative)
def test_no_path_of_one_machine_is_written_down(path: Path) -> None:
    found = [match[1] for match in MACHINE_PATH.finditer(path.read_text()) if path != Path(__file__)]
    assert not found, f"{relative(path)} names {found}; take the folder as an argument, or start from Path(__file__)"


def test_every_folder_of_the_tree_is_checked() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders <= set(MAY_IMPORT), f"{folders - set(MAY_IMPORT)}: say in MAY_IMPORT what the new folder may import"
    assert all((ROOT / folder).is_dir() for folder in MAY_IMPORT)


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("models", "from dataloaders.loader import Loader"),
        ("models", "from dataloaders import loader"),
        ("models", "import torch.distributed as dist"),
        ("models", "from torch import distributed"),
        ("models", "import torch\nrank = torch.distributed.get_rank()"),
        ("models", "def f():\n    import pyarrow.parquet"),
        ("kernels", "from models.fit import FIT"),
        ("dataloaders", "import trainer.config"),
        ("trainer", "from benchmarks import run"),
        ("trainer", "from .config import RunConfig"),
    ],
)
def test_a_forbidden_import_is_found(folder: str, source: str) -> None:
    assert import_problems(folder, source)


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("models", "from dataloaders.schema import Schema\nfrom kernels.lss_score import lss_score\nimport torch"),
        ("trainer", "import torch.distributed\nfrom dataloaders.loader import Loader\nfrom models import MODELS"),
        ("benchmarks", "from trainer.trainer import Trainer"),
    ],
)
def test_an_allowed_import_passes(folder: str, source: str) -> None:
    assert import_problems(folder, source) == []


def test_a_long_function_is_found_and_its_docstring_does_not_count() -> None:
    documented = 'def f():\n    """' + "x\n" * 60 + '"""\n' + "    a = 1\n" * MAX_FUNCTION_LINES
    assert long_functions(documented) == []
    assert long_functions(documented + "    a = 1\n")


def test_a_vague_name_is_found() -> None:
    assert vague_names(ROOT / "trainer" / "utils.py", "")
    assert vague_names(ROOT / "trainer" / "sharding.py", "class ShardManager:\n    x = 1\n")
    assert not vague_names(ROOT / "trainer" / "sharding.py", "class ShardPlan:\n    x = 1\n")
