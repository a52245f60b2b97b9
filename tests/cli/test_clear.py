from __future__ import annotations

import pytest
from click.testing import CliRunner

from msgtrace.cli import clear
from msgtrace.cli.main import main
from tests.cli.canned import CannedServer, summary, trace_list
from tests.cli.conftest import Run

PATH = "/api/v1/traces"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `clear` believe that a person sits at standard input."""
    monkeypatch.setattr(clear, "can_ask", lambda: True)


@pytest.fixture
def stored(canned: CannedServer) -> CannedServer:
    canned.reply(PATH, trace_list(summary(), total=1_500))
    canned.reply(PATH, {"deleted": 1_500}, method="DELETE")
    return canned


def deletions(canned: CannedServer) -> list[list[tuple[str, str]]]:
    return [asked.parameters for asked in canned.asked if asked.method == "DELETE"]


def test_clear_without_a_terminal_and_without_yes_refuses(stored: CannedServer, run: Run) -> None:
    result = run("clear", "--url", stored.url)

    assert result.exit_code == 1
    assert "--yes" in result.stderr
    assert stored.asked == []


def test_clear_with_yes_deletes_all(stored: CannedServer, run: Run) -> None:
    result = run("clear", "--url", stored.url, "--yes")

    assert (result.exit_code, result.stdout) == (0, "Deleted 1,500 traces.\n")
    assert deletions(stored) == [[("all", "true")]]


def test_clear_with_filters_deletes_only_what_matches(stored: CannedServer, run: Run) -> None:
    run("clear", "--url", stored.url, "--yes", "--service", "shop", "--errors")

    assert deletions(stored) == [[("service_name", "shop"), ("has_errors", "true")]]


def test_clear_with_json_prints_the_reply(stored: CannedServer, run: Run) -> None:
    assert run("clear", "--url", stored.url, "--yes", "--json").stdout == '{"deleted": 1500}\n'


@pytest.mark.usefixtures("terminal")
def test_clear_shows_the_count_and_deletes_what_was_counted(stored: CannedServer, run: Run) -> None:
    result = run("clear", "--url", stored.url, "--since", "2h", input="y\n")

    assert result.exit_code == 0
    assert f"Delete 1,500 matching traces at {stored.url}?" in result.stderr
    counted = [pair for pair in stored.asked[0].parameters if pair[0] != "limit"]
    assert deletions(stored) == [counted]


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("answer", ["n\n", "\n"])
def test_clear_deletes_nothing_without_a_yes(stored: CannedServer, run: Run, answer: str) -> None:
    result = run("clear", "--url", stored.url, input=answer)

    assert result.exit_code == 1
    assert result.stderr.endswith("Nothing deleted.\n")
    assert deletions(stored) == []


@pytest.mark.usefixtures("terminal")
def test_the_end_of_input_at_the_question_deletes_nothing(stored: CannedServer) -> None:
    result = CliRunner().invoke(main, ["clear", "--url", stored.url], input="")

    assert result.exit_code == 130
    assert deletions(stored) == []


@pytest.mark.usefixtures("terminal")
def test_clear_does_not_ask_about_nothing(stored: CannedServer, run: Run) -> None:
    stored.reply(PATH, trace_list())

    result = run("clear", "--url", stored.url)

    assert (result.exit_code, result.stdout) == (0, "Deleted 0 traces.\n")
    assert deletions(stored) == []
