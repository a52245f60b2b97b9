"""`msgtrace-admin dead-letters` on a SQLite file: what it shows, asks and refuses."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from msgtrace.cli import dead_letters
from msgtrace.cli.admin import main
from msgtrace.model.dead_letter import DeadLetter
from msgtrace.model.span import DEFAULT_TENANT
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from tests.batches import NOON_NS, TRACE_A, request, span, span_id_of

SECRET = "a prompt that nobody else may read"


def letter(number: int, spans: int = 2) -> DeadLetter:
    names = [f"{number}.{n}" for n in range(spans)]
    body = request(*(span(name, attributes={"prompt": SECRET}) for name in names))
    return DeadLetter(
        tenant_id=DEFAULT_TENANT,
        refused_at_ns=NOON_NS + number,
        reason=f"reason {number}",
        encoding="protobuf",
        payload=body.SerializeToString(),
        spans=[(TRACE_A, span_id_of(name)) for name in names],
    )


LETTERS = [letter(number) for number in range(5)]
NEWEST_FIRST = [each.letter_id.hex() for each in reversed(LETTERS)]


@pytest.fixture
def url(sqlite_url: str) -> str:
    """A database with five letters."""

    async def fill() -> None:
        async with open_storage(Settings(database_url=sqlite_url)) as storage:
            for each in LETTERS:
                await storage.dead_letters.keep(each, max_bytes=2**40)

    asyncio.run(fill())
    return sqlite_url


def run(url: str, command: str, *arguments: str, input: str | None = None) -> Result:
    options = ["dead-letters", command, *arguments, "--database-url", url]
    result = CliRunner().invoke(main, options, input=input)
    assert SECRET not in result.output
    return result


def listed(url: str) -> list[str]:
    found = json.loads(run(url, "list", "--json").stdout)["dead_letters"]
    return [each["id"] for each in found]


def test_the_list_is_newest_first_and_says_how_many_there_are(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "PAGE_LETTERS", 2)
    assert listed(url) == NEWEST_FIRST

    lines = run(url, "list", "--limit", "3").stdout.splitlines()

    assert lines[0].split() == ["Refused", "Id", "Spans", "Size", "Encoding", "Reason"]
    assert [each in line for each, line in zip(NEWEST_FIRST, lines[1:4], strict=False)] == [
        True
    ] * 3
    assert lines[1].endswith("protobuf  reason 4")
    assert lines[4].startswith("3 of 5 dead letters, ")


def test_the_list_as_json_has_times_sizes_and_totals(url: str) -> None:
    found = json.loads(run(url, "list", "--json", "--limit", "1").stdout)

    assert found == {
        "dead_letters": [
            {
                "id": NEWEST_FIRST[0],
                "refused_at": "2026-03-01T12:00:00.000000004Z",
                "reason": "reason 4",
                "span_count": 2,
                "encoding": "protobuf",
                "payload_bytes": len(LETTERS[4].payload),
            }
        ],
        "letter_count": 5,
        "kept_bytes": sum(each.kept_bytes for each in LETTERS),
    }


def test_show_tells_why_and_which_spans(url: str) -> None:
    lines = run(url, "show", NEWEST_FIRST[4]).stdout.splitlines()

    assert lines[0] == f"Id       {NEWEST_FIRST[4]}"
    assert lines[2] == "Reason   reason 0"
    assert lines[4] == "Spans    2 refused"
    assert lines[-1] == f"{TRACE_A.hex()}  {span_id_of('0.1').hex()}"


def test_show_leaves_most_ids_of_a_large_letter_to_json(url: str) -> None:
    large = letter(9, spans=25)

    async def keep() -> None:
        async with open_storage(Settings(database_url=url)) as storage:
            await storage.dead_letters.keep(large, max_bytes=2**40)

    asyncio.run(keep())

    assert "and 5 more; --json shows all" in run(url, "show", large.letter_id.hex()).stdout
    shown = json.loads(run(url, "show", large.letter_id.hex(), "--json").stdout)
    assert [each["span_id"] for each in shown["spans"]] == [ids[1].hex() for ids in large.spans]


@pytest.mark.parametrize("command", ["show", "replay", "delete"])
@pytest.mark.parametrize("given", ["xyz", "ab", "ab" * 17])
def test_what_is_no_id_is_wrong_usage(url: str, command: str, given: str) -> None:
    result = run(url, command, given)

    assert result.exit_code == 2
    assert "32 hex digits" in result.stderr


@pytest.mark.parametrize("command", ["show", "replay"])
def test_an_absent_letter_is_one_sentence(url: str, command: str) -> None:
    result = run(url, command, "ab" * 16)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: no dead letter has the id {'ab' * 16}\n"


@pytest.mark.parametrize("command", ["replay", "delete"])
@pytest.mark.parametrize("arguments", [[], ["ab" * 16, "--all"]])
def test_which_letters_must_be_said_in_one_way(
    url: str, command: str, arguments: list[str]
) -> None:
    result = run(url, command, *arguments)

    assert result.exit_code == 2
    assert "or --all" in result.stderr


def test_export_writes_the_chosen_requests_and_again_over_them(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    for _ in range(2):
        result = run(url, "export", str(folder), *NEWEST_FIRST[:2])
        assert result.stdout == f"Wrote 2 requests to {folder}.\n"

    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert files == {f"{each.letter_id.hex()}.binpb": each.payload for each in LETTERS[3:]}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_export_follows_no_link(url: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    folder = tmp_path / "out"
    folder.mkdir()
    for name in (f"{NEWEST_FIRST[0]}.binpb", f"{NEWEST_FIRST[0]}.binpb.part"):
        (folder / name).symlink_to(outside)

    assert run(url, "export", str(folder)).exit_code == 0

    assert outside.read_text() == "mine"
    assert len(list(folder.iterdir())) == 5
    assert not any(path.is_symlink() for path in folder.iterdir())


def test_replay_stores_and_deletes(url: str) -> None:
    result = run(url, "replay", *NEWEST_FIRST[:2])
    assert result.stdout == "Replayed 2 dead letters: 4 spans stored.\n"
    assert listed(url) == NEWEST_FIRST[2:]

    replayed = json.loads(run(url, "replay", "--all", "--json").stdout)["replayed"]
    assert [each["new_spans"] for each in replayed] == [2, 2, 2]
    assert listed(url) == []


def test_delete_asks_and_a_no_deletes_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--yes" in run(url, "delete", "--all").stderr
    monkeypatch.setattr(dead_letters, "can_ask", lambda: True)

    refusal = run(url, "delete", "--all", input="n\n")
    assert refusal.exit_code == 1
    assert "Delete 5 dead letters for good?" in refusal.stderr
    assert listed(url) == NEWEST_FIRST

    assert run(url, "delete", NEWEST_FIRST[0], input="y\n").stdout == "Deleted 1 dead letter.\n"
    assert run(url, "delete", "--all", "--yes").stdout == "Deleted 4 dead letters.\n"
    assert run(url, "list").stdout == "No dead letters.\n"


def test_a_database_without_the_table_is_refused_with_the_cure(tmp_path: Path) -> None:
    result = run(f"sqlite:///{tmp_path / 'none.db'}", "list")

    assert result.exit_code == 1
    assert "msgtrace-admin migrate" in result.stderr
