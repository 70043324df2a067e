"""Student rules: the published counts for Stable Diffusion 1.4 and XL, and what the rules refuse."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.cost import count_multiply_accumulates, count_parameters
from core.errors import InvalidStudentError
from core.spec import PRESETS, WidthStudent, derive_student, fitting_presets, student_name
from core.students import ComputeBudget, ParameterBudget, allowed_widths

PUBLISHED = {
    "teacher": (859_520_964, 338.6),
    "b-base": (579_384_964, 223.7),
    "b-small": (482_346_884, 217.6),
    "b-tiny": (323_384_964, 205.0),
    "c-base": (553_235_204, 217.0),
    "c-small": (425_288_868, 166.2),
    "c-tiny": (314_140_228, 122.3),
    "c-micro": (219_789_284, 85.0),
}
PUBLISHED_XL = {"teacher": 2_567_463_684, "koala-1b": 1_161_184_324, "koala-700m": 782_822_724}


@pytest.mark.parametrize("name", PUBLISHED)
def test_students_of_sd14_cost_what_was_published(name: str, sd14_config: dict[str, Any]) -> None:
    config = sd14_config if name == "teacher" else derive_student(sd14_config, name)
    parameters, gmacs = PUBLISHED[name]
    assert count_parameters(config) == parameters
    assert round(count_multiply_accumulates(config, prompt_tokens=77) / 1e9, 1) == gmacs


@pytest.mark.parametrize("name", PUBLISHED_XL)
def test_students_of_sdxl_have_the_published_parameters(name: str, sdxl_config: dict[str, Any]) -> None:
    config = sdxl_config if name == "teacher" else derive_student(sdxl_config, name)
    assert count_parameters(config) == PUBLISHED_XL[name]


def test_the_koala_students_are_those_of_the_paper(sdxl_config: dict[str, Any]) -> None:
    larger, smaller = (derive_student(sdxl_config, name) for name in ("koala-1b", "koala-700m"))
    assert larger["transformer_layers_per_block"] == [1, 2, 6]
    assert smaller["transformer_layers_per_block"] == [1, 2, 5]
    assert larger["layers_per_block"] == smaller["layers_per_block"] == 1
    assert larger["mid_block_type"] == "UNetMidBlock2DCrossAttn"
    assert smaller["mid_block_type"] is None


def test_every_preset_has_a_published_count() -> None:
    assert set(PRESETS) == (set(PUBLISHED) | set(PUBLISHED_XL)) - {"teacher"}


def test_the_koala_students_need_transformer_layers_to_take_away(sd14_config: dict[str, Any]) -> None:
    with pytest.raises(InvalidStudentError, match="transformer layers") as caught:
        derive_student(sd14_config, "koala-1b")
    assert caught.value.allowed == list(PUBLISHED)[1:]


def test_stable_diffusion_2_has_all_but_one_of_the_students_of_1(sd21_config: dict[str, Any]) -> None:
    """At width 0.7 its first stage would have 3.5 heads, and 224 channels are no multiple of 5 heads."""
    assert fitting_presets(sd21_config) == [
        "b-base",
        "b-small",
        "b-tiny",
        "c-base",
        "c-tiny",
        "c-micro",
    ]
    assert count_parameters(sd21_config) == 865_910_724


@pytest.mark.parametrize(
    ("width", "heads"), [(0.8, [4, 8, 16, 16]), (0.6, [3, 6, 12, 12]), (0.5, [5, 10, 20, 20])]
)
def test_heads_stay_as_many_where_they_can_and_as_wide_where_not(
    width: float, heads: list[int], sd21_config: dict[str, Any]
) -> None:
    assert derive_student(sd21_config, WidthStudent(width=width))["attention_head_dim"] == heads


@pytest.mark.parametrize(
    ("student", "name"),
    [
        ("b-small", "b-small"),
        (WidthStudent(width=0.75), "width-0.75"),
        (WidthStudent(width=0.75, initialisation="random"), "width-0.75-random"),
        (ParameterBudget(max_params=500_000_000), "max-params-500M"),
        (ComputeBudget(max_macs=1_250_000_000), "max-macs-1.25B"),
    ],
)
def test_names(student: Any, name: str) -> None:
    assert student_name(student) == name


def test_tiny_loses_the_innermost_stage_of_encoder_and_decoder(sd14_config: dict[str, Any]) -> None:
    config = derive_student(sd14_config, "b-tiny")
    assert config["block_out_channels"] == [320, 640, 1280]
    assert config["down_block_types"] == ["CrossAttnDownBlock2D"] * 3
    assert config["up_block_types"] == ["CrossAttnUpBlock2D"] * 3
    assert config["mid_block_type"] is None
    assert config["layers_per_block"] == 1


def test_the_teachers_config_is_left_alone(sd14_config: dict[str, Any]) -> None:
    before = str(sd14_config)
    for student in fitting_presets(sd14_config):
        derive_student(sd14_config, student)
    assert str(sd14_config) == before


def test_private_entries_of_a_loaded_config_do_not_overrule_the_student(sd14_config: dict[str, Any]) -> None:
    loaded = sd14_config | {"_use_default_values": ["down_block_types", "up_block_types", "mid_block_type"]}
    assert derive_student(loaded, "b-tiny") == derive_student(sd14_config, "b-tiny")


def test_a_width_that_breaks_the_norm_groups_names_its_neighbours(sd14_config: dict[str, Any]) -> None:
    with pytest.raises(InvalidStudentError) as caught:
        derive_student(sd14_config, WidthStudent(width=0.75))
    assert caught.value.field == "student.width"
    assert caught.value.allowed == ["0.7", "0.8"]
    assert caught.value.reason == "bad_teacher"


def test_a_preset_that_does_not_fit_names_those_that_do() -> None:
    teacher = _teacher((80, 120, 120, 160), groups=8, heads=4)
    with pytest.raises(InvalidStudentError) as caught:
        derive_student(teacher, "c-small")
    assert caught.value.allowed == ["b-base", "b-small", "b-tiny", "c-base", "c-tiny"]


@pytest.mark.parametrize("student", ["b-base", "b-small", "b-tiny"])
def test_blocks_of_one_layer_cannot_lose_one(student: str) -> None:
    teacher = _teacher((32, 64, 64)) | {"layers_per_block": 1}
    with pytest.raises(InvalidStudentError, match="blocks of one layer"):
        derive_student(teacher, student)


def test_tiny_needs_two_stages_with_cross_attention() -> None:
    teacher = _teacher((32, 64, 64)) | {
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"]
    }
    with pytest.raises(InvalidStudentError) as caught:
        derive_student(teacher, "b-tiny")
    assert "b-small" in caught.value.allowed
    assert "b-tiny" not in caught.value.allowed


def test_tiny_needs_an_innermost_stage_that_is_wide_enough() -> None:
    with pytest.raises(InvalidStudentError, match="at least as wide"):
        derive_student(_teacher((32, 64, 32)), "b-tiny")


def test_settings_of_one_value_a_stage_lose_the_innermost_one() -> None:
    teacher = _teacher((320, 640, 1280, 1280), groups=32) | {
        "attention_head_dim": [5, 10, 20, 20],
        "layers_per_block": [2, 2, 2, 2],
    }
    config = derive_student(teacher, "b-tiny")
    assert config["attention_head_dim"] == [5, 10, 20]
    assert config["layers_per_block"] == [1, 1, 1]


@given(
    units=st.lists(st.integers(1, 40), min_size=3, max_size=4),
    groups=st.sampled_from([4, 8, 32]),
    heads=st.sampled_from([2, 4, 8]),
    width=st.floats(0.01, 1.0),
)
def test_a_width_is_either_exact_or_refused(units: list[int], groups: int, heads: int, width: float) -> None:
    divisor = math.lcm(groups, heads)
    teacher = _teacher(tuple(divisor * unit for unit in units), groups=groups, heads=heads)
    widths = allowed_widths(teacher)
    assert widths[-1] == 1
    for allowed in widths:
        channels = derive_student(teacher, WidthStudent(width=allowed))["block_out_channels"]
        assert all(count % divisor == 0 for count in channels)
    if not any(math.isclose(width, allowed) for allowed in widths):
        with pytest.raises(InvalidStudentError) as caught:
            derive_student(teacher, WidthStudent(width=width))
        assert caught.value.allowed


def _teacher(channels: tuple[int, ...], groups: int = 4, heads: int = 4) -> dict[str, Any]:
    stages = len(channels)
    return {
        "block_out_channels": list(channels),
        "down_block_types": ["CrossAttnDownBlock2D"] * (stages - 1) + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * (stages - 1),
        "layers_per_block": 2,
        "norm_num_groups": groups,
        "attention_head_dim": heads,
    }
