import json
import math
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from models.ranking import top_items
from trainer.errors import CheckpointError
from trainer.item_index import ItemIndexConfig, build_index, load_index, recall_against_exact, save_index, search

SMALL = {
    "flat": ItemIndexConfig(kind="flat"),
    "ivf": ItemIndexConfig(kind="ivf", nlist=8, nprobe=2),
    "hnsw": ItemIndexConfig(kind="hnsw", m=8, ef_construction=40, ef_search=16),
}


@pytest.fixture(scope="module", name="item_MC")
def items() -> torch.Tensor:
    return torch.randn(600, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", name="user_BC")
def users() -> torch.Tensor:
    return torch.randn(300, 12, generator=torch.Generator().manual_seed(2))


def test_flat_search_is_exact_whatever_the_lengths_of_the_vectors(item_MC: torch.Tensor, user_BC: torch.Tensor) -> None:
    uneven_MC = item_MC * torch.linspace(0.1, 10, len(item_MC))[:, None]  # by distance or by cosine, others would be nearest
    index = build_index(uneven_MC, SMALL["flat"])
    score_BK, item_BK = search(index, user_BC, 10)
    exact_score_BK, exact_item_BK = top_items(user_BC, uneven_MC, 10)
    torch.testing.assert_close(score_BK, exact_score_BK)
    assert torch.equal(item_BK, exact_item_BK)
    assert recall_against_exact(index, user_BC, uneven_MC, 10) == 1


@pytest.mark.parametrize(
    ("coarse", "fine"),
    [
        (SMALL["ivf"], ItemIndexConfig(kind="ivf", nlist=8, nprobe=8)),
        (SMALL["hnsw"], ItemIndexConfig(kind="hnsw", m=8, ef_construction=40, ef_search=600)),
    ],
)
def test_a_harder_search_finds_more_and_in_the_end_nearly_all(
    item_MC: torch.Tensor, user_BC: torch.Tensor, coarse: ItemIndexConfig, fine: ItemIndexConfig
) -> None:
    recalls = [recall_against_exact(build_index(item_MC, config), user_BC, item_MC, 10) for config in (coarse, fine)]
    assert 0.3 < recalls[0] < recalls[1]
    assert recalls[1] > 0.999


def test_recall_counts_what_is_missing(item_MC: torch.Tensor, user_BC: torch.Tensor) -> None:
    index = build_index(item_MC, SMALL["ivf"])
    found_BK, exact_BK = search(index, user_BC, 10)[1], top_items(user_BC, item_MC, 10)[1]
    shares = [len(set(found) & set(exact)) / 10 for found, exact in zip(found_BK.tolist(), exact_BK.tolist(), strict=True)]
    assert recall_against_exact(index, user_BC, item_MC, 10) == pytest.approx(np.mean(shares), abs=1e-12)


def test_recall_lets_equal_items_stand_for_each_other(user_BC: torch.Tensor) -> None:
    twins_MC = torch.ones(50, 12)
    assert recall_against_exact(build_index(twins_MC, SMALL["hnsw"]), user_BC, twins_MC, 3) == 1
    assert math.isnan(recall_against_exact(build_index(twins_MC, SMALL["flat"]), user_BC[:0], twins_MC, 3))


@pytest.mark.parametrize("kind", SMALL)
def test_a_saved_index_answers_as_before_and_any_faiss_can_read_it(
    kind: str, item_MC: torch.Tensor, user_BC: torch.Tensor, tmp_path: Path
) -> None:
    index = build_index(item_MC, SMALL[kind])
    save_index(index, tmp_path / "items.faiss")
    again = load_index(tmp_path / "items.faiss")
    assert again.config == index.config
    for mine, theirs in zip(search(again, user_BC, 7), search(index, user_BC, 7), strict=True):
        assert torch.equal(mine, theirs)
    direct = faiss.read_index(str(tmp_path / "items.faiss")).search(user_BC.numpy(), 7)[1]
    assert np.array_equal(direct, search(index, user_BC, 7)[1].numpy())  # nprobe and ef_search travel with the file
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.faiss", "items.faiss.json"]


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_the_seed_alone_decides_what_an_index_on_one_thread_becomes(kind: str, item_MC: torch.Tensor) -> None:
    settings = {"kind": kind, "nlist": 8, "nprobe": 1, "m": 8, "ef_construction": 20}
    one, same, other = (
        faiss.serialize_index(build_index(item_MC, ItemIndexConfig(**settings, seed=seed)).faiss_index) for seed in (3, 3, 4)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_places_that_the_lists_cannot_fill_are_marked(item_MC: torch.Tensor, user_BC: torch.Tensor) -> None:
    index = build_index(item_MC, ItemIndexConfig(kind="ivf", nlist=8, nprobe=1))
    score_BK, item_BK = search(index, user_BC, 600)
    missing = item_BK == -1
    assert bool(missing.any(1).all())
    assert bool((score_BK[missing] == -math.inf).all())
    assert bool((score_BK[~missing] > -1e6).all())
    assert recall_against_exact(index, user_BC, item_MC, 600) == pytest.approx((~missing).double().mean().item())


@pytest.mark.parametrize(("num_items", "choice"), [(100, "nlist of at most 2, or kind=flat"), (38, "choose kind=flat")])
def test_too_few_items_for_the_lists_are_refused_with_a_choice(item_MC: torch.Tensor, num_items: int, choice: str) -> None:
    with pytest.raises(ValueError, match=rf"{num_items} items are too few for nlist=8.*39.*{choice}"):
        build_index(item_MC[:num_items], SMALL["ivf"])


def test_just_enough_items_for_the_lists_make_faiss_complain_of_nothing(
    capfd: pytest.CaptureFixture[str], item_MC: torch.Tensor
) -> None:
    build_index(item_MC[: 39 * 8], SMALL["ivf"])
    assert capfd.readouterr() == ("", "")


def test_vectors_and_numbers_that_make_no_sense_are_refused(item_MC: torch.Tensor, user_BC: torch.Tensor) -> None:
    index = build_index(item_MC, SMALL["flat"])
    spoiled = item_MC.clone()
    spoiled[3:5, 2] = math.nan
    with pytest.raises(ValueError, match="2 of 600 vectors of item_MC are NaN"):
        build_index(spoiled, SMALL["flat"])
    with pytest.raises(ValueError, match="at least one item"):
        build_index(item_MC[:0], SMALL["flat"])
    with pytest.raises(ValueError, match="expected \\[rows, C\\]"):
        search(index, user_BC[0], 1)
    with pytest.raises(ValueError, match="expected \\[B, 12\\]"):
        search(index, user_BC[:, :3], 1)
    with pytest.raises(ValueError, match="k=601, expected 1 to 600"):
        search(index, user_BC, 601)
    with pytest.raises(ValueError, match="the index holds \\[600, 12\\]"):
        recall_against_exact(index, user_BC, item_MC[:5], 1)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("kind", "annoy", "flat"),
        ("nlist", 0, "at least 1"),
        ("nprobe", 65, "at most nlist=64"),
        ("m", 1, "at least 2"),
        ("ef_search", 0, "at least 1"),
        ("seed", -1, "at least 0"),
        ("seed", 2**31, "below"),
        ("threads", 0, "at least 1"),
    ],
)
def test_a_field_outside_its_range_is_refused(field: str, value: object, allowed: str) -> None:
    with pytest.raises(ValueError, match=rf"ItemIndexConfig\.{field}={value!r}, expected.*{allowed}"):
        ItemIndexConfig(**{field: value})


