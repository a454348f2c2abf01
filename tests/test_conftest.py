"""A test that skips for want of the data fails where the data must be there."""

import pytest

pytest_plugins = ["pytester"]

CASES = """
import pytest

def test_data():
    pytest.skip("needs ../shared/data/deals")

def test_other():
    pytest.skip("no browser")
"""


@pytest.mark.parametrize(("required", "outcomes"), [(False, {"skipped": 2}), (True, {"skipped": 1, "failed": 1})])
def test_a_skip_for_want_of_data(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, required: bool, outcomes: dict[str, int]
) -> None:
    monkeypatch.delenv("TOUCHLINE_REQUIRE_DATA", raising=False)
    if required:
        monkeypatch.setenv("TOUCHLINE_REQUIRE_DATA", "1")
    pytester.makeconftest("from tests.conftest import pytest_make_collect_report, pytest_runtest_makereport")
    pytester.makepyfile(CASES)

    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio")

    result.assert_outcomes(**outcomes)
