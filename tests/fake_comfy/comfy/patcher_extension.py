"""Stand-in: the names of a patcher's callbacks and wrappers."""

from types import SimpleNamespace

CallbacksMP = SimpleNamespace(ON_LOAD="on_load")
WrappersMP = SimpleNamespace(APPLY_MODEL="apply_model")
WrapperExecutor = None  # the stand-in wraps nothing
