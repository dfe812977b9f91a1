"""README's tables, rendered from benchmarks/results: `python -m benchmarks.readme` (benchmarks.paper renders its own)."""

import os
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.result_rows import locked, read_rows

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Arguments:
    """Render README's speed tables from the newest rows of benchmarks/results."""


def main() -> None:
    """Command line."""
    tyro.cli(Arguments)
    for name, render in (
        ("dataloading", dataloading_table),
        ("training", training_table),
        ("serving", serving_table),
        ("kernels", kernels_table),
    ):
        replace_section(ROOT / "README.md", name, render(read_rows(RESULTS / f"{name}.csv")))


def dataloading_table(rows: list[dict[str, str]]) -> str:
    """Rows per second of one core for each variant, of the newest run."""
    newest = {row["variant"]: row for row in rows}
    lines = ["| variant | rows / CPU second | × per-row Python | × torch DataLoader |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {int(row['rows_per_cpu_second']):,} ({int(row['least']):,} .. {int(row['most']):,})"
        f" | {row['times_python_rows']} | {row['times_torch_dataloader']} |"
        for name, row in newest.items()
    ]
    return "\n".join([*lines, "", _origin(list(newest.values()))])


def training_table(rows: list[dict[str, str]]) -> str:
    """Samples per second of the trainer against a plain loop, of each recipe's newest run."""
    newest = {row["recipe"]: row for row in rows}
    lines = ["| recipe | optimizers | plain PyTorch loop | trainer | ratio (least .. most) |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {row['optimizer']} | {int(row['plain_samples_per_second']):,}/s"
        f" | {int(row['trainer_samples_per_second']):,}/s | {row['ratio']} ({row['ratio_least']} .. {row['ratio_most']}) |"
        for name, row in newest.items()
    ]
    return "\n".join([*lines, "", _origin(list(newest.values()))])


def serving_table(rows: list[dict[str, str]]) -> str:
    """Latency, throughput and storage of the newest artefact of each recipe and form."""
    newest = {(row["recipe"], row["tables"], row["vectors"], row["route"]): row for row in rows}
    lines = [
        "| artefact | request | p50, ms | p99, ms | × Two-Tower | requests/s, by clients | bytes/item | × Two-Tower | paper, ms |",
        "|---" * 9 + "|",
    ]
    for (recipe, tables, vectors, route), row in newest.items():
        form = "" if (tables, vectors) == ("inside", "float32") else f", tables {tables}, items {vectors}"
        request = (
            f"{int(row['candidates']):,} candidates" if route == "score" else f"best {row['top_k']} of {int(row['num_items']):,}"
        )
        rates = ", ".join(f"{rate} ({clients})" for clients, rate in (one.split(":") for one in row["requests_per_second"].split()))
        cells = [row["times_two_tower"], rates, row["bytes_per_item"], row["storage_times_two_tower"], row["paper_ms"]]
        shown = " | ".join(cell or "–" for cell in cells)
        lines.append(f"| {recipe}{form} | {request} | {row['p50_ms']} | {row['p99_ms']} | {shown} |")
    return "\n".join([*lines, "", _origin(list(newest.values()))])


def kernels_table(rows: list[dict[str, str]]) -> str:
    """Median times on a GPU of each case's newest rows; a speed-up is told where its check passed and one run has both."""
    newest = {(row["op"], row["case"], row["variant"]): row for row in rows if row["device"] == "cuda" and row["p50_us"]}
    variants = ("triton_graph", "cuda_graph", "compile", "eager")
    lines = [
        "| operator | case | Triton | plain torch, CUDA graph | torch.compile | eager | floor | % of the floor |",
        "|---" * 8 + "|",
    ]
    for op, case in dict.fromkeys(key[:2] for key in newest):
        found = [newest.get((op, case, variant)) for variant in variants]
        times = [f"{float(row['p50_us']):,.1f}" if row else "–" for row in found]
        kernel = found[0]
        floor = (f"{float(kernel['floor_us']):,.1f}", kernel["percent_of_floor"]) if kernel else ("–", "–")
        lines.append(f"| {' | '.join([op, case, *times, *floor])} |")
    return "\n".join([*lines, "", "Microseconds, medians, L2 emptied before each call. " + _origin(list(newest.values()))])


def _origin(rows: list[dict[str, str]]) -> str:
    pattern = "{cpu}, {cores} cores, GPU {gpu}, torch {torch}, torchrec {torchrec}, commit {commit}, {date}"
    return "Measured on: " + "; ".join(dict.fromkeys(pattern.format_map(row) for row in rows)) + "."


def replace_section(path: Path, name: str, content: str) -> None:
    """Put `content` between the markers of `name` in a Markdown file; ValueError where they are not there."""
    begin, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    with locked(path.parent):
        text = path.read_text()
        if begin not in text or end not in text:
            raise ValueError(f"{path.name}: expected the markers {begin} and {end} around the table")
        head, rest = text.split(begin, 1)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(f"{head}{begin}\n{content}\n{end}{rest.split(end, 1)[1]}")
        temporary.rename(path)


if __name__ == "__main__":
    main()
