"""The exported folder: precisions, the single file, optional components, warnings, licences."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import DiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPImageProcessor

from core.captions import CaptionSet, prepare_captions
from core.estimate import estimate_job
from core.export import SINGLE_FILE, VARIANTS, as_exported, export_student, export_warnings
from core.model_card import NO_MID_BLOCK, write_model_card
from core.original_names import PREFIX, original_names
from core.spec import DistillationSpec, derive_student
from core.student_weights import build_student
from core.students import student_rule
from core.teacher import Teacher
from core.teacher_files import choose_files
from core.teacher_folder import read_teacher
from core.verify import find_loading_problems, find_problems

COST = {"parameters": 1, "gmacs": 1.0, "milliseconds_per_picture": 1.0, "peak_memory_bytes": 1}
VALUES = {
    "teacher": COST,
    "student": COST | {"name": "a student"},
    "captions": {"count": 2, "drawn": 1},
    "text_only": {
        "teacher": {"frechet_distance": 0.1234, "recall": 0.5},
        "student": {"frechet_distance": 0.5678, "recall": 0.25},
        "intervals": {"teacher": {"frechet_distance": [0.1, 0.2]}, "student": {}},
        "by_steps": {
            "5": {
                "teacher": {"frechet_distance": 0.3},
                "student": {"frechet_distance": 0.4},
                "intervals": {"teacher": {}, "student": {"frechet_distance": [0.35, 0.45]}},
                "unet_calls": {"teacher": 10, "student": 5},
            }
        },
    },
}


@pytest.fixture
def captions(tmp_path: Path) -> CaptionSet:
    spec = {"teacher": "t", "captions": {"kind": "inline", "texts": ["small cat", "large cat"]}}
    return prepare_captions(DistillationSpec.model_validate(spec), tmp_path / "captions", [])


def original_state(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    state = unet.state_dict()
    return {original: state[name] for name, original in original_names(state).items()}


def student_of(teacher: Teacher, preset: str) -> UNet2DConditionModel:
    config = derive_student(teacher.info.unet_config, preset)
    student = build_student(config, student_rule(preset), teacher.unet, 0)
    return as_exported(student.eval(), teacher)


def export(
    teacher: Teacher, student: UNet2DConditionModel, captions: CaptionSet, workdir: Path, **export: Any
) -> Path:
    spec = DistillationSpec.model_validate({"teacher": "emoji-64", "export": export})
    grid = workdir / "grid.png"
    grid.write_bytes(b"a picture")
    return export_student(student, teacher, captions, spec, VALUES, grid, workdir)


@pytest.fixture(scope="module")
def checked_folder(teachers_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher with all that a published Stable Diffusion has: also a safety checker."""
    folder = tmp_path_factory.mktemp("checked") / "weights"
    shutil.copytree(teachers_dir / "weights", folder)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = shape | {"image_size": 32, "patch_size": 16}
    config = CLIPConfig(text_config=shape, vision_config=vision, projection_dim=8)
    StableDiffusionSafetyChecker(config).save_pretrained(folder / "safety_checker")
    CLIPImageProcessor(size=32, crop_size=32).save_pretrained(folder / "feature_extractor")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    index["requires_safety_checker"] = True
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def fetch(folder: Path, into: Path) -> Path:
    """Copy what is fetched of a teacher in an object store."""
    index = json.loads((folder / "model_index.json").read_text())
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    for name in choose_files(names, index):
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, into / name)
    return into


def without(folder: Path, into: Path, *components: str) -> Path:
    shutil.copytree(folder, into, ignore=shutil.ignore_patterns(*components))
    return into


@pytest.mark.parametrize("preset", ["b-base", "c-tiny"])
def test_diffusers_reads_the_original_names_back(teacher: Teacher, preset: str) -> None:
    unet = student_of(teacher, preset)
    state = original_state(unet)
    converted = convert_ldm_unet_checkpoint(dict(state), unet.config)
    assert converted.keys() == unet.state_dict().keys()
    assert all(torch.equal(converted[name], weight) for name, weight in unet.state_dict().items())


@pytest.mark.parametrize("preset", ["b-small", "b-tiny"])
def test_students_without_a_mid_block_have_original_names_too(teacher: Teacher, preset: str) -> None:
    state = original_state(student_of(teacher, preset))
    assert len(state) == len(student_of(teacher, preset).state_dict())
    assert not any("middle_block" in name for name in state)
    numbers = {int(name.split(".")[3]) for name in state if name.startswith(f"{PREFIX}output_blocks")}
    assert numbers == set(range(len(numbers)))


def test_the_sdxl_names_are_the_published_ones() -> None:
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=(1, 2),
        norm_num_groups=4,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        cross_attention_dim=8,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=32,
    )
    state = original_state(unet)
    assert f"{PREFIX}label_emb.0.2.weight" in state
    converted = convert_ldm_unet_checkpoint(dict(state), unet.config)
    assert converted.keys() == unet.state_dict().keys()


