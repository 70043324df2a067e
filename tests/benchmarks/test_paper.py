from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.paper.experiments import Experiment, changed, every_experiment
from benchmarks.paper.findings import Row, budget, distinct, ratios, rows_of, table
from benchmarks.paper.plots import plot
from benchmarks.paper.runs import runs_of
from core.spec import DistillationSpec

EXPERIMENTS = every_experiment()
SCORES = {"frechet_distance": 0.2, "clip_score": 0.3, "nearest_top5": 0.5}


@pytest.mark.parametrize(
    ("experiment", "label"),
    [(experiment, label) for experiment in EXPERIMENTS.values() for label in experiment.specs],
    ids=lambda value: value.name if isinstance(value, Experiment) else value,
)
def test_every_job_is_one_that_the_service_accepts(experiment: Experiment, label: str) -> None:
    DistillationSpec.model_validate(experiment.specs[label])


def test_jobs_of_an_experiment_differ_from_each_other() -> None:
    for experiment in EXPERIMENTS.values():
        specs = [DistillationSpec.model_validate(spec) for spec in experiment.specs.values()]
        assert all(one != other for place, one in enumerate(specs) for other in specs[:place])


def test_a_change_leaves_what_it_does_not_name() -> None:
    training = changed({"training": {"steps": 7}})["training"]
    assert training["steps"] == 7
    assert training["batch_size"] == changed({})["training"]["batch_size"]


def result(more_steps: dict[str, int]) -> dict:
    def compared(calls: int) -> dict:
        return {
            "teacher": SCORES,
            "student": {**SCORES, "frechet_distance": 0.4},
            "unet_calls": {"teacher": calls, "student": calls},
            "intervals": {
                model: {name: (value - 0.1, value + 0.1) for name, value in SCORES.items()}
                for model in ("teacher", "student")
            },
        }

    by_steps = {steps: compared(calls) for steps, calls in more_steps.items()}
    return {
        "teacher": {"parameters": 12_000_000, "gmacs": 0.2},
        "student": {"parameters": 7_000_000, "gmacs": 0.1},
        "captions": {"drawn": 200},
        "drawn": {**compared(40), "by_steps": by_steps},
        "text_only": compared(40),
    }


def test_a_result_gives_a_row_for_each_model_split_and_number_of_steps() -> None:
    rows = rows_of("distilled", 3, result({"5": 10}))
    assert [(row.label, row.split, row.unet_calls) for row in rows] == [
        ("teacher", "drawn", 40),
        ("distilled", "drawn", 40),
        ("teacher", "drawn", 10),
        ("distilled", "drawn", 10),
        ("teacher", "text_only", 40),
        ("distilled", "text_only", 40),
    ]
    assert {row.parameters for row in rows if row.label == "teacher"} == {12_000_000}
    assert {row.seed for row in rows} == {3}


def test_the_table_shows_means_over_the_seeds_with_the_widest_interval() -> None:
    experiment = EXPERIMENTS["whole-set"]

    def row(seed: int, distance: float) -> Row:
        interval = {"frechet_distance": (distance - 0.1, distance + 0.1)}
        return Row("without", seed, "drawn", 40, 7, 0.1, 200, {"frechet_distance": distance}, interval)

    assert "| without | 40 | 0.3 (0.1 to 0.5) |" in table(experiment, [row(0, 0.2), row(1, 0.4)])


def held_out(label: str, seed: int, distance: float) -> Row:
    return Row(label, seed, "held_out", 40, 7, 0.1, 200, {"frechet_distance": distance}, {})


def test_ratios_are_within_a_seed_and_their_interval_is_over_the_seeds() -> None:
    distances = {"with random conditioning": (2, 3, 6), "without": (4, 4, 6)}
    rows = [held_out(label, seed, values[seed]) for label, values in distances.items() for seed in range(3)]
    # ln of 1/2, 3/4 and 1: mean -0.3269, deviation 0.3482; Student's t of two degrees is 4.3027.
    line = "| with random conditioning : without | 0.50 | 0.75 | 1.00 | 0.72 (0.30 to 1.71) |"
    assert line in ratios(EXPERIMENTS["unseen-concepts"], rows)
    alone = ratios(EXPERIMENTS["unseen-concepts"], [row for row in rows if row.seed == 1])
    assert alone.splitlines() == [
        "| | seed 1 |",
        "|---|---:|",
        "| with random conditioning : without | 0.75 |",
    ]


def test_ratios_are_of_a_jobs_own_number_of_steps() -> None:
    own = [
        held_out(label, 0, distance) for label, distance in (("with random conditioning", 2), ("without", 4))
    ]
    in_fewer_steps = [replace(row, unet_calls=10, scores={"frechet_distance": 9.0}) for row in own]
    assert "| 0.50 |" in ratios(EXPERIMENTS["unseen-concepts"], [*own, *in_fewer_steps])


def test_what_is_compared_are_jobs_of_the_experiment() -> None:
    for experiment in EXPERIMENTS.values():
        assert {*experiment.compared, *experiment.compared.values()} <= set(experiment.specs)


def test_the_budget_says_which_seeds_were_trained_in_what() -> None:
    experiment = EXPERIMENTS["whole-set"]
    assert " in float32, " in budget(experiment, {0: "float32", 1: "float32"})
    mixed = budget(experiment, {0: "bfloat16", 1: "float32", 2: "float32"})
    assert " in bfloat16 (seed 0) and float32 (seeds 1, 2), " in mixed


def test_a_job_is_the_same_in_either_precision() -> None:
    """Its result is found on a machine that trains in the other one."""
    runs = [run for experiment in EXPERIMENTS.values() for run in runs_of(experiment, 0)]
    assert all("precision" not in run.spec["training"] for run in runs)
    assert {run.precision for run in runs} <= {"float32", "bfloat16"}


def test_the_table_of_sizes_shows_what_each_costs() -> None:
    lines = table(EXPERIMENTS["sizes"], rows_of("b-small", 0, result({}))).splitlines()
    assert lines[0].startswith("| | parameters | GMACs | frechet distance, drawn |")
    assert lines[3].startswith("| b-small | 7,000,000 | 0.100 | 0.4 (")


def test_a_teacher_measured_beside_several_students_is_one_row() -> None:
    rows = [*rows_of("b-small", 0, result({})), *rows_of("b-tiny", 0, result({}))]
    assert [row.label for row in distinct(rows) if row.split == "drawn"] == ["teacher", "b-small", "b-tiny"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_a_plot(name: str, tmp_path: Path) -> None:
    experiment = EXPERIMENTS[name]
    rows = [
        row
        for seed in (0, 1)
        for label in experiment.specs
        for row in rows_of(label, seed, result({"5": 10}))
    ]
    if experiment.split == "held_out":
        rows = [Row(**{**row.as_json(), "split": "held_out"}) for row in rows]
    plot(experiment, rows, tmp_path / "plot.svg")
    drawn = ElementTree.parse(tmp_path / "plot.svg").getroot()
    assert experiment.question in "".join(drawn.itertext())
