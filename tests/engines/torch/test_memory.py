import subprocess
import sys
from pathlib import Path

import pytest

from hilum.engines.torch import memory

# Takes and frees as large a block again and again, and counts the pages that the kernel had to clear. The file is
# loaded by itself, without the framework beside it.
FAULTS = """
import importlib.util, resource, sys
import numpy as np
spec = importlib.util.spec_from_file_location("memory", sys.argv[2])
memory = importlib.util.module_from_spec(spec)
spec.loader.exec_module(memory)
if sys.argv[1] == "keep" and not memory.keep_freed_memory():
    sys.exit(3)
np.ones(2**24, np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**24, np.float32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(what):
    command = [sys.executable, "-c", FAULTS, what, str(Path(memory.__file__))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("this C library cannot be told to keep freed memory")
    return int(done.stdout)


def test_freed_memory_is_used_again_without_asking_the_kernel():
    assert faults("keep") * 5 < faults("give back")
