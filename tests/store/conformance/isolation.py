"""Forced schedules on two threads: whatever the engine, the outcome is that of some order."""

import pytest

from tests.store.conformance import schedules
from tests.store.conformance.support import Effort


class Isolation(Effort):
    @pytest.mark.parametrize("name", schedules.CASES)
    def test_outcome_is_that_of_an_order_when_two_threads_meet(self, store, name):
        for number, schedule in enumerate(schedules.schedules(schedules.CASES[name])):
            schedules.run_on_threads(store, name, schedule, f"{number}!", self.patience_s)
