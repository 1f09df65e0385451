"""Where the time of a training step goes, by kind of operation, with each of the engine's choices on or off.

python -m benchmarks.profile SYSTEM [--precision 32-true] [--layout contiguous] [--return-memory] [--compile] [--threads 2]
    [--json]

SYSTEM is pixelda or endovae, with the settings of preset paper. The step is timed without the profiler, and its shares come
from a profiled one, which is slower.
"""

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.endovae.data import FrameBatch
from pixelscope.endovae.task import EndoVAETask
from pixelscope.engine.task import Batch, Task
from pixelscope.files import keep_heap
from pixelscope.pixelda.config import PixelDAConfig
from pixelscope.pixelda.task import PairedBatch, PixelDATask
from pixelscope.rng import StepContext

WARM_UP, TIMED, PROFILED = 3, 9, 3
KINDS = {
    "convolutions": ("convolution", "mkldnn_conv", "cudnn"),
    "batch norm": ("batch_norm",),
    "random draws": ("random_", "normal_", "bernoulli_", "uniform_", "erfinv", "index_select"),
    "copies and casts": ("copy_", "cat", "fill_", "zero_"),
    "dense layers": ("mm", "addmm"),
    "optimizer": ("adam",),
}
"""Parts of operators' names, the first that fits; the rest is element by element."""
REST = "element by element"


def main(arguments: Sequence[str] | None = None) -> int:
    """Time and profile one configuration, and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("system", choices=("pixelda", "endovae"))
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="bf16-mixed")
    parser.add_argument("--layout", choices=("channels_last", "contiguous"), default="channels_last")
    parser.add_argument(
        "--return-memory", action="store_true", help="let the C library return freed memory, as it does by default"
    )
    parser.add_argument("--compile", action="store_true", help="compile the networks' passes, as --runtime.compile on does")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    if not chosen.return_memory:
        keep_heap()
    step = stepper(chosen.system, chosen.precision, chosen.layout, chosen.compile)
    result = {**vars(chosen), "torch": torch.__version__, "seconds": timed(step), "shares": shares(step)}
    print(json.dumps(result) if chosen.json else text(result))
    return 0


def stepper(system: str, precision: Any, layout: str, compiled: bool = False) -> Callable[[int], object]:
    """Return a function that takes the training step of a number, on one random batch."""
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    draw = torch.Generator().manual_seed(0)

    def images(count: int, size: int) -> Tensor:
        return torch.rand(count, 3, size, size, generator=draw)

    if system == "endovae":
        endovae = EndoVAEConfig.parse({"runtime": {"memory_format": layout}})
        size = endovae.training.batch_size
        return _step_on(EndoVAETask(endovae, fabric), FrameBatch(images(size, endovae.prepare.size)), size, compiled)
    pixelda = PixelDAConfig.parse({"source": "random", "target": "random", "runtime": {"memory_format": layout}})
    size, side = pixelda.training.batch_size, pixelda.data.size
    labels = torch.randint(0, 10, (size,), generator=draw)
    pairs = PairedBatch(images(size, side) * 2 - 1, labels, images(size, side) * 2 - 1)
    return _step_on(PixelDATask(pixelda, 10, fabric), pairs, size, compiled)


def _step_on(task: Task[Batch], batch: Batch, size: int, compiled: bool) -> Callable[[int], object]:
    """Return a function that takes the step of a number on a batch of `size` images."""
    if compiled:
        task.compile()
    return lambda number: task.step(batch, StepContext(number * size, number, size, 0))


def timed(step: Callable[[int], object]) -> float:
    """Return the median seconds of a step."""
    seconds = []
    for number in range(WARM_UP + TIMED):
        began = time.perf_counter()
        step(number)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[WARM_UP:])


def shares(step: Callable[[int], object]) -> dict[str, float]:
    """Return the share of each kind of operation in a profiled step, the largest first."""
    step(0)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for number in range(PROFILED):
            step(number)
    spent: Counter[str] = Counter()
    for operation in profiled.key_averages():
        if operation.key.startswith("aten::"):
            spent[kind(operation.key)] += operation.self_cpu_time_total
    return {name: value / spent.total() for name, value in spent.most_common()}


def kind(operator: str) -> str:
    """Return the kind of an operator, `aten::NAME`."""
    return next((name for name, parts in KINDS.items() if any(part in operator for part in parts)), REST)


def text(result: dict[str, Any]) -> str:
    """Return the lines that a person reads."""
    memory = "memory returned" if result["return_memory"] else "memory kept"
    compiled = ", compiled" if result["compile"] else ""
    head = (
        f"{result['system']}, {result['precision']}, {result['layout']}, {memory}{compiled}: {result['seconds']:.3f} s a step"
    )
    return "\n".join([head, *(f"  {name:<20}{share:6.1%}" for name, share in result["shares"].items())])


if __name__ == "__main__":
    sys.exit(main())
