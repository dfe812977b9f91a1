import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest

# page faults of ten times the same 32 MiB tensor, once the heap has found its size
COUNT_FAULTS = """
import resource, torch
from trainer.host_allocator import keep_freed_memory
{setting}
def use():
    torch.ones(8 * 2**20).add_(1)
for _ in range(10):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 8 * 2**20 * 4 // resource.getpagesize()


def page_faults(setting: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT_FAULTS.format(setting=setting)], capture_output=True, text=True, check=True)
    return int(done.stdout)


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt(3) belongs to glibc")
@pytest.mark.skipif(HUGE_PAGES.exists() and "[always]" in HUGE_PAGES.read_text(), reason="huge pages: a fault maps 2 MiB")
def test_a_tensor_of_the_same_size_reuses_the_pages_of_the_last_one():
    assert page_faults("assert keep_freed_memory()") < PAGES < page_faults("")