def damage_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_version(path: Path) -> None:
    beside = path.with_name(path.name + ".json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | {"format_version": 2}))


def damage_width(path: Path) -> None:
    beside = path.with_name(path.name + ".json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | {"dim": 13}))


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (damage_byte, "sha256"),
        (damage_version, "format_version 2, this program reads 1"),
        (damage_width, "width 12"),
        (lambda path: path.unlink(), "no readable item index"),
        (lambda path: path.with_name("items.faiss.json").unlink(), "no readable item index"),
        (lambda path: path.with_name("items.faiss.json").write_text("[]"), "no readable item index"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), "its 50 bytes are not those"),
    ],
)
def test_a_damaged_index_is_refused_before_faiss_sees_it(damage, word: str, item_MC: torch.Tensor, tmp_path: Path) -> None:
    path = tmp_path / "items.faiss"
    save_index(build_index(item_MC, SMALL["flat"]), path)
    damage(path)
    with pytest.raises(CheckpointError, match=f"items.faiss.*{word}.*build and save the index again"):
        load_index(path)


def test_the_thread_number_of_the_process_is_put_back(item_MC: torch.Tensor, user_BC: torch.Tensor) -> None:
    before = faiss.omp_get_max_threads()
    index = build_index(item_MC, ItemIndexConfig(kind="flat", threads=before + 1))
    assert faiss.omp_get_max_threads() == before
    search(index, user_BC, 1)
    assert faiss.omp_get_max_threads() == before


def test_torch_still_computes_on_several_threads_beside_faiss(item_MC: torch.Tensor, user_BC: torch.Tensor) -> None:
    """Both bring an OpenMP library of their own."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        big = torch.ones(500, 500)
        for _ in range(3):
            assert bool((big @ big == 500).all())
            search(build_index(item_MC, ItemIndexConfig(kind="flat", threads=2)), user_BC, 3)
    finally:
        torch.set_num_threads(before)