def test_the_folder_holds_every_precision_and_loads(
    teacher: Teacher, captions: CaptionSet, tmp_path: Path
) -> None:
    student = student_of(teacher, "b-small")
    folder = export(teacher, student, captions, tmp_path)
    for variant, dtype in ((None, torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        pipeline = DiffusionPipeline.from_pretrained(folder, variant=variant, dtype=dtype)
        for name, weight in student.state_dict().items():
            assert torch.equal(pipeline.unet.state_dict()[name], weight.to(dtype))
    single = load_file(folder / SINGLE_FILE)
    assert {weight.dtype for weight in single.values()} == {torch.float16}
    assert single.keys() == original_state(student).keys()
    spec = DistillationSpec.model_validate({"teacher": "emoji-64", "student": "b-small"})
    sizes = [file.stat().st_size for file in folder.rglob("*.safetensors")]
    assert estimate_job(teacher.info, spec).pipeline_bytes == sum(sizes)
    assert find_problems(folder) == []
    assert find_loading_problems(folder) == []


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16], ids=str)
def test_a_variant_of_the_teachers_own_precision_loads_by_its_name(
    teacher: Teacher, captions: CaptionSet, tmp_path: Path, stored: torch.dtype
) -> None:
    brought = without(teacher.info.path, tmp_path / "brought")
    UNet2DConditionModel.from_pretrained(brought / "unet").to(stored).save_pretrained(brought / "unet")
    teacher = replace(teacher, info=read_teacher(brought))
    folder = export(teacher, student_of(teacher, "b-small"), captions, tmp_path)
    for variant, dtype in VARIANTS.items():
        assert f'`variant="{variant}"`' in (folder / "README.md").read_text()
        pipeline = DiffusionPipeline.from_pretrained(folder, variant=variant, dtype=dtype)
        assert pipeline.unet.dtype == dtype
    spec = DistillationSpec.model_validate({"teacher": "emoji-64", "student": "b-small"})
    sizes = [file.stat().st_size for file in folder.rglob("*.safetensors")]
    assert estimate_job(teacher.info, spec).pipeline_bytes == sum(sizes)


def test_what_is_not_asked_for_is_not_there(teacher: Teacher, captions: CaptionSet, tmp_path: Path) -> None:
    student = student_of(teacher, "b-base")
    folder = export(teacher, student, captions, tmp_path, variants=[], single_file=False)
    weights = [file.relative_to(folder).as_posix() for file in folder.rglob("*.safetensors")]
    assert [path for path in weights if "unet" in path] == ["unet/diffusion_pytorch_model.safetensors"]


def test_a_missing_mid_block_and_a_missing_licence_are_told(
    teacher: Teacher, captions: CaptionSet, tmp_path: Path
) -> None:
    whole = export(teacher, student_of(teacher, "b-base"), captions, tmp_path)
    assert export_warnings(whole) == []
    assert NO_MID_BLOCK not in (whole / "README.md").read_text()
    without = export(teacher, student_of(teacher, "b-small"), captions, tmp_path)
    assert export_warnings(without) == [NO_MID_BLOCK]
    assert NO_MID_BLOCK in (without / "README.md").read_text()
    (without / "LICENSE.txt").unlink()
    assert "no licence text" in export_warnings(without)[0]


def test_licences_are_files_of_whatever_case(teacher: Teacher, captions: CaptionSet, tmp_path: Path) -> None:
    brought = without(teacher.info.path, tmp_path / "brought", "LICENSE*")
    (brought / "LICENSES").mkdir()
    licences = {"License.txt", "license.md", "use_policy.md"}
    for name in licences:
        (brought / name).write_text("terms")
    teacher = replace(teacher, info=read_teacher(brought))
    folder = export(teacher, student_of(teacher, "b-base"), captions, tmp_path)
    assert licences <= {file.name for file in folder.iterdir()}
    assert not (folder / "LICENSES").exists()
    assert export_warnings(folder) == []
    assert all(name in (folder / "README.md").read_text() for name in licences)


