import subprocess
import sys

import pytest

# Takes and frees as large a block again and again, and counts the pages that the kernel had to clear.
FAULTS = """
import ctypes, resource, sys
from hilum.engines.torch.memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(3)
import torch
torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(what):
    done = subprocess.run([sys.executable, "-c", FAULTS, what], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("this C library cannot be told to keep freed memory")
    return int(done.stdout)


def test_freed_memory_is_used_again_without_asking_the_kernel():
    assert faults("keep") * 10 < faults("give back")
