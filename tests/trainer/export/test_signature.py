from trainer.export.signature import StoreSignature


def test_the_storage_of_an_item_counts_vector_scale_and_index() -> None:
    def stored(vectors: str, index: str | None) -> float:
        signature = StoreSignature(
            num_items=5, num_queries=64 if index else 1, heads=2, width=64, vector_dtype=vectors, index_dtype=index
        )
        return signature.bytes_per_item

    assert stored("float32", None) == 512
    assert stored("float16", "uint8") == 257
    assert stored("int8", "uint16") == 128 + 4 + 2
