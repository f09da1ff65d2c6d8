"""Run the benchmarks: python benchmarks/run.py [NAME ...], all of them without a name."""

import sys

import epochs
import memory
import processes
import products
import steps

from bclightning.runs.allocator import keep_freed_memory

BENCHMARKS = {
    "mnist": steps.mnist,
    "convolutional": steps.convolutional,
    "widths": steps.widths,
    "memory": memory.memory,
    "products": products.products,
    "data": epochs.data_alone,
    "epoch": epochs.epoch,
    "start": processes.start_up,
    "sweep": processes.sweeps,
}


def main(names: list[str]) -> None:
    """Run the named benchmarks."""
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    keep_freed_memory()
    steps.threads()
    for name in names or BENCHMARKS:
        BENCHMARKS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
