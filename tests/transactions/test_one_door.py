"""A task's state changes in one way only: read from the source, so that no second door opens."""

import ast
import functools
from pathlib import Path

import botapi

ROOT = Path(botapi.__file__).parent
HOLDS_OTHER_STATES = {"scheduler/last_seen.py", "domain/key_rotation.py", "domain/bot_event.py"}
"""Here `state` is that of a bot's report or of a key."""
BORN_FINISHED = {"domain/deduplication.py"}
"""A task that takes over another's result is stored so at once and never was anything else."""
MAKES_TASKS = {"transactions/create_task.py"}
WRITES_TASKS = {
    "transactions/cancel_task.py",
    "transactions/claim_slice.py",
    "transactions/create_task.py",
    "transactions/end_pending.py",
    "transactions/expire_slice.py",
    "transactions/finish_task.py",
    "transactions/late_output.py",
    "transactions/retry_task.py",
}


@functools.cache
def calls():
    """Module, name and node of every call of a function, a class or a method."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                found.append((path.relative_to(ROOT).as_posix(), name, node))
    return found


def modules(name, keyword=""):
    """Where it is called; with `keyword` only where that is given."""
    return {
        module
        for module, said, node in calls()
        if said == name and (not keyword or any(given.arg == keyword for given in node.keywords))
    }


def test_state_of_a_task_is_replaced_in_one_function():
    assert modules("replace", "state") - HOLDS_OTHER_STATES - BORN_FINISHED == {"domain/task.py"}


def test_task_is_made_where_tasks_are_created():
    assert modules("Task", "state") == MAKES_TASKS


def test_table_of_transitions_is_asked_in_one_place():
    assert modules("check_transition") == {"domain/task.py"}
    assert modules("become") == {"domain/completion.py", "transactions/claim_slice.py"}


def test_ends_are_staged_by_one_function_each():
    in_transactions = {module for module in modules("finish") if "transactions/" in module}
    assert in_transactions == {"transactions/finish_task.py"}
    assert modules("end_pending") == {"transactions/end_pending.py"}


def test_records_of_tasks_are_written_by_their_transactions_only():
    assert modules("task_doc") == WRITES_TASKS
