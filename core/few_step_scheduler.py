"""The scheduler that a pipeline ships with after a few-step transfer, so that it draws as it was trained to.

The number of steps and the lack of guidance are arguments of diffusers' pipelines, not settings of its
schedulers; the config notes them under names with an underscore, which diffusers keeps and does not act on.
"""

import json
from pathlib import Path

from diffusers import DDIMScheduler

from core.files import write_json
from core.sampling import build_sampler

STEPS_NOTE, GUIDANCE_NOTE = "_num_inference_steps", "_guidance_scale"


def write_few_step_scheduler(pipeline: Path, steps: int) -> None:
    """Replace the scheduler of a pipeline folder by the one that a transferred student was trained with.

    Parameters
    ----------
    pipeline
        The folder, with the teacher's scheduler in it.
    steps
        The student's sampler steps.
    """
    config = DDIMScheduler.load_config(pipeline / "scheduler")
    scheduler = build_sampler("ddim-trailing", config)
    scheduler.register_to_config(**{STEPS_NOTE: steps, GUIDANCE_NOTE: 1.0})
    scheduler.save_pretrained(pipeline / "scheduler")
    index_file = pipeline / "model_index.json"
    index = json.loads(index_file.read_text(encoding="utf-8"))
    index["scheduler"] = ["diffusers", DDIMScheduler.__name__]
    write_json(index_file, index)
