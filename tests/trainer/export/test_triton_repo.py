from pathlib import Path

import pytest
import torch
from google.protobuf import text_format
from google.protobuf.message import Message

from tests.trainer.export.conftest import Case
from tests.trainer.export.small_runs import trained_parts
from tests.trainer.export.triton_schema import model_config
from trainer.export.aoti import example_inputs
from trainer.export.torchscript import load_script
from trainer.export.triton_repo import config_text, model_configs

TYPES = {torch.int64: 9, torch.float32: 11}


def parse(text: str) -> Message:
    return text_format.Parse(text, model_config())


def fits(dims: list[int], shape: torch.Size) -> bool:
    return len(dims) == len(shape) and all(dim in (-1, size) for dim, size in zip(dims, shape, strict=True))


@pytest.mark.parametrize("name", ["fit_case", "fit_bytes_case", "t2diff_case", "t2diff_triton_case"])
def test_a_configuration_describes_what_the_modules_take_and_give(name: str, request: pytest.FixtureRequest) -> None:
    case: Case = request.getfixturevalue(name)
    manifest, parts = case.exported.manifest, trained_parts(case.run)
    shape = {"user": manifest.user, "store": manifest.store, "tables": manifest.tables}
    examples = example_inputs(parts, **shape)
    for config in model_configs(**shape, num_item_features=len(parts.item_names), embedding_dim=parts.dim):
        parsed = parse(config_text(config))
        assert (parsed.name, parsed.backend, parsed.max_batch_size) == (config.name, "pytorch", 0)
        module = load_script(case.folder / manifest.modules[config.name])
        outputs = module(*examples[config.name])
        for declared, tensors in ((parsed.input, examples[config.name]), (parsed.output, outputs)):
            tensors = (tensors,) if isinstance(tensors, torch.Tensor) else tensors
            assert len(declared) == len(tensors)
            for place, (entry, tensor) in enumerate(zip(declared, tensors, strict=True)):
                assert entry.name.endswith(f"__{place}"), "Triton finds an argument by its number"
                assert entry.data_type == TYPES[tensor.dtype]
                assert all(dim == -1 or dim > 0 for dim in entry.dims), "Triton knows no dimension of 0"
                assert fits(entry.dims, tensor.shape)


def test_the_layout_is_a_model_repository_and_still_an_artefact(t2diff_triton_case: Case) -> None:
    folder: Path = t2diff_triton_case.folder
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"user_tower", "item_tower", "scorer"}
    for model in ("user_tower", "item_tower", "scorer"):
        assert {path.name for path in (folder / model).iterdir()} == {"config.pbtxt", "1"}
        assert parse((folder / model / "config.pbtxt").read_text()).name == model
        assert {f"{model}/config.pbtxt", f"{model}/1/model.pt"} <= set(t2diff_triton_case.exported.manifest.files)


def test_a_word_that_the_schema_does_not_know_would_be_noticed(fit_case: Case) -> None:
    manifest = fit_case.exported.manifest
    configs = model_configs(
        user=manifest.user, store=manifest.store, tables=manifest.tables, num_item_features=2, embedding_dim=manifest.embedding_dim
    )
    text = config_text(configs[0])
    for broken in (text.replace("dims", "shape", 1), text.replace("TYPE_INT64", "INT64", 1)):
        with pytest.raises(text_format.ParseError):
            parse(broken)
