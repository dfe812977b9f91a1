from itertools import product
from typing import get_args

import pytest

from trainer.capability import CAPABILITY, SHARDING_TYPES, allowed_types, check_capability, verdict
from trainer.errors import UserError
from trainer.optim import SparseOptimizer
from trainer.tables import Kind

EVERYTHING = list(product(("cpu", "cuda"), get_args(Kind), SHARDING_TYPES, get_args(SparseOptimizer)))


def test_every_combination_is_decided_by_a_rule_of_the_table() -> None:
    undecided = [asked for asked in EVERYTHING if "nobody has tried" in verdict(**named(asked))]
    assert undecided == []


def named(asked: tuple[str, str, str, str]) -> dict[str, str]:
    return dict(zip(("device", "kind", "sharding_type", "sparse"), asked, strict=True))


def test_every_rule_decides_something() -> None:
    deciding = set()
    for asked in [*EVERYTHING, ("cpu", "pooled", "replicated", "adam")]:
        deciding.add(
            next(i for i, rule in enumerate(CAPABILITY) if all(p in ("*", a) for p, a in zip(rule[:4], asked, strict=True)))
        )
    assert deciding == set(range(len(CAPABILITY)))


def test_what_works_on_a_cpu_is_what_has_been_measured() -> None:
    works = {kind: allowed_types("t", device="cpu", kind=kind, sparse="adagrad") for kind in get_args(Kind)}
    assert works == {
        "pooled": ["table_wise", "row_wise", "column_wise", "table_column_wise"],
        "sequence": ["table_wise", "row_wise", "column_wise"],
    }
    assert allowed_types("t", device="cpu", kind="pooled", sparse="rowwise_adagrad") == ["table_wise", "row_wise"]
    assert allowed_types("t", device="cpu", kind="pooled", sparse="adam") == ["data_parallel"]


def test_replicated_tables_take_every_optimizer_everywhere() -> None:
    for device, kind, sparse in product(("cpu", "cuda", "mps"), get_args(Kind), get_args(SparseOptimizer)):
        check_capability("t", device=device, kind=kind, sharding_type="replicated", sparse=sparse)


def test_where_nothing_works_all_reasons_are_listed() -> None:
    with pytest.raises(UserError, match="no sharding type works with optimizer adam on cpu") as error:
        allowed_types("t_item", device="cpu", kind="sequence", sparse="adam")
    assert "t_item" in str(error.value)
    assert all(f"{name}: " in str(error.value) for name in SHARDING_TYPES)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UserError, match="mps"):
        check_capability("t", device="mps", kind="pooled", sharding_type="row_wise", sparse="sgd")
