"""Teachers of every family: encoded as their pipelines do, distilled from end to end; others are refused."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DiffusionPipeline,
    EDMDPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
)

from core.errors import BadTeacherError
from core.estimate import estimate_job
from core.families import check_part_config, check_pipeline, check_scheduler_config
from core.run import main
from core.sampling import build_sampler, draw_latents
from core.spec import DistillationSpec
from core.teacher import Teacher, load_teacher
from core.teacher_folder import read_teacher
from tests.conftest import PIPELINE_INDEX
from tests.core.tiny_families import WRITERS

PROMPTS, SEEDS = ["small cat", "large star"], [3, 4]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("families")
    for family, write in WRITERS.items():
        write(directory / family)
    return {family: directory / family for family in WRITERS}


@pytest.fixture(scope="module", params=WRITERS)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def loaded(family: str, folders: dict[str, Path]) -> Teacher:
    return load_teacher(read_teacher(folders[family]), torch.device("cpu"))


@pytest.fixture(scope="module")
def pipeline(family: str, folders: dict[str, Path]) -> Any:
    pipeline = DiffusionPipeline.from_pretrained(folders[family])
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_the_family_is_found_by_pipeline_and_u_net(family: str, loaded: Teacher) -> None:
    assert loaded.info.family == family
    assert loaded.info.prompt_tokens == 12


def test_prompts_are_encoded_as_in_the_pipeline(family: str, loaded: Teacher, pipeline: Any) -> None:
    theirs = pipeline.encode_prompt(
        PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    ours, blank = loaded.encode(PROMPTS), loaded.encode(["", ""])
    torch.testing.assert_close(ours.embeddings_BLD, theirs[0])
    torch.testing.assert_close(blank.embeddings_BLD, theirs[1])
    if family == "sdxl":
        torch.testing.assert_close(ours.added["text_embeds"], theirs[2])
        torch.testing.assert_close(blank.added["text_embeds"], theirs[3])
        assert ours.added["time_ids"].tolist() == [[32, 32, 0, 0, 32, 32]] * 2
    else:
        assert not ours.added


@pytest.mark.parametrize("sampler", ["ddim", "dpm-solver++"])
def test_draws_what_the_pipeline_draws(loaded: Teacher, pipeline: Any, sampler: str) -> None:
    ours = draw_latents(
        loaded.unet,
        loaded.encode(PROMPTS),
        loaded.encode([""]),
        SEEDS,
        sampler=build_sampler(sampler, loaded.scheduler_config),
        steps=3,
        guidance_scale=4.0,
        precision=torch.float32,
    )
    pipeline.scheduler = build_sampler(sampler, loaded.scheduler_config)
    theirs = pipeline(
        PROMPTS,
        num_inference_steps=3,
        guidance_scale=4.0,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="latent",
    ).images
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        ("sd2", "b-tiny"),
        ("sd2", {"width": 0.6}),
        ("sdxl", "koala-700m"),
        ("sdxl", {"width": 0.6}),
        ("sdxl", {"max_params": 600_000}),
    ],
    ids=str,
)
def test_a_job_goes_from_end_to_end_and_plain_diffusers_loads_the_student(
    teacher: str,
    student: Any,
    folders: dict[str, Path],
    make_spec: Callable[..., DistillationSpec],
    tmp_path: Path,
) -> None:
    spec = make_spec(teacher=teacher, student=student, training={"steps": 2, "batch_size": 2})
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    handler = signal.getsignal(signal.SIGTERM)
    try:
        arguments = ["--workdir", str(tmp_path), "--teachers", str(folders[teacher].parent)]
        assert main(["--spec", str(tmp_path / "spec.json"), *arguments]) == 0
    finally:
        signal.signal(signal.SIGTERM, handler)
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "student")
    pipeline.set_progress_bar_config(disable=True)
    pictures = pipeline(["small cat"], num_inference_steps=2, output_type="np").images
    assert pictures.shape == (1, 32, 32, 3)
    result = json.loads((tmp_path / "result.json").read_text())["student"]
    parameters = sum(parameter.numel() for parameter in pipeline.unet.parameters())
    assert result["parameters"] == parameters
    estimate = estimate_job(read_teacher(folders[teacher]), spec)
    weights = (tmp_path / "student").rglob("*.safetensors")
    assert estimate.pipeline_bytes == sum(file.stat().st_size for file in weights)
    assert estimate.student_parameters == parameters
    if isinstance(student, dict) and "max_params" in student:
        chosen = next(each for each in result["candidates"] if each["name"] == result["name"])
        assert chosen["parameters"] == parameters <= student["max_params"]
        assert result["candidates"] == sorted(
            result["candidates"], key=lambda each: each["parameters"], reverse=True
        )


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (
            {
                "_class_name": "StableDiffusion3Pipeline",
                "transformer": ["diffusers", "SD3Transformer2DModel"],
            },
            "denoises with a transformer",
        ),
        (
            {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]},
            "denoises with a transformer",
        ),
        ({"_class_name": "KandinskyPipeline"}, "cannot be distilled"),
        ({}, "cannot be distilled"),
        ({"_class_name": ["my_pipeline", "MyPipeline"]}, "pipeline code of its own"),
        (PIPELINE_INDEX | {"unet": ["my_unet", "MyUNet"]}, "unet needs code of its own"),
        (PIPELINE_INDEX | {"unet": ["diffusers", "UNetMotionModel"]}, "unet is a UNetMotionModel"),
        (
            PIPELINE_INDEX | {"text_encoder": ["transformers", "T5EncoderModel"]},
            "text_encoder is a T5EncoderModel",
        ),
        (
            PIPELINE_INDEX | {"tokenizer": ["transformers", "ChatGLMTokenizer"]},
            "tokenizer is a ChatGLMTokenizer",
        ),
        (PIPELINE_INDEX | {"vae": [None, None]}, "goes without a vae"),
        ({name: entry for name, entry in PIPELINE_INDEX.items() if name != "vae"}, "goes without a vae"),
        (PIPELINE_INDEX | {"scheduler": ["my_scheduler", "MyScheduler"]}, "scheduler needs code of its own"),
        (
            PIPELINE_INDEX | {"scheduler": ["transformers", "CLIPTextModel"]},
            "scheduler needs code of its own",
        ),
        (PIPELINE_INDEX | {"scheduler": [None, None]}, "goes without a scheduler"),
        (
            {name: entry for name, entry in PIPELINE_INDEX.items() if name != "scheduler"},
            "goes without a scheduler",
        ),
        (PIPELINE_INDEX | {"vae": ["diffusers"]}, r"goes without a vae: its index says \['diffusers'\]"),
    ],
)
def test_other_pipelines_are_refused_with_the_reason_and_what_is_supported(
    index: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadTeacherError, match=reason) as caught:
        check_pipeline(index, "teacher")
    for supported in ("Stable Diffusion 1", "Stable Diffusion 2", "Stable Diffusion XL"):
        assert supported in caught.value.hint


def test_fast_tokenizers_and_absent_parts_are_no_reason_to_refuse() -> None:
    check_pipeline(PIPELINE_INDEX | {"tokenizer": ["transformers", "CLIPTokenizerFast"]}, "teacher")
    check_pipeline(
        PIPELINE_INDEX | {"safety_checker": [None, None], "image_encoder": [None, None]}, "teacher"
    )


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"auto_map": {"AutoModel": "modeling.Mine"}}, r"needs code of its own \(auto_map\)"),
        ({"tokenizer_class": "QwenTokenizer"}, "is a QwenTokenizer"),
    ],
)
def test_parts_that_ask_for_code_are_refused(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadTeacherError, match=reason):
        check_part_config(config, "tokenizer", "teacher")


def test_a_teacher_that_predicts_the_picture_itself_is_refused() -> None:
    betas = {"beta_schedule": "scaled_linear"}
    check_scheduler_config(betas | {"prediction_type": "v_prediction"}, "teacher")
    with pytest.raises(BadTeacherError, match="'sample'"):
        check_scheduler_config(betas | {"prediction_type": "sample"}, "teacher")


def test_noise_that_is_predicted_where_there_is_nothing_else_is_refused() -> None:
    ends_in_noise = {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True}
    check_scheduler_config(ends_in_noise | {"prediction_type": "v_prediction"}, "teacher")
    with pytest.raises(BadTeacherError, match="rescale_betas_zero_snr"):
        check_scheduler_config(ends_in_noise, "teacher")


@pytest.mark.parametrize("scheduler", [EDMDPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler])
def test_a_teacher_of_another_noise_process_is_refused(scheduler: type[Any]) -> None:
    config = {"_class_name": scheduler.__name__, **scheduler().config}
    with pytest.raises(BadTeacherError, match=f"a {scheduler.__name__}, has no schedule of betas"):
        check_scheduler_config(config, "teacher")


@pytest.mark.parametrize("scheduler", [DDPMScheduler, EulerDiscreteScheduler, LCMScheduler])
def test_schedulers_over_betas_are_taken_whatever_their_class(scheduler: type[Any]) -> None:
    check_scheduler_config(dict(scheduler().config), "teacher")


@pytest.mark.parametrize("shift", [{"latents_mean": [0.1, 0, 0, 0]}, {"shift_factor": 0.1}])
def test_a_teacher_whose_latents_are_shifted_is_refused(shift: dict[str, Any]) -> None:
    plain = {"latents_mean": None, "shift_factor": None}
    check_part_config(plain, "vae", "teacher")
    with pytest.raises(BadTeacherError, match=f"teacher's vae shifts its latents .{next(iter(shift))}."):
        check_part_config(plain | shift, "vae", "teacher")
