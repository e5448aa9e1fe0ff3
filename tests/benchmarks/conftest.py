import pytest

from tests.end_to_end import preloaded


@pytest.fixture
def start_benchmark(tmp_path):
    """``start_benchmark("peers", *arguments)``: start ``python -m benchmarks.peers.run``, return the running program.

    It is forked from a process that has imported fairseq, not the benchmark.
    """

    def start(room, *arguments):
        return preloaded.start(f"benchmarks.{room}.run", arguments, tmp_path / "work")

    return start


@pytest.fixture
def benchmark(start_benchmark):
    """``benchmark("peers", *arguments, expect=0)``: run ``python -m benchmarks.peers.run``, return it ended."""

    def run(room, *arguments, expect=0):
        return start_benchmark(room, *arguments).end(expect)

    return run
