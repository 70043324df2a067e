"""The manual's table of settings is that of the code."""

from store.settings import Settings
from store.settings_table import PAGE, settings_table, with_table


def test_the_manual_lists_every_setting_as_it_is() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "run `python -m store.settings_table`"


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_secret_has_no_default_to_show() -> None:
    assert "| `S3_SECRET_ACCESS_KEY` |  |" in settings_table()
