"""What msgflux records of its tools and agents, set where msgflux reads it.

msgflux reads the fields of `msgflux.envs.envs`; the variables that its documentation names have no
effect.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msgtrace.integration.observer import CaptureOptions

logger = logging.getLogger("msgtrace.integration")

_FIELDS = {
    "tool_responses": "telemetry_capture_tool_call_responses",
    "agent_state": "telemetry_capture_agent_prepare_model_execution",
}
_DEFAULTS = {"tool_responses": True, "agent_state": False}


class Capture:
    """The fields that were changed, to be put back. msgflux is left alone where nothing differs."""

    def __init__(self, options: CaptureOptions) -> None:
        self._before: dict[str, Any] = {}
        self._envs: Any = None
        if options.state_dict:
            logger.warning(
                "enable_state_dict is ignored: msgflux cannot encode the state of agents and"
                " embedders, and would raise TypeError from each call"
            )
        wanted = {
            _FIELDS[name]: getattr(options, name)
            for name, default in _DEFAULTS.items()
            if getattr(options, name) != default
        }
        if wanted and importlib.util.find_spec("msgflux") is not None:
            self._envs = importlib.import_module("msgflux.envs").envs
            for field, value in wanted.items():
                if hasattr(self._envs, field):
                    self._before[field] = getattr(self._envs, field)
                    setattr(self._envs, field, value)

    def undo(self) -> None:
        """Put the fields back."""
        for field, value in self._before.items():
            setattr(self._envs, field, value)
        self._before = {}
