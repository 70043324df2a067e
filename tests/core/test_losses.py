"""The losses against numpy."""

import numpy as np
import pytest
import torch

from core.losses import DIRECTION_FLOOR, direction_loss, feature_loss, output_loss, task_loss

SHAPES = [(4, 8, 6, 6), (4, 3, 2, 2), (4, 9, 5)]  # maps, and the tokens of an attention
Arrays = list[np.ndarray]


@pytest.fixture
def features() -> tuple[Arrays, Arrays]:
    return random_features(0)


@pytest.fixture
def blank_features() -> tuple[Arrays, Arrays]:
    return random_features(1)


def random_features(seed: int) -> tuple[Arrays, Arrays]:
    rng = np.random.default_rng(seed)
    students = [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]
    teachers = [
        (10.0**place * rng.normal(size=shape)).astype(np.float32) for place, shape in enumerate(SHAPES)
    ]
    return students, teachers


def tensors(arrays: Arrays) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def test_output_loss_is_the_mean_square(features: tuple[Arrays, Arrays]) -> None:
    (student, *_), (teacher, *_) = features
    ours = output_loss(torch.from_numpy(student), torch.from_numpy(teacher)).item()
    assert ours == pytest.approx(np.mean((student - teacher) ** 2), rel=1e-5)


def test_the_plain_feature_loss_is_the_published_sum(features: tuple[Arrays, Arrays]) -> None:
    expected = sum(np.mean((ours - theirs) ** 2) for ours, theirs in zip(*features, strict=True))
    loss = feature_loss(*map(tensors, features), "none").item()
    assert loss == pytest.approx(expected, rel=1e-5)


def test_the_normalised_feature_loss_divides_by_the_teachers_energy(features: tuple[Arrays, Arrays]) -> None:
    expected = 0.0
    for ours, theirs in zip(*features, strict=True):
        for sample in range(len(ours)):
            energy = np.mean(theirs[sample] ** 2)
            expected += np.mean((ours[sample] - theirs[sample]) ** 2) / energy / len(ours)
    loss = feature_loss(*map(tensors, features), "teacher-energy").item()
    assert loss == pytest.approx(expected, rel=1e-5)


def test_no_layer_dominates_the_normalised_loss(features: tuple[Arrays, Arrays]) -> None:
    _, teachers = features
    silent = [torch.zeros(shape) for shape in SHAPES]
    assert feature_loss(silent, tensors(teachers), "teacher-energy").item() == pytest.approx(len(SHAPES))


@pytest.mark.parametrize("normalisation", ["teacher-energy", "none"])
def test_the_direction_loss_compares_what_the_caption_adds(
    normalisation: str, features: tuple[Arrays, Arrays], blank_features: tuple[Arrays, Arrays]
) -> None:
    expected = 0.0
    for ours, theirs, our_blank, their_blank in zip(*features, *blank_features, strict=True):
        for sample in range(len(ours)):
            added = theirs[sample] - their_blank[sample]
            error = np.mean((ours[sample] - our_blank[sample] - added) ** 2)
            energy = np.mean(added**2) if normalisation == "teacher-energy" else 1
            expected += error / energy / len(ours)
    arguments = map(tensors, (*features, *blank_features))
    assert direction_loss(*arguments, normalisation).item() == pytest.approx(expected, rel=1e-5)


def test_a_student_that_ignores_its_caption_is_wrong_by_one_at_every_point(
    features: tuple[Arrays, Arrays], blank_features: tuple[Arrays, Arrays]
) -> None:
    students, teachers = map(tensors, features)
    _, blank_teachers = map(tensors, blank_features)
    loss = direction_loss(students, teachers, students, blank_teachers, "teacher-energy").item()
    assert loss == pytest.approx(len(SHAPES))


def test_the_blank_caption_has_no_direction_to_match(features: tuple[Arrays, Arrays]) -> None:
    """The same features twice, up to rounding, must not divide nought by nought."""
    students, teachers = map(tensors, features)
    loss = direction_loss(students, teachers, students, teachers, "teacher-energy").item()
    assert loss == 0
    rounded = [teacher * (1 + 1e-6) for teacher in teachers]
    loss = direction_loss(students, rounded, students, teachers, "teacher-energy").item()
    assert 0 < loss < len(SHAPES) * 1e-11 / DIRECTION_FLOOR


def test_the_task_loss_leaves_swapped_captions_out() -> None:
    student, truth = torch.zeros(4, 2, 3, 3), torch.ones(4, 2, 3, 3)
    truth[1] = 5
    matches = torch.tensor([True, False, True, True])
    assert task_loss(student, truth, matches).item() == pytest.approx(3 / 4)


def test_losses_do_not_depend_on_how_a_batch_is_split(
    features: tuple[Arrays, Arrays], blank_features: tuple[Arrays, Arrays]
) -> None:
    def losses(rows: slice) -> torch.Tensor:
        parts = [[tensor[rows] for tensor in tensors(arrays)] for arrays in (*features, *blank_features)]
        matches = torch.tensor([True, False, True, False])[rows]
        return torch.stack(
            [
                feature_loss(*parts[:2], "teacher-energy"),
                direction_loss(*parts, "teacher-energy"),
                task_loss(parts[0][0], parts[1][0], matches),
            ]
        )

    halves = (losses(slice(0, 2)) + losses(slice(2, 4))) / 2
    torch.testing.assert_close(losses(slice(0, 4)), halves)
