"""What every engine must do: `StoreConformance` and `SharedConformance`, from `suite`.

They are loaded when asked for, since the child processes of the tests want the small modules
of this package without pytest and everything else.
"""

from importlib import import_module

SUITES = {"StoreConformance", "SharedConformance"}


def __getattr__(name):
    if name not in SUITES:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.suite"), name)
