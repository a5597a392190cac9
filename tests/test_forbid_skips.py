"""The hook in conftest.py, on a suite of its own: each way to skip, with and without SWEEPER_FORBID_SKIPS."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

SUITE = """
import pytest

def test_passes():
    pass

def test_skips():
    pytest.skip("no chromium here")

@pytest.mark.skip(reason="no chromium here")
def test_is_marked():
    pass

@pytest.fixture
def browser():
    pytest.skip("no chromium here")

def test_has_a_fixture_that_skips(browser):
    pass

def test_needs_a_gpu():
    pytest.skip("needs a CUDA device")

def test_needs_real_data():
    pytest.skip("real data: adult.csv is not there")

@pytest.mark.xfail(reason="known", strict=True)
def test_is_expected_to_fail():
    assert False
"""
MODULE = "import pytest\npytest.importorskip('a_module_that_nobody_has')\n"


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text())
    pytester.makepyfile(test_each_way=SUITE, test_whole_module=MODULE)
    return pytester


def test_skips_stay_skips_by_default(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWEEPER_FORBID_SKIPS", raising=False)
    suite.runpytest_subprocess().assert_outcomes(passed=1, skipped=6, xfailed=1)


def test_skips_fail_when_forbidden_except_for_cuda_and_real_data(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPER_FORBID_SKIPS", "1")
    result = suite.runpytest_subprocess("--continue-on-collection-errors")
    result.assert_outcomes(passed=1, failed=1, errors=3, skipped=2, xfailed=1)
    result.stdout.fnmatch_lines(["*no chromium here*", "*SWEEPER_FORBID_SKIPS=1 allows no skip*"])
