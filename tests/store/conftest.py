"""Have the conformance suite's asserts explained like those of any test module."""

import pytest

pytest.register_assert_rewrite("tests.store.conformance")
