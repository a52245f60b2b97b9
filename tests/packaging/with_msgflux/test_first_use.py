"""A new user: installs, runs ten lines, and reads the trace at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.processes import can_connect, free_ports, wait_until
from tests.packaging.with_msgflux.conftest import User
from tests.packaging.with_msgflux.test_trees import TOKENS

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

DRAWN = ["Calculator", "openai.chat", "Add", "openai.chat"]
"""What stands in the drawn tree, in this order; wrappers between them may be folded."""


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
    assert (trace["service_name"], trace["error_count"]) == ("ten_lines", 0)
    drawn = msgtrace("show", trace["trace_id"])
    places = [drawn.index(DRAWN[0])]
    for name in DRAWN[1:]:
        places.append(drawn.index(name, places[-1] + 1))
    # Each below the one before, the calls and the tool deeper than the agent.
    columns = [place - drawn.rindex("\n", 0, place) for place in places]
    assert min(columns[1:]) > columns[0]
