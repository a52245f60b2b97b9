"""Which decoder runs: what was asked for, what is there, and what people see of it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from msgtrace.errors import InvalidSetting
from msgtrace.otlp import encodings
from msgtrace.otlp.decode import decode_export_request
from msgtrace.settings.table import NATIVE_PACKAGE
from tests.batches import request, span
from tests.conformance.json_encoder import to_json
from tests.end_to_end.processes import run_to_end, running
from tests.end_to_end.senders import export
from tests.native.cargo import has_packages

IS_INSTALLED = importlib.util.find_spec(NATIVE_PACKAGE) is not None
FOUND = "native" if IS_INSTALLED else "python"


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the package is not installed."""
    monkeypatch.setitem(sys.modules, NATIVE_PACKAGE, None)
    monkeypatch.delitem(sys.modules, "msgtrace.otlp.native", raising=False)


@pytest.mark.skipif(shutil.which("cargo") is None, reason="there is no cargo to build it with")
def test_it_is_built_where_rust_is_at_hand() -> None:
    if not IS_INSTALLED and not has_packages():
        pytest.skip("cargo cannot have the crates that it is built of")
    assert IS_INSTALLED, "make test builds it; .venv/native.log has the reason why it did not"


def test_auto_takes_what_is_there() -> None:
    assert encodings.use_decoder("auto") == FOUND


def test_python_is_taken_when_asked_for() -> None:
    encodings.use_decoder("auto")

    assert encodings.use_decoder("python") == "python"
    assert encodings._DECODERS[encodings.PROTOBUF] is decode_export_request


@pytest.mark.usefixtures("without_native")
def test_auto_goes_on_without_it() -> None:
    assert encodings.use_decoder("auto") == "python"


@pytest.mark.usefixtures("without_native")
def test_asking_for_it_where_it_is_not_installed_says_what_to_install() -> None:
    with pytest.raises(InvalidSetting, match=r"MSGTRACE_DECODER.*install msgtrace\[native\]"):
        encodings.use_decoder("native")


@pytest.fixture
def of_another_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an upgrade of msgtrace alone."""
    other = types.ModuleType(NATIVE_PACKAGE)
    monkeypatch.setattr(other, "__version__", "0.0.9", raising=False)
    monkeypatch.setitem(sys.modules, NATIVE_PACKAGE, other)
    monkeypatch.delitem(sys.modules, "msgtrace.otlp.native", raising=False)


@pytest.mark.usefixtures("of_another_release")
def test_auto_goes_on_without_one_of_another_release_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert encodings.use_decoder("auto") == "python"

    (record,) = caplog.records
    assert record.message == "native_decoder_unfit"
    assert "msgtrace-native 0.0.9 belongs to another release" in vars(record)["detail"]


@pytest.mark.usefixtures("of_another_release")
def test_asking_for_one_of_another_release_is_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"0\.0\.9 belongs to another release"):
        encodings.use_decoder("native")


class PanicException(BaseException):
    pass


@pytest.mark.skipif(not IS_INSTALLED, reason="msgtrace-native is not installed")
@pytest.mark.parametrize("encoding", [encodings.PROTOBUF, encodings.JSON])
def test_python_decodes_what_makes_the_native_one_panic(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, encoding: str
) -> None:
    def panic(_body: bytes, **_rules: object) -> None:
        raise PanicException("byte index 1 of `a secret` is no boundary")

    native = importlib.import_module("msgtrace.otlp.native")
    monkeypatch.setattr(native, "decode_natively", panic)
    monkeypatch.setattr(native, "decode_json_natively", panic)
    encodings.use_decoder("native")
    export = request(span(name="one"))
    body = export.SerializeToString() if encoding == encodings.PROTOBUF else to_json(export)

    batch = encodings.decode_as(encoding, body)

    assert [row[15] for row in batch.spans] == ["one"]
    [record] = caplog.records
    assert (record.message, record.body_bytes) == ("native_decoder_panicked", len(body))  # type: ignore[attr-defined]  # an extra
    assert "secret" not in caplog.text


@pytest.mark.end_to_end
@pytest.mark.parametrize(("wanted", "taken"), [("auto", FOUND), ("python", "python")])
def test_a_start_says_which_decoder_it_took(tmp_path: Path, wanted: str, taken: str) -> None:
    url = f"sqlite:///{tmp_path / 'msgtrace.db'}"
    with running("start", url, environment={"MSGTRACE_DECODER": wanted}) as process:
        body = request(span()).SerializeToString()
        export(process, body, "grpc")
        export(process, body, "http")
        metrics = process.client.get("/metrics").text

        assert f"decoder={taken}" in process.stderr
    assert f'msgtrace_decoder_info{{decoder="{taken}"}} 1.0' in metrics


def test_the_table_of_settings_says_which_one_it_will_be() -> None:
    shown = run_to_end("settings", "--json", environment={"MSGTRACE_DECODER": "auto"}).stdout
    rows = json.loads(shown)

    [row] = [row for row in rows if row["variable"] == "MSGTRACE_DECODER"]
    assert row["value"] == f"auto ({FOUND})"


def test_make_goes_on_without_rust(tmp_path: Path) -> None:
    """The rule alone, in an environment of its own, with a PATH of the shell's tools alone."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "touch", "find", "sort", "make", "env"):
        (tools / name).symlink_to(str(shutil.which(name)))
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "pip").touch()
    ended = subprocess.run(
        ["make", f"VENV={venv}", f"{venv}/.tried-native"],
        cwd=Path(__file__).parents[2],
        env={"PATH": str(tools), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert "The native decoder is not built" in ended.stdout
    assert (venv / ".tried-native").exists()
