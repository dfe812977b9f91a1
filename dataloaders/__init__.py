"""Bytes on disk to Batch; knows nothing of models."""
