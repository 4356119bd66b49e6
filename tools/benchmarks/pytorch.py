"""WRN-28-2 against the same network in PyTorch."""

import importlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from tools.benchmarks import experiments
from tools.benchmarks.compare import NotMeasurableError, Side, time_ratios

_FLAGFILE = "flags/cifar10/supervised_4000.flags"
_BATCH_SIZE = 64
_STEPS_PER_CALL = 2


def step_vs_pytorch(runs: int) -> Iterator[float]:
    """Time of a supervised training step on 64 images: forward, backward and Nesterov update.

    Ours is the whole step of the engine, which also moves the average of the weights and sums up metrics. PyTorch runs
    on as many threads as there are cores, in whichever memory format is the faster.

    Raises:
      NotMeasurableError: PyTorch is not installed.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise NotMeasurableError("PyTorch is not installed; pip install torch==2.13.0 to have it measured") from error
    torch.set_num_threads(os.cpu_count() or 1)
    experiment = experiments.build_on_noise(_FLAGFILE, [f"--batch_size={_BATCH_SIZE}", "--l2_weight_decay=0"])
    ours = experiments.steps(experiments.trainer_without_input(experiment), _STEPS_PER_CALL)
    step = min((_torch_step(torch, channels_last) for channels_last in (False, True)), key=_seconds)

    def theirs() -> float:
        for _ in range(_STEPS_PER_CALL):
            step()
        return float(_STEPS_PER_CALL)

    return time_ratios(Side(work=ours), Side(work=theirs), runs)


def _seconds(step: Callable[[], None]) -> float:
    """The shortest of a few calls after a first one."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _torch_step(torch: Any, channels_last: bool) -> Callable[[], None]:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model, logits = wide_resnet(torch)
    model.to(memory_format=memory_format)
    inputs = torch.randn(_BATCH_SIZE, 3, 32, 32).contiguous(memory_format=memory_format)
    labels = torch.arange(_BATCH_SIZE) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, nesterov=True)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits(inputs), labels).backward()
        optimizer.step()

    return step


def wide_resnet(torch: Any) -> tuple[Any, Callable[[Any], Any]]:
    """WRN-28-2 as in FixMatch, for 10 classes; see `metassl_tf.models.wide_resnet`.

    Args:
      torch: the module.

    Returns:
      What is trained, a torch.nn.Module, and the function that computes with it, from float32 [batch, 3, 32, 32] to
      logits [batch, 10]. Where a convolution has stride 2 it pads both sides, and TensorFlow one of them: the work is
      as much, the values are not the same.
    """
    nn = torch.nn

    def activated(channels: int) -> Any:
        return nn.Sequential(nn.BatchNorm2d(channels, eps=1e-3, momentum=1e-3), nn.LeakyReLU(0.1))

    def block(inputs: int, filters: int, stride: int) -> Any:
        changing = inputs != filters or stride != 1
        parts = {
            "activated": activated(inputs),
            "residual": nn.Sequential(
                nn.Conv2d(inputs, filters, 3, stride, 1), activated(filters), nn.Conv2d(filters, filters, 3, 1, 1)
            ),
            "shortcut": nn.Conv2d(inputs, filters, 1, stride) if changing else nn.Identity(),
        }
        return nn.ModuleDict(parts)

    stem, blocks, channels = nn.Conv2d(3, 16, 3, 1, 1), nn.ModuleList(), 16
    for stage, filters in enumerate((32, 64, 128)):
        for number in range(4):
            blocks.append(block(channels, filters, 2 if stage > 0 and number == 0 else 1))
            channels = filters
    head = nn.Sequential(activated(channels), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))

    def logits(images: Any) -> Any:
        features = stem(images)
        for number, parts in enumerate(blocks):
            activated_features = parts["activated"](features)
            shortcut = parts["shortcut"](features if number else activated_features)
            features = shortcut + parts["residual"](activated_features)
        return head(features)

    return nn.ModuleList([stem, blocks, head]), logits
