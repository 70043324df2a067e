"""Drawing for somebody who waits: pictures as of the evaluation, warm models, stops between two steps."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file

from core.artist import Artist
from core.draw import DrawingRequest, Inbox, Request, Studio, load_student, serve
from core.errors import OutOfMemoryError
from core.model_shelf import ModelShelf, weight_bytes
from core.revisions import sampled_revision
from core.spec import EvaluationSpec
from core.student_choice import choose_student
from core.student_weights import build_student
from core.students import student_rule
from core.teacher import Teacher

HOW = EvaluationSpec(sampler="ddim", steps=2, guidance_scale=2.0)


@pytest.fixture(scope="module")
def student_folder(teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's U-Net as the export writes it, with a variant beside it."""
    choice = choose_student(teacher.info.unet_config, "b-small", teacher.info.prompt_tokens)
    folder = tmp_path_factory.mktemp("student") / "unet"
    student = build_student(choice.config, student_rule(choice.student), teacher.unet, 0)
    student.save_pretrained(folder)
    student.to(torch.float16).save_pretrained(folder, variant="fp16")
    return folder


@pytest.fixture
def studio(teachers_dir: Path) -> Studio:
    return Studio([teachers_dir], torch.device("cpu"), ModelShelf(2**30))


def request_of(folder: Path, *drawings: DrawingRequest, number: int = 1) -> Request:
    return Request(id=f"r{number}", prompt="small cat", seed=11, folder=folder, drawings=list(drawings))


def answers_of(studio: Studio, *requests: Request, inbox: Inbox | None = None) -> list[dict[str, Any]]:
    inbox, out = inbox or Inbox(), io.StringIO()
    for request in requests:
        inbox.requests.put(request)
    inbox.requests.put(None)
    serve(inbox, studio, out, idle_seconds=60)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def pixels(path: Path) -> torch.Tensor:
    image = Image.open(path)
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(
        image.height, image.width, 3
    )


def test_it_draws_what_the_evaluation_would_and_loads_each_model_once(
    studio: Studio, teacher: Teacher, student_folder: Path, tmp_path: Path
) -> None:
    both = [
        DrawingRequest(teacher="emoji-64", teacher_revision=teacher.info.revision, evaluation=HOW),
        DrawingRequest(teacher="emoji-64", student=student_folder, evaluation=HOW),
    ]
    lines = answers_of(studio, request_of(tmp_path / "a", *both), request_of(tmp_path / "b", *both, number=2))
    assert [(line["id"], line["type"]) for line in lines] == [
        (name, kind) for name in ("r1", "r2") for kind in ("drawn", "drawn", "done")
    ]
    drawn = [line for line in lines if line["type"] == "drawn"]
    assert all(line["seconds"] > 0 and line["width"] == line["height"] == 32 for line in drawn)
    assert [line["load_seconds"] > 0 for line in drawn] == [True, True, False, False]
    student = UNet2DConditionModel.from_pretrained(student_folder).eval()
    for position, unet in enumerate((teacher.unet, student)):
        expected_CHW = Artist(teacher, unet, HOW).draw(["small cat"], [11])[0]
        for folder in ("a", "b"):
            assert torch.equal(pixels(tmp_path / folder / f"{position}.png"), expected_CHW.permute(1, 2, 0))
    assert not torch.equal(pixels(tmp_path / "a" / "0.png"), pixels(tmp_path / "a" / "1.png"))


