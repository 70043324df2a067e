"""The links of the pages that no generator reads lead to files; those of the manual, Sphinx checks."""

import re

import pytest

from tests.docs.pages import ROOT

LINK = re.compile(r"\]\(([^)#\s]+)")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_a_link_to_a_file_leads_there(page: str) -> None:
    targets = LINK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []
