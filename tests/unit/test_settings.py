"""Where settings come from, and what is said of those that cannot be used."""

from __future__ import annotations

import dataclasses
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgtrace.errors import InvalidSetting
from msgtrace.settings.passwords import mask_password
from msgtrace.settings.sources import (
    CONFIG_FILE_VARIABLE,
    SDK_VARIABLES,
    explain_settings,
    read_settings,
    unknown_variables,
)
from msgtrace.settings.table import Settings, variable_name


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return tmp_path / "msgtrace.toml"


# Sources


@pytest.mark.usefixtures("no_variables")
def test_without_anything_given_the_defaults_hold() -> None:
    assert read_settings() == Settings()
    assert {row.source for row in explain_settings()} == {"default"}


def test_flags_win_over_the_environment_over_the_file_over_the_default(
    monkeypatch: pytest.MonkeyPatch, config_file: Path
) -> None:
    config_file.write_text('host = "file"\nport = 1\ngrpc_port = 1\n')
    monkeypatch.setenv("MSGTRACE_PORT", "2")
    monkeypatch.setenv("MSGTRACE_GRPC_PORT", "2")

    settings = read_settings({"grpc_port": 3, "log_level": None}, config_file)
    sources = {row.variable: row.source for row in explain_settings({"grpc_port": 3}, config_file)}

    assert (settings.grpc_port, settings.port, settings.host) == (3, 2, "file")
    assert settings.log_level == Settings().log_level
    assert sources["MSGTRACE_GRPC_PORT"] == "flag"
    assert sources["MSGTRACE_PORT"] == "environment"
    assert sources["MSGTRACE_HOST"] == "file"
    assert sources["MSGTRACE_LOG_LEVEL"] == "default"


@pytest.mark.usefixtures("no_variables")
def test_an_empty_variable_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSGTRACE_PORT", "")

    assert read_settings() == Settings()


def test_a_variable_names_the_file(monkeypatch: pytest.MonkeyPatch, config_file: Path) -> None:
    config_file.write_text("port = 7")
    monkeypatch.setenv(CONFIG_FILE_VARIABLE, str(config_file))

    assert read_settings().port == 7


def test_every_setting_can_be_given_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    others: dict[type, tuple[str, Any]] = {
        bool: ("false", False),
        int: ("42", 42),
        float: ("1.5", 1.5),
        tuple: ("a,b", ("a", "b")),
        str: ("other", "other"),
    }
    expected = {"database_password_file": ""}  # names a file: see "Passwords"
    more: dict[str, tuple[str, Any]] = {
        "retention": ("36h", "36h"),
        "max_database_bytes": ("20000000", 20_000_000),
    }
    for each in dataclasses.fields(Settings):
        if each.name in expected:
            continue
        kind = type(getattr(Settings(), each.name))
        text, expected[each.name] = more.get(each.name, others[kind])
        if choices := each.metadata["choices"]:
            text = expected[each.name] = choices[-1]
        monkeypatch.setenv(variable_name(each.name), text)

    assert dataclasses.asdict(read_settings()) == expected


# Conversions


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("port", "0", 0),
        ("port", " 4400 ", 4400),
        ("port", 65_535, 65_535),
        ("auto_migrate", "true", True),
        ("auto_migrate", "TRUE", True),
        ("auto_migrate", "1", True),
        ("auto_migrate", "False", False),
        ("auto_migrate", "0", False),
        ("auto_migrate", False, False),
        ("query_timeout_s", "1", 1.0),
        ("query_timeout_s", "0.5", 0.5),
        ("query_timeout_s", 2, 2.0),
        ("cors_origins", "https://a.example", ("https://a.example",)),
        ("cors_origins", " a , b ,, ", ("a", "b")),
        ("cors_origins", ["a", "b"], ("a", "b")),
        ("cors_origins", ("a",), ("a",)),
    ],
)
def test_a_value_is_converted_to_the_type_of_its_setting(name: str, given: Any, value: Any) -> None:
    converted = getattr(read_settings({name: given}), name)

    assert converted == value
    assert type(converted) is type(value)


@pytest.mark.parametrize(
    ("given", "age_s"),
    [
        ("off", None),
        ("90m", 5_400),
        ("36h", 129_600),
        ("30d", 2_592_000),
        (" 8w ", 4_838_400),
        ("999999w", 999_999 * 604_800),
    ],
)
def test_a_retention_is_off_or_an_age(given: str, age_s: float | None) -> None:
    assert read_settings({"retention": given}).retention_s == age_s


@pytest.mark.parametrize(
    ("name", "given", "problem"),
    [
        ("port", "http", "a whole number"),
        ("port", "1.5", "a whole number"),
        ("port", "-1", "0 to 65535"),
        ("port", "65536", "0 to 65535"),
        ("grpc_port", "99999", "0 to 65535"),
        ("max_request_bytes", "64MiB", "a whole number"),
        ("max_request_bytes", "0", "1 to"),
        ("max_batch_bytes", "-5", "1 to"),
        ("connect_timeout_s", "soon", "a number"),
        ("connect_timeout_s", "0", "0.001 to"),
        ("query_timeout_s", "nan", ""),
        ("query_timeout_s", "inf", ""),
        ("auto_migrate", "maybe", "true or false"),
        ("log_level", "verbose", "debug, info, warning, error"),
        ("log_format", "xml", "console, json"),
        ("host", "  ", "must not be empty"),
        ("retention", "30", "36h, 30d or 8w"),
        ("retention", "forever", "36h, 30d or 8w"),
        ("retention", "0d", "36h, 30d or 8w"),
        ("retention", "59m", "at least 1h"),
        ("max_database_bytes", "1000", "at least 16777216"),
        ("retention_interval_s", "0", "0.001 to"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, given: str, problem: str
) -> None:
    monkeypatch.setenv(variable_name(name), given)

    with pytest.raises(InvalidSetting) as refusal:
        read_settings()

    assert refusal.value.name == variable_name(name)
    assert str(refusal.value).startswith(f"{variable_name(name)}: must be ") or not given.strip()
    assert problem in str(refusal.value)
    assert repr(given.strip()) in str(refusal.value) or given.strip() in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("port = ", "is not TOML"),
        ("\udcff", "is not TOML"),
        ("prot = 1", "unknown settings: prot"),
        ("[storage]\nurl = 1", "unknown settings: storage"),
        ("port = 'x'", "MSGTRACE_PORT"),
        ("port = [1]", "MSGTRACE_PORT"),
        ("host = 7", "MSGTRACE_HOST"),
        ("auto_migrate = 'x'", "MSGTRACE_AUTO_MIGRATE"),
        ("cors_origins = 5", "MSGTRACE_CORS_ORIGINS"),
        ("cors_origins = [5]", "MSGTRACE_CORS_ORIGINS"),
        ("[cors_origins]\na = 1", "MSGTRACE_CORS_ORIGINS"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_invalid_setting(
    config_file: Path, content: str, problem: str
) -> None:
    config_file.write_bytes(content.encode(errors="surrogateescape"))

    with pytest.raises(InvalidSetting, match=problem):
        read_settings(config_file=config_file)


def test_a_missing_file_is_an_invalid_setting(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"cannot read .*absent\.toml"):
        read_settings(config_file=tmp_path / "absent.toml")


# Passwords


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://u:secret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:secret@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql://:secret@h/d", "postgresql://:***@h/d"),
        ("postgresql://u:secret@/d?host=/tmp", "postgresql://u:***@/d?host=/tmp"),
        ("postgresql://u:secret@[::1]:5432/d", "postgresql://u:***@[::1]:5432/d"),
        ("postgresql://u:secret@h1:1,h2:2/d", "postgresql://u:***@h1:1,h2:2/d"),
        ("postgresql://u:se@cret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:se/cret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:se?cret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:se#cret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:secret:more@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u@h/d?password=secret", "postgresql://u@h/d?password=***"),
        ("postgresql://h/d?user=u&password=secret&a=b", "postgresql://h/d?user=u&password=***&a=b"),
        ("postgresql://h/d?sslpassword=secret", "postgresql://h/d?sslpassword=***"),
        ("postgresql:u:secret@h/d", "postgresql:***@h/d"),
        ("postgresql://h:5432/d", "postgresql://h:5432/d"),
        (
            "postgresql://h:5432/d?application_name=a@b",
            "postgresql://h:5432/d?application_name=a@b",
        ),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://h/d?sslmode=require", "postgresql://h/d?sslmode=require"),
        ("sqlite:////var/lib/msgtrace.db", "sqlite:////var/lib/msgtrace.db"),
        ("sqlite:///a@b.db", "sqlite:///a@b.db"),
        ("", ""),
    ],
)
def test_a_password_in_a_url_is_masked_and_nothing_else(url: str, masked: str) -> None:
    assert mask_password(url) == masked


@given(st.lists(st.sampled_from(["secret", *"/@:?#&=%[] "]), min_size=1).map("".join))
def test_no_password_shows_however_it_is_spelt(password: str) -> None:
    assert "secret" not in mask_password(f"postgresql://u:{password}@h/d")


def test_the_table_of_settings_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSGTRACE_DATABASE_URL", "postgresql://u:secret@h/d")

    assert not any("secret" in f"{row}" for row in explain_settings())


@pytest.fixture
def password_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file named by the environment, beside a URL without a password."""
    path = tmp_path / "password"
    monkeypatch.setenv("MSGTRACE_DATABASE_URL", "postgresql://u@h/d")
    monkeypatch.setenv("MSGTRACE_DATABASE_PASSWORD_FILE", str(path))
    return path


@pytest.mark.parametrize("content", ["hunter2", "hunter2\n", "hunter2\r\n"])
def test_a_password_comes_from_a_file_with_or_without_a_line_end(
    password_file: Path, content: str
) -> None:
    password_file.write_text(content)

    assert read_settings().database_url == "postgresql://u:hunter2@h/d"


@pytest.mark.parametrize(
    ("url", "complete"),
    [
        ("postgresql://u@h1:1,h2:2/d?a=b", "postgresql://u:hunter2@h1:1,h2:2/d?a=b"),
        ("postgresql://u@[::1]:5432/d", "postgresql://u:hunter2@[::1]:5432/d"),
        ("postgresql:///d?host=/tmp", "postgresql:///d?host=/tmp&password=hunter2"),
        ("postgresql://h/d", "postgresql://h/d?password=hunter2"),
    ],
)
def test_a_password_from_a_file_joins_any_form_of_url(
    password_file: Path, url: str, complete: str
) -> None:
    password_file.write_text("hunter2")

    assert read_settings({"database_url": url}).database_url == complete


@given(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1, max_size=50))
def test_any_password_of_a_file_reaches_the_database_and_no_table(
    tmp_path_factory: pytest.TempPathFactory, password: str
) -> None:
    path = tmp_path_factory.mktemp("secret") / "password"
    path.write_text(password, encoding="utf-8")
    flags = {"database_url": "postgresql://u@h/d", "database_password_file": str(path)}

    url = read_settings(flags).database_url

    named = urllib.parse.urlsplit(url).password
    assert named is not None
    assert urllib.parse.unquote(named) == password
    assert mask_password(url) == "postgresql://u:***@h/d"
    assert explain_settings(flags)[0].value == "postgresql://u:***@h/d"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file or directory"),
        (b"", "must hold one line"),
        (b"\n", "must hold one line"),
        (b"host:5432:d:u:p\nhost:5432:e:u:p\n", "must hold one line"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_file_without_a_password_is_named_and_not_shown(
    password_file: Path, content: bytes | None, problem: str
) -> None:
    if content is not None:
        password_file.write_bytes(content)

    with pytest.raises(InvalidSetting, match=problem) as refusal:
        read_settings()

    assert refusal.value.name == "MSGTRACE_DATABASE_PASSWORD_FILE"
    assert str(password_file) in str(refusal.value)
    assert "5432" not in str(refusal.value)


@pytest.mark.parametrize(
    "url", ["postgresql://u:secret@h/d", "postgresql://u@h/d?password=secret", "sqlite:///a.db"]
)
def test_a_password_file_beside_a_url_that_needs_none_is_refused(
    password_file: Path, url: str
) -> None:
    password_file.write_text("hunter2")

    with pytest.raises(InvalidSetting, match="MSGTRACE_DATABASE_URL") as refusal:
        read_settings({"database_url": url})

    assert refusal.value.name == "MSGTRACE_DATABASE_PASSWORD_FILE"
    assert "secret" not in str(refusal.value)


# Misspelt variables


def test_unknown_variables_are_named_with_the_likely_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSGTRACE_DATABSE_URL", "x")
    monkeypatch.setenv("MSGTRACE_XYZZY_QQ", "x")
    monkeypatch.setenv("MSGTRACE_TEST_DATABASE_URL", "x")
    monkeypatch.setenv("MSGTRACE_PORT", "1")
    monkeypatch.setenv(CONFIG_FILE_VARIABLE, "x")
    monkeypatch.setenv("OTHER_PORT", "1")
    for name in SDK_VARIABLES:
        monkeypatch.setenv(name, "x")

    assert unknown_variables() == {
        "MSGTRACE_DATABSE_URL": "MSGTRACE_DATABASE_URL",
        "MSGTRACE_XYZZY_QQ": None,
    }
