"""Numbers and times in words."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from api.pages import wording

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.2, "under 1 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3_599, "59 min 59 s"),
        (3_600, "1 h"),
        (3_659, "1 h"),
        (90_000, "1 d 1 h"),
    ],
)
def test_a_length_of_time_has_two_units_at_most(seconds: float, words: str) -> None:
    assert wording.duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "just now"), (-0.5, "just now"), (5, "5 s ago"), (119, "1 min ago"), (-7_200, "in 2 h")],
)
def test_a_moment_is_told_from_now(seconds: float, words: str) -> None:
    assert wording.age(NOW - timedelta(seconds=seconds), NOW) == words


def test_the_exact_moment_is_told_in_utc() -> None:
    assert wording.exact(NOW.astimezone(timezone(timedelta(hours=5)))) == "2026-03-01 12:00:00 UTC"


def test_numbers_have_units_and_no_more_digits_than_they_deserve() -> None:
    assert [wording.size(count) for count in (0, 999, 1_000, 43_200_000)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "43.2 MB",
    ]
    assert [wording.count(number) for number in (12, 12_624_216, 2.6e9)] == ["12", "12.6 M", "2.6 G"]
    assert [wording.figure(number) for number in (0.017883, 1_162.3, 1.0)] == ["0.0179", "1,162", "1"]
    assert [wording.share(fraction) for fraction in (0, 0.999, 1)] == ["0 %", "99 %", "100 %"]