def test_a_teacher_and_its_student_are_drawn_without_optional_components_that_the_index_names(
    studio: Studio, teachers_dir: Path, student_folder: Path, tmp_path: Path
) -> None:
    fetched = tmp_path / "fetched"
    shutil.copytree(teachers_dir / "weights", fetched)
    index = json.loads((fetched / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (fetched / "model_index.json").write_text(json.dumps(index | {"requires_safety_checker": True}))
    drawings = [
        DrawingRequest(teacher="s3://a/b", fetched_teacher=fetched, student=student, evaluation=HOW)
        for student in (None, student_folder)
    ]
    lines = answers_of(studio, request_of(tmp_path / "a", *drawings))
    assert [line["type"] for line in lines] == ["drawn", "drawn", "done"]


def test_a_job_of_an_earlier_release_is_drawn_with_the_teacher_that_its_result_names(
    studio: Studio, teacher: Teacher, tmp_path: Path
) -> None:
    earlier = sampled_revision(teacher.info.path)
    assert earlier != teacher.info.revision
    drawing = DrawingRequest(teacher="emoji-64", teacher_revision=earlier, evaluation=HOW)
    lines = answers_of(studio, request_of(tmp_path / "a", drawing))
    assert [line["type"] for line in lines] == ["drawn", "done"]


def test_a_request_is_given_up_between_two_steps_and_the_next_one_drawn(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox, checked = Inbox(), []
    check = Inbox.check

    def stop_in_the_midst(self: Inbox, request: Request) -> None:
        checked.append(request.id)
        if checked.count("r1") == 3:  # after the loading and the first of four steps
            inbox.read(io.StringIO('{"stop": "r1"}\n'))
        check(self, request)

    monkeypatch.setattr(Inbox, "check", stop_in_the_midst)
    slow = DrawingRequest(teacher="emoji-64", evaluation=HOW.model_copy(update={"steps": 4}))
    first, second = request_of(tmp_path / "a", slow), request_of(tmp_path / "b", slow, number=2)
    inbox.requests.put(first)
    inbox.requests.put(second)
    out = io.StringIO()
    serve(inbox, studio, out, idle_seconds=60)
    kinds = [(line["id"], line["type"]) for line in map(json.loads, out.getvalue().splitlines())]
    assert kinds == [("r1", "stopped"), ("r2", "drawn"), ("r2", "done")]
    assert checked.count("r1") == 3
    assert not (tmp_path / "a" / "0.png").exists()


def test_what_cannot_be_drawn_is_told_and_harms_no_other_request(studio: Studio, tmp_path: Path) -> None:
    good = DrawingRequest(teacher="emoji-64", evaluation=HOW)
    bad = {
        "no teacher": good.model_copy(update={"teacher": "nobody"}),
        "is not the one": good.model_copy(update={"teacher_revision": "0" * 64}),
        "cannot be loaded": good.model_copy(update={"student": tmp_path}),
    }
    requests = [request_of(tmp_path, each, number=number) for number, each in enumerate(bad.values())]
    lines = answers_of(studio, *requests, request_of(tmp_path, good, number=9))
    failed = [line for line in lines if line["type"] == "failed"]
    assert [line["reason"] for line in failed] == ["bad_teacher"] * 3
    for words, line in zip(bad, failed, strict=True):
        assert words in line["message"] or "has no safetensors" in line["message"], line
    assert lines[-1] == {"id": "r9", "type": "done"}


def test_a_lack_of_memory_is_no_fault_of_the_student(student_folder: Path, tmp_path: Path) -> None:
    """Weights that no file holds are allocated: here more than any process can address."""
    folder = shutil.copytree(student_folder, tmp_path / "unet")
    weights, config = folder / "diffusion_pytorch_model.safetensors", folder / "config.json"
    reading_text = ("attn2.to_k.weight", "attn2.to_v.weight")
    tensors = {name: each for name, each in load_file(weights).items() if not name.endswith(reading_text)}
    save_file(tensors, weights, metadata={"format": "pt"})
    config.write_text(json.dumps(json.loads(config.read_text()) | {"cross_attention_dim": 10**13}))
    with pytest.raises(OutOfMemoryError):
        load_student(folder)


def test_the_shelf_lets_go_of_what_was_not_used_for_longest(teacher: Teacher, student_folder: Path) -> None:
    student = load_student(student_folder)
    size = weight_bytes(student)
    assert size == 4 * student.num_parameters()
    parts = [teacher.unet, teacher.vae, *teacher.encode_prompts.text_encoders]
    assert weight_bytes(teacher) == sum(map(weight_bytes, parts)) > size
    shelf = ModelShelf(2 * size)
    for key in ("a", "b", "c"):
        assert shelf.take(key, lambda: student).model is student
    shelf.take("a", lambda: pytest.fail("it is there"))
    shelf.tidy()
    assert len(shelf) == 2
    assert shelf.take("a", lambda: pytest.fail("it was used last")).load_seconds == 0
    assert shelf.take("b", lambda: "loaded anew").model == "loaded anew"
