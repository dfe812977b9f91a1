"""Exported programs carry the scoring kernels as operators."""

from tests.kernels.devices import printed_without_interpreter


def test_export_keeps_the_serving_kernels_as_operators_for_any_number_of_requests():
    operators = printed_without_interpreter("tests.kernels.exported_scoring").split()
    assert "crosstower.target_attention_all.default" in operators
    assert "crosstower.lss_stored_top.default" in operators
