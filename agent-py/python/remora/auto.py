"""`import remora.auto` activates the agent from code, settings taken from the environment.

Under `-X lazy_imports=all` a bare import does nothing until it is used: call `remora.init()` there.
"""

import remora._native as _native

_native.activate("auto")
