"""Pure modules: no file access, no torch.distributed."""
