"""`auto` takes kernels on a GPU alone, `triton` takes them or says why not."""

import pytest
import torch

from kernels import dispatch
from kernels.dispatch import uses_triton

ON_CPU = torch.zeros(1)


def test_auto_takes_the_reference_on_a_cpu_even_with_the_interpreter(monkeypatch):
    monkeypatch.setattr(dispatch, "INTERPRETED", True)
    assert not uses_triton("auto", ON_CPU)
    assert not uses_triton("torch", ON_CPU)
    assert uses_triton("triton", ON_CPU)


def test_triton_on_a_cpu_without_the_interpreter_is_refused(monkeypatch):
    monkeypatch.setattr(dispatch, "INTERPRETED", False)
    with pytest.raises(ValueError, match="TRITON_INTERPRET=1"):
        uses_triton("triton", ON_CPU)


def test_inputs_that_the_kernel_cannot_take_are_refused_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(dispatch, "INTERPRETED", True)
    with pytest.raises(ValueError, match="but width 5 is odd; choose backend='torch' or 'auto'"):
        uses_triton("triton", ON_CPU, unsupported="width 5 is odd")
    assert not uses_triton("auto", ON_CPU, unsupported="width 5 is odd")
    assert not uses_triton("torch", ON_CPU, unsupported="width 5 is odd")


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="backend='cuda', expected one of"):
        uses_triton("cuda", ON_CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_takes_the_kernel_on_a_gpu_where_it_can():
    on_gpu = ON_CPU.cuda()
    assert uses_triton("auto", on_gpu)
    assert not uses_triton("auto", on_gpu, unsupported="width 5 is odd")
