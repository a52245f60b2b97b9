"""A new user: installs, runs ten lines, and reads the trace at the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.end_to_end.processes import can_connect, free_ports, wait_until
from tests.packaging.with_msgflux.conftest import User
from tests.packaging.with_msgflux.test_trees import COST, TOKENS

pytestmark = [
    pytest.mark.packaging,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("msgflux"),
]

TEN_LINES = """\
from msgtrace.integration import quick_start
with quick_start():
    import msgflux as mf
    from msgflux import nn
    def add(a: int, b: int) -> int:
        "Sum of two numbers."
        return a + b
    model = mf.Model.chat_completion("openai/gpt-4o-mini")
    print(nn.Agent(name="calculator", model=model, tools=[add])("What is 20 + 22?"))
"""

DRAWN = [
    "◉ Calculator ten_lines 300/42 ~0.0000702",
    "├─ ✦ openai.chat gpt-4o-mini 120/30 ~0.000036",
    "├─ ⚒ Add",
    "└─ ✦ openai.chat gpt-4o-mini 180/12 ~0.0000342",
]
"""The tree without durations and bars: signs, models, tokens, and costs, all of them estimated."""


def test_ten_lines_give_one_tree_at_the_command_line(user: User, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    script = tmp_path / "ten_lines.py"
    script.write_text(TEN_LINES)
    home = {"XDG_DATA_HOME": str(tmp_path), "MSGTRACE_PORT": str(port), "COLUMNS": "160"}

    def msgtrace(*arguments: str) -> str:
        said = user.environment.run("msgtrace", *arguments, variables=home)
        assert (said.returncode, said.stderr) == (0, "")
        return said.stdout

    done = user.environment.run("python", script, variables=user.model | home | {"PORT": str(port)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "42, and sunny.\n", "")

    wait_until(lambda: not can_connect(port), "the server to end with its program")
    (trace,) = json.loads(msgtrace("list", "--json"))["traces"]
    assert (trace["input_tokens"], trace["output_tokens"]) == TOKENS
    assert (trace["cost"], trace["estimated_cost"]) == (COST, COST)
    assert (trace["service_name"], trace["error_count"]) == ("ten_lines", 0)
    drawn = msgtrace("show", trace["trace_id"]).splitlines()
    assert "Spans     8 (4 wrappers folded; --unfold shows them)" in drawn
    assert "Cost      0.0000702 (estimated)" in drawn
    assert [_without_durations_and_bars(line) for line in drawn if "█" in line] == DRAWN
    unfolded = msgtrace("show", "--unfold", trace["trace_id"])
    assert [unfolded.count(name) for name in ("Generator", "Tool Library")] == [2, 1]


def _without_durations_and_bars(line: str) -> str:
    return " ".join(re.sub(r"[\d.,]+ (µs|ms|s)\b|█", "", line).split())
