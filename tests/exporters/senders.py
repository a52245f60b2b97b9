"""Programs in other languages that send with OpenTelemetry's own exporters: built, run, heard.

Each is called with six words: what (every-field, one-span, bad-span or batches), wire, compression
(none or gzip), endpoint, service name, and the trace id of a remote parent. It prints lines of
fields between tabs:

    span       key, trace id, span id       a span of every-field; scenario.py has the keys
    exporting                               the export begins
    log        JSON text                    what the exporter tells the program's log
    result     success or failure, JSON text of the error

Sources are copied to a folder of their own first, so that nothing is built in the repository.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.end_to_end.processes import child_environment

HERE = Path(__file__).parent

DOWNLOAD_TIMEOUT_S = 60.0
BUILD_TIMEOUT_S = 240.0
"""Go compiles gRPC and protobuf when its cache is empty."""
RUN_TIMEOUT_S = 30.0

BATCHES_TRACES, BATCHES_SPANS = 150, 1500
"""What `batches` sends, in more than one request."""


class Unavailable(Exception):
    """A toolchain is not installed, or the packages that it needs could not be fetched."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to send."""

    language: str
    wire: str
    compression: str

    def __str__(self) -> str:
        return f"{self.language}-{self.wire}-{self.compression}"

    @property
    def is_grpc(self) -> bool:
        return self.wire == "grpc"


_WIRES = {
    "js": ("http-json", "http-proto", "grpc"),
    "go": ("http-proto", "grpc"),
    "java": ("http-proto", "grpc"),
}

CASES = [
    Case(language=language, wire=wire, compression=compression)
    for language, wires in _WIRES.items()
    for wire in wires
    for compression in ("none", "gzip")
]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a sender has printed."""

    spans: Mapping[str, tuple[str, str]]
    logs: Sequence[str]
    is_success: bool
    error: str


@dataclass(frozen=True, kw_only=True)
class Sender:
    """A program that is ready to run. toolchain: what it is made with, for people."""

    command: Sequence[str]
    toolchain: str

    def run(
        self,
        case: Case,
        what: str,
        endpoint: str,
        *,
        service_name: str,
        remote_trace_id: str = "0" * 32,
        on_export: Callable[[], None] = lambda: None,
    ) -> Report:
        """Run it to its end, which must come by itself. `on_export` is called in between."""
        words = [what, case.wire, case.compression, endpoint, service_name, remote_trace_id]
        with tempfile.TemporaryFile("w+") as stderr:
            popen = subprocess.Popen(
                [*self.command, *words],
                env=child_environment({}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                encoding="utf-8",
            )
            killer = threading.Timer(RUN_TIMEOUT_S, popen.kill)
            killer.start()
            try:
                lines = _read_lines(popen, on_export)
            finally:
                killer.cancel()
                popen.kill()
                popen.wait()
            stderr.seek(0)
            assert popen.returncode == 0, f"{case} ended with {popen.returncode}\n{stderr.read()}"
        return _report(lines)


class Senders:
    """The senders, each built when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._built: dict[str, Sender | Unavailable] = {}

    def get(self, language: str) -> Sender:
        """The sender of a language. Raises Unavailable, again each time."""
        if language not in self._built:
            self._built[language] = self._build(language)
        built = self._built[language]
        if isinstance(built, Unavailable):
            raise built
        return built

    def _build(self, language: str) -> Sender | Unavailable:
        target = self._folder / language
        shutil.copytree(HERE / language, target)
        try:
            return _BUILDERS[language](target)
        except Unavailable as error:
            return error


def _build_js(target: Path) -> Sender:
    node, npm = _find("node"), _find("npm")
    options = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
    _download([npm, "install", "--engine-strict", *options], target)
    version = _output([node, "--version"], target)
    return Sender(command=[node, str(target / "send.mjs")], toolchain=f"node {version}")


def _build_go(target: Path) -> Sender:
    go = _find("go")
    variables = {"GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", "CGO_ENABLED": "0"}
    _download([go, "mod", "download"], target, variables)
    binary = str(target / "sender")
    _build([go, "build", "-trimpath", "-o", binary, "."], target, variables)
    return Sender(command=[binary], toolchain=_output([go, "version"], target))


def _build_java(target: Path) -> Sender:
    java, javac, mvn = _find("java"), _find("javac"), _find("mvn")
    _download([mvn, "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib"], target)
    _build([javac, "-encoding", "UTF-8", "-cp", "lib/*", "-d", "classes", "Send.java"], target)
    return Sender(
        command=[java, "-cp", os.pathsep.join([f"{target}/classes", f"{target}/lib/*"]), "Send"],
        toolchain=_output([javac, "-version"], target),
    )


_BUILDERS: Mapping[str, Callable[[Path], Sender]] = {
    "js": _build_js,
    "go": _build_go,
    "java": _build_java,
}


@functools.cache
def _find(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise Unavailable(f"{program} is not installed")
    return path


def _download(
    command: Sequence[str], folder: Path, variables: Mapping[str, str] | None = None
) -> None:
    try:
        code, output = _run(command, folder, DOWNLOAD_TIMEOUT_S, variables)
    except TimeoutError as error:
        raise Unavailable(str(error)) from error
    if code != 0:
        raise Unavailable(f"{' '.join(command)}: {output[-500:]}")


def _build(
    command: Sequence[str], folder: Path, variables: Mapping[str, str] | None = None
) -> None:
    """Our own sources do compile: a failure is a failure of the test."""
    code, output = _run(command, folder, BUILD_TIMEOUT_S, variables)
    assert code == 0, f"{' '.join(command)}\n{output}"


def _output(command: Sequence[str], folder: Path) -> str:
    return _run(command, folder, RUN_TIMEOUT_S)[1].strip()


def _run(
    command: Sequence[str],
    folder: Path,
    timeout_s: float,
    variables: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Exit code and output. On TimeoutError its whole process group has ended."""
    popen = subprocess.Popen(
        command,
        cwd=folder,
        env=child_environment(variables or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = popen.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        os.killpg(popen.pid, signal.SIGKILL)
        popen.communicate()
        raise TimeoutError(f"{' '.join(command)} takes longer than {timeout_s:g} s") from error
    return popen.returncode, output


def _read_lines(popen: subprocess.Popen[str], on_export: Callable[[], None]) -> list[list[str]]:
    assert popen.stdout is not None
    lines = []
    with popen.stdout:
        for line in popen.stdout:
            fields = line.rstrip("\n").split("\t")
            lines.append(fields)
            if fields == ["exporting"]:
                on_export()
    popen.wait(RUN_TIMEOUT_S)
    return lines


def _report(lines: Sequence[Sequence[str]]) -> Report:
    results = [fields for fields in lines if fields[0] == "result"]
    assert len(results) == 1, lines
    return Report(
        spans={key: (trace_id, span_id) for key, trace_id, span_id in _rows(lines, "span")},
        logs=[json.loads(text) for (text,) in _rows(lines, "log")],
        is_success=results[0][1] == "success",
        error=json.loads(results[0][2]),
    )


def _rows(lines: Sequence[Sequence[str]], kind: str) -> list[Sequence[str]]:
    return [fields[1:] for fields in lines if fields[0] == kind]
