"""The training loop that the recipe's three networks share: resumable, reproducible, averaged over processes.

Every random choice of a step follows from (seed, step, rank), so a resumed run continues as if never stopped.
Under torchrun each process computes its own share of the batch and the gradients are averaged with gloo: on a
CPU two processes of one thread each train faster than one process of two threads.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file

from teachers.emoji_64.optimizer import MatrixOptimizer

EMA_WARMUP_STEPS = 10


@dataclass(frozen=True)
class FitSettings:
    """Optimisation of one network: `steps` with linear warm-up and cosine decay to a fiftieth.

    `matrix_learning_rate` gives the hidden weight matrices to Muon; without it AdamW trains everything.
    """

    steps: int
    learning_rate: float
    matrix_learning_rate: float | None = None
    warmup_steps: int = 200
    weight_decay: float = 1e-2
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    checkpoint_every: int = 250
    seed: int = 0


def fit(
    name: str,
    work: Path,
    network: torch.nn.Module,
    batch_loss: Callable[[np.random.Generator, torch.Generator], torch.Tensor],
    settings: FitSettings,
) -> dict[str, torch.Tensor]:
    """Train `network` on `batch_loss`, continuing from the checkpoint below `work` if there is one.

    Parameters
    ----------
    name
        Name of the checkpoint folder and of the progress bar.
    work
        Folder of the recipe's intermediate results.
    network
        The network whose trainable parameters are optimised, in place.
    batch_loss
        Draws one batch with the generators it is given and returns the mean loss, a scalar.
    settings
        The optimisation.

    Returns
    -------
    dict
        The exponential moving average of the weights, by parameter name.
    """
    parameters = {key: p for key, p in network.named_parameters() if p.requires_grad}
    optimizer = MatrixOptimizer(
        parameters, settings.learning_rate, settings.matrix_learning_rate, settings.weight_decay
    )
    average = {key: p.detach().clone() for key, p in parameters.items()}
    checkpoint = work / name
    step = _load_checkpoint(checkpoint, parameters, average, optimizer)
    history: list[float] = []
    with _ProgressReport(name, settings.steps, step) as report:
        while step < settings.steps:
            loss = batch_loss(*_generators(settings.seed, step))
            loss.backward()
            _average_gradients(parameters.values())
            torch.nn.utils.clip_grad_norm_(parameters.values(), settings.gradient_clip)
            optimizer.step(_learning_rate_factor(step, settings))
            step += 1
            decay = min(settings.ema_decay, step / (step + EMA_WARMUP_STEPS))
            torch._foreach_lerp_(list(average.values()), list(parameters.values()), 1 - decay)
            history.append(loss.item())
            report(step, sum(history[-100:]) / len(history[-100:]))
            if step % settings.checkpoint_every == 0 or step == settings.steps:
                _save_checkpoint(checkpoint, step, parameters, average, optimizer)
    return average


def rank_and_world() -> tuple[int, int]:
    """Rank of the running process and number of processes; joins the group when started by torchrun."""
    if not dist.is_torchelastic_launched():
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    return dist.get_rank(), dist.get_world_size()


def load_average(work: Path, name: str) -> dict[str, torch.Tensor]:
    """Read the averaged weights of the newest checkpoint of `name`."""
    tensors = load_file(work / name / "state.safetensors")
    return {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}


def _learning_rate_factor(step: int, settings: FitSettings) -> float:
    warmup = min(1.0, (step + 1) / settings.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return warmup * (0.02 + 0.98 * cosine)


def _generators(seed: int, step: int) -> tuple[np.random.Generator, torch.Generator]:
    rank, _ = rank_and_world()
    rng = np.random.default_rng((seed, step, rank))
    return rng, torch.Generator().manual_seed(int(rng.integers(2**62)))


def _average_gradients(parameters: Iterable[torch.Tensor]) -> None:
    _, world = rank_and_world()
    if world == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch._utils._flatten_dense_tensors(gradients)
    dist.all_reduce(flat)
    flat /= world
    for gradient, mean in zip(gradients, torch._utils._unflatten_dense_tensors(flat, gradients), strict=True):
        gradient.copy_(mean)


def _save_checkpoint(
    folder: Path,
    step: int,
    parameters: dict[str, torch.nn.Parameter],
    average: dict[str, torch.Tensor],
    optimizer: MatrixOptimizer,
) -> None:
    if rank_and_world()[0]:
        return
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"parameter.{key}": p.detach() for key, p in parameters.items()}
    tensors |= {f"average.{key}": value for key, value in average.items()}
    tensors |= {f"optimizer.{key}": value for key, value in optimizer.state_tensors().items()}
    tensors["step"] = torch.tensor(step)
    save_file(tensors, folder / "state.part")
    (folder / "state.part").replace(folder / "state.safetensors")


def _load_checkpoint(
    folder: Path,
    parameters: dict[str, torch.nn.Parameter],
    average: dict[str, torch.Tensor],
    optimizer: MatrixOptimizer,
) -> int:
    path = folder / "state.safetensors"
    if not path.exists():
        return 0
    tensors = load_file(path)
    with torch.no_grad():
        for key, p in parameters.items():
            p.copy_(tensors[f"parameter.{key}"])
            average[key].copy_(tensors[f"average.{key}"])
    optimizer.load_state_tensors(
        {k.removeprefix("optimizer."): v for k, v in tensors.items() if k.startswith("optimizer.")}
    )
    return int(tensors["step"].item())


class _ProgressReport:
    """A bar with loss on rank 0, and a line a minute in the log when nobody watches."""

    def __init__(self, name: str, total: int, done: int) -> None:
        self._name, self._total = name, total
        self._next_line = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("step {task.completed}/{task.total}  loss {task.fields[loss]:.4f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            disable=bool(rank_and_world()[0]),
        )
        self._task = self._progress.add_task(name, total=total, completed=done, loss=math.nan)

    def __enter__(self) -> Callable[[int, float], None]:
        self._progress.start()
        return self._report

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def _report(self, step: int, loss: float) -> None:
        self._progress.update(self._task, completed=step, loss=loss)
        if not self._progress.console.is_terminal and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + 15
            self._progress.console.print(f"{self._name} step {step}/{self._total} loss {loss:.4f}")