@pytest.mark.parametrize(
    ("teacher_id", "licence", "is_other", "said"),
    [
        ("emoji-64", "apache-2.0", False, {"license": "apache-2.0"}),
        ("owner/name", None, False, {"license": "other"}),
        ("SD 1.4: mine", "sai-nc", True, {"license": "other", "license_name": "sai-nc"}),
        ("1.5", "no", True, {"license": "other", "license_name": "no"}),
        ("- a # b", "mit\nbase_model: another", False, {"license": "mit\nbase_model: another"}),
        ("---\n", "{", False, {"license": "{"}),
    ],
)
def test_the_card_says_to_machines_what_was_meant(
    teacher: Teacher,
    tmp_path: Path,
    teacher_id: str,
    licence: str | None,
    is_other: bool,
    said: dict[str, str],
) -> None:
    info = teacher.info.model_copy(
        update={"id": teacher_id, "licence": licence, "licence_is_other": is_other}
    )
    card = tmp_path / "README.md"
    spec = DistillationSpec(teacher=teacher_id)
    write_model_card(card, info, spec, VALUES, "grid.png", [], has_mid_block=True)
    front_matter = card.read_text().removeprefix("---\n").partition("\n---\n")[0]
    assert yaml.safe_load(front_matter) == said | {
        "base_model": teacher_id,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["distillation", "random-conditioning"],
    }


def test_the_card_gives_scores_with_their_intervals(
    teacher: Teacher, captions: CaptionSet, tmp_path: Path
) -> None:
    folder = export(teacher, student_of(teacher, "b-base"), captions, tmp_path)
    card = (folder / "README.md").read_text()
    assert "| Fréchet distance, captions seen as text only | 0.1234 (0.1 to 0.2) | 0.5678 |" in card
    assert "| recall, captions seen as text only | 0.50 | 0.25 |" in card
    assert "| 5 steps, captions seen as text only | 10 | 0.3 | 5 | 0.4 (0.35 to 0.45) |" in card
    assert json.loads((folder / "manifest.json").read_text())["captions"]["count"] == 2


@pytest.mark.parametrize(
    ("bring", "shipped"),
    [
        (lambda folder, into: without(folder, into), {"safety_checker", "feature_extractor"}),
        (fetch, set()),
        (lambda folder, into: without(folder, into, "safety_checker", "feature_extractor"), set()),
        (lambda folder, into: without(folder, into, "safety_checker"), {"feature_extractor"}),
        (lambda folder, into: without(folder, into, "feature_extractor"), set()),
    ],
    ids=["whole", "fetched", "without both", "without the checker", "without what the checker needs"],
)
def test_the_index_names_the_optional_components_that_are_there(
    teacher: Teacher,
    checked_folder: Path,
    captions: CaptionSet,
    tmp_path: Path,
    bring: Callable[[Path, Path], Path],
    shipped: set[str],
) -> None:
    info = read_teacher(bring(checked_folder, tmp_path / "brought"))
    folder = export(replace(teacher, info=info), student_of(teacher, "b-base"), captions, tmp_path)
    assert find_problems(folder) == []
    assert find_loading_problems(folder) == []
    pipeline = DiffusionPipeline.from_pretrained(folder)
    optional = ("safety_checker", "feature_extractor")
    assert {name for name in optional if getattr(pipeline, name) is not None} == shipped
    assert {name for name in optional if (folder / name).exists()} == shipped
    assert pipeline.config.requires_safety_checker is ("safety_checker" in shipped)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("small cat", num_inference_steps=1, output_type="np").images.shape == (1, 32, 32, 3)


@pytest.mark.parametrize("name", ["model.fp16.safetensors", "pytorch_model.bin"])
def test_a_safety_checker_without_plain_safetensors_weights_is_left_out(
    teacher: Teacher, checked_folder: Path, captions: CaptionSet, tmp_path: Path, name: str
) -> None:
    brought = without(checked_folder, tmp_path / "brought")
    (brought / "safety_checker" / "model.safetensors").rename(brought / "safety_checker" / name)
    teacher = replace(teacher, info=read_teacher(brought))
    folder = export(teacher, student_of(teacher, "b-base"), captions, tmp_path)
    assert find_loading_problems(folder) == []
    index = json.loads((folder / "model_index.json").read_text())
    assert index["safety_checker"] == [None, None]
    assert index["requires_safety_checker"] is False
    assert not (folder / "safety_checker").exists()


@pytest.mark.parametrize(
    "entry", [["their_code", "SafetyChecker"], [], [None, "SafetyChecker"], ["stable_diffusion"]]
)
def test_an_optional_component_that_no_library_of_diffusers_has_is_left_out(
    teacher: Teacher, checked_folder: Path, captions: CaptionSet, tmp_path: Path, entry: list[str | None]
) -> None:
    brought = without(checked_folder, tmp_path / "brought")
    index = json.loads((brought / "model_index.json").read_text())
    (tmp_path / "outside").mkdir()
    changed = {"safety_checker": entry, "../outside": ["diffusers", "UNet2DConditionModel"]}
    (brought / "model_index.json").write_text(json.dumps(index | changed))
    teacher = replace(teacher, info=read_teacher(brought))
    folder = export(teacher, student_of(teacher, "b-base"), captions, tmp_path)
    assert find_loading_problems(folder) == []
    written = json.loads((folder / "model_index.json").read_text())
    assert written["safety_checker"] == written["../outside"] == [None, None]
    assert not (folder / "safety_checker").exists()
