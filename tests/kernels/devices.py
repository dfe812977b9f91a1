"""Where tests run Triton kernels: on the GPU, or on the CPU in the interpreter, which tests/conftest.py turns on without a GPU."""

import torch

KERNEL_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
