"""Numbers in a U-Net's config: those of every family pass, those that crash or hang are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import BadTeacherError
from core.registry import list_teachers
from core.student_choice import choose_student, list_candidates
from core.students import ParameterBudget
from core.teacher import load_teacher
from core.teacher_folder import read_configs, read_teacher
from core.unet_limits import DEFAULTS, check_latents, check_numbers

BUNDLED = Path(__file__).parents[2] / "teachers" / "emoji_64" / "weights"
MISSING = "missing"


@pytest.fixture
def copied(teachers_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(teachers_dir / "weights", tmp_path / "teachers" / "weights")


def change(part: Path, changes: dict[str, Any]) -> None:
    config = json.loads((part / "config.json").read_text()) | changes
    present = {name: value for name, value in config.items() if value is not MISSING}
    (part / "config.json").write_text(json.dumps(present))


@pytest.mark.parametrize("family", ["sd14", "sd21", "sdxl"])
def test_the_published_families_pass(family: str) -> None:
    config = DEFAULTS | json.loads(Path(__file__).with_name(f"{family}_unet_config.json").read_text())
    check_numbers(config)
    check_latents(config, {"latent_channels": 4}, family)


def test_a_u_net_for_latents_of_more_channels_passes() -> None:
    assert read_configs(BUNDLED).unet_config["in_channels"] == 16


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"norm_num_groups": 0}, "norm_num_groups 0; 1 to 256 can be"),
        ({"norm_num_groups": None}, "norm_num_groups None; 1 to 256"),
        ({"norm_num_groups": "x"}, "norm_num_groups 'x'; 1 to 256"),
        ({"norm_num_groups": True}, "norm_num_groups True; 1 to 256"),
        ({"norm_num_groups": 3}, "norm_num_groups 3, by which 20, one of its block_out_channels, cannot be"),
        ({"norm_num_groups": MISSING}, "norm_num_groups 32, by which 20"),
        ({"attention_head_dim": 0}, "attention_head_dim 0; 1 to 256"),
        ({"attention_head_dim": None}, "attention_head_dim None; 1 to 256"),
        ({"attention_head_dim": MISSING}, "attention_head_dim 8, by which 20"),
        ({"attention_head_dim": [4]}, r"attention_head_dim \[4\]; .* one for each of its 4 stages"),
        ({"attention_head_dim": [10**6] * 4}, "attention_head_dim 1000000; 1 to 256"),
        ({"attention_head_dim": [4, 4, 4, 7]}, "attention_head_dim 7, by which 60"),
        ({"cross_attention_dim": None}, "cross_attention_dim None"),
        ({"cross_attention_dim": [32, 32]}, "one for each of its 4 stages"),
        ({"transformer_layers_per_block": [1]}, "one for each of its 4 stages"),
        ({"transformer_layers_per_block": [[1], [1], [1], [1]]}, r"transformer_layers_per_block \[1\]"),
        ({"layers_per_block": 0}, "layers_per_block 0; 1 to 16"),
        ({"layers_per_block": 1.5}, r"layers_per_block 1\.5"),
        ({"block_out_channels": [0, 40, 40, 60]}, "block_out_channels 0; 1 to"),
        ({"block_out_channels": [65_536] * 4}, "16384 channels in a group of its narrowest norm"),
        ({"sample_size": None}, "sample_size None; 1 to 1024"),
        ({"sample_size": [8, 8]}, r"sample_size \[8, 8\]; 1 to 1024"),
        ({"in_channels": 9}, "in_channels 9 and out_channels 4, and its autoencoder latent_channels 4"),
        ({"in_channels": 8, "out_channels": 8}, "latent_channels 4"),
        ({"addition_embed_type": "text_time"}, "projection_class_embeddings_input_dim None"),
    ],
    ids=str,
)
def test_a_number_that_no_u_net_has_is_refused_for_its_own_teacher(
    copied: Path, changes: dict[str, Any], said: str
) -> None:
    shutil.copytree(copied, copied.with_name("other"))
    (copied.with_name("other") / "teacher.json").unlink()
    change(copied.with_name("other") / "unet", changes)
    with pytest.raises(BadTeacherError, match=said):
        read_configs(copied.with_name("other"))
    assert [teacher.id for teacher in list_teachers([copied.parent])] == ["emoji-64"]


def test_what_a_config_leaves_to_diffusers_is_known(copied: Path) -> None:
    change(copied / "unet", {"layers_per_block": MISSING, "in_channels": MISSING, "out_channels": MISSING})
    unet_config = read_configs(copied).unet_config
    assert unet_config["layers_per_block"] == 2
    choose_student(unet_config, "b-small")


def test_heads_need_only_divide_the_channels_of_stages_that_attend(copied: Path) -> None:
    change(copied / "unet", {"attention_head_dim": [4, 4, 4, 7], "mid_block_type": None})
    read_configs(copied)


def test_a_u_net_of_no_size_can_be_listed_but_not_loaded(copied: Path) -> None:
    change(copied / "unet", {"sample_size": MISSING})
    with pytest.raises(BadTeacherError, match="has no sample_size"):
        load_teacher(read_teacher(copied), torch.device("cpu"))


def test_the_students_of_the_largest_u_net_that_passes_can_be_listed(copied: Path) -> None:
    """A hundred channels a group allow ten times the widths of Stable Diffusion 1.4, and no more."""
    channels = {"block_out_channels": [12_800] * 4, "norm_num_groups": 128, "attention_head_dim": [128] * 4}
    change(copied / "unet", channels | {"transformer_layers_per_block": 4, "sample_size": 64})
    unet_config = read_configs(copied).unet_config
    assert 90 < len(list_candidates(unet_config)) < 120
    choose_student(unet_config, ParameterBudget(max_params=10**12))
