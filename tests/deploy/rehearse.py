"""Carry out the Dockerfile without a container engine: `make rehearse`, as root on Debian.

debootstrap makes the base image's Debian with its Python; every RUN and COPY is done in a copy of
it, with chroot; the result is started as the image would be: read-only, as its user, without
capabilities. A span goes in and comes back out. Takes some minutes and a gigabyte; CI only lints.

What differs from an engine: the Python is Debian's, not the one of the image `python`.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from msgtrace.model.units import MIB
from tests.batches import request, span
from tests.deploy.dockerfile import (
    BASE_PATH,
    ROOT,
    Instruction,
    Stage,
    context_patterns,
    left_out_names,
    read_stages,
)
from tests.end_to_end.processes import free_ports

SUITE = "trixie"
BUILD_TOOLS = "gcc cc make cargo rustc maturin hatchling uv git curl"
PACKAGES = "ca-certificates,python3,python3-venv,python3-pip"
CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
START_TIMEOUT_S = 60.0


@dataclass(slots=True)
class Root:
    """A root file system that instructions are carried out in."""

    path: Path
    environment: dict[str, str] = field(
        default_factory=lambda: {"PATH": BASE_PATH, "PIP_CERT": CA_FILE}
    )
    folder: str = "/"

    def inside(self, place: str) -> Path:
        """The path on this machine of a place in the root."""
        return self.path / (Path(self.folder) / place).relative_to("/")

    def run(self, script: str) -> str:
        """Run a script of the shell as root; return what it printed."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        inner = f"cd {shlex.quote(self.folder)} && {script}"
        command = ["chroot", str(self.path), "env", "-i", *variables, "sh", "-c", inner]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def make_base(folder: Path) -> Path:
    """The base image's Debian with its Python, once."""
    base = folder / "base"
    if not (base / "usr" / "local" / "bin" / "python").is_symlink():
        shutil.rmtree(base, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(base)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (base / "usr" / "local" / "bin" / "python").symlink_to("/usr/bin/python3")
    # The machine's name servers and CAs: it may reach the package index through a mirror.
    for name in ("/etc/resolv.conf", CA_FILE):
        shutil.copyfile(name, base / name.lstrip("/"))
    return base


def make_context(folder: Path) -> Path:
    """What .dockerignore lets an engine see."""
    context = folder / "context"
    shutil.rmtree(context, ignore_errors=True)
    for pattern in context_patterns():
        copy(ROOT / pattern, context / pattern, left_out_names())
    return context


def build(stage: Stage, built: dict[str, Root], folder: Path, context: Path) -> Root:
    """Carry out a stage in a fresh copy of the base."""
    root = Root(folder / (stage.name or "image"))
    shutil.rmtree(root.path, ignore_errors=True)
    subprocess.run(["cp", "--archive", make_base(folder), root.path], check=True)
    for each in stage.instructions:
        say(f"{each.name} {each.rest}")
        carry_out(each, root, built[each.flags["from"]].path if "from" in each.flags else context)
    root.environment = stage.environment()
    return root


def carry_out(instruction: Instruction, root: Root, source: Path) -> None:
    """Do what an instruction does to the files; the others are read from the stage later."""
    if instruction.name == "RUN":
        root.run(instruction.rest)
    elif instruction.name == "COPY":
        *names, target = instruction.words()
        for name in names:
            place = root.inside(target)
            copy(source / name.lstrip("/"), place / name if target.endswith("/") else place)
    elif instruction.name == "WORKDIR":
        root.folder = instruction.rest
        root.inside(".").mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def running(root: Root, image: Stage, volume: Path, ports: dict[str, str]) -> Iterator[list[str]]:
    """The image as a process; yields the beginning of commands that run beside it."""
    variables = root.environment | {"MSGTRACE_HOST": "127.0.0.1"} | ports
    user, group = image.words_of("USER")[0].split(":")
    for name in ("", "spill"):
        (volume / name).mkdir(exist_ok=True)
        shutil.chown(volume / name, int(user), int(group))
    begin = [
        *("unshare", "--mount", "--propagation", "private", "sh", "-euc", READ_ONLY, "sh"),
        *(str(root.path), str(volume), image.words_of("WORKDIR")[0]),
        *("setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--no-new-privs"),
        *("--bounding-set", "-all", "env", "-i"),
        *(f"{name}={value}" for name, value in variables.items()),
    ]
    process = subprocess.Popen([*begin, *image.words_of("ENTRYPOINT"), *image.words_of("CMD")])
    try:
        yield begin
        process.terminate()
        if code := process.wait(30):
            raise SystemExit(f"the image ended with {code}")
    finally:
        process.kill()
        process.wait()


LIST_PACKAGES = """
import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))
"""
READ_ONLY = """
root=$1 volume=$2 folder=$3; shift 3
mount --bind "$root" "$root"
mount --bind "$volume" "$root/var/lib/msgtrace"
mount -t tmpfs tmpfs "$root/tmp"
mount -o remount,bind,ro "$root"
exec chroot "$root" sh -euc 'cd "$1"; shift; exec "$@"' sh "$folder" "$@"
"""


def try_out(root: Root, image: Stage, volume: Path) -> None:
    """Start the image, wait for its health check, send a span and read it back."""
    grpc, http, query = free_ports(3)
    names = ("MSGTRACE_GRPC_PORT", "MSGTRACE_HTTP_PORT", "MSGTRACE_PORT")
    ports = dict(zip(names, map(str, (grpc, http, query)), strict=True))
    started_at = time.monotonic()
    with running(root, image, volume, ports) as begin:
        while subprocess.run([*begin, *image.health_check()], check=False).returncode:
            if time.monotonic() - started_at > START_TIMEOUT_S:
                raise SystemExit("the health check never succeeded")
        say(f"healthy after {time.monotonic() - started_at:.1f} s")
        trace_id = secrets.token_bytes(16)
        body = request(span(trace_id=trace_id)).SerializeToString()
        sent = httpx.post(
            f"http://127.0.0.1:{http}/v1/traces",
            content=body,
            headers={"content-type": "application/x-protobuf"},
        )
        read = httpx.get(f"http://127.0.0.1:{query}/api/v1/traces/{trace_id.hex()}")
        say(f"sent: {sent.status_code}, read: {read.raise_for_status().json()['span_count']} span")
        written = subprocess.run([*begin, "touch", "/opt/written"], check=False)
        if not written.returncode:
            raise SystemExit("the root file system can be written")


def report(root: Root) -> None:
    """Say what is in the image, and refuse what has no place there."""
    installed = root.path / "opt" / "msgtrace"
    sizes = sum(path.lstat().st_size for path in installed.rglob("*"))
    say(f"installed: {sizes / MIB:.0f} MiB")
    # Not pip: it is Debian's here, and would not be there.
    tools = root.run(f"for t in {BUILD_TOOLS}; do command -v $t || :; done")
    if tools:
        raise SystemExit(f"build tools in the image: {tools.split()}")
    say(root.run(f'/opt/msgtrace/bin/python -c "{LIST_PACKAGES}"'))


def copy(source: Path, target: Path, without: Sequence[str] = ()) -> None:
    """A file, or a folder's content but for some names."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        ignore = shutil.ignore_patterns(*without)
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=ignore)
    else:
        shutil.copy2(source, target)


def say(text: str) -> None:
    """One line of progress."""
    sys.stderr.write(f"==> {' '.join(text.split())}\n")


def main() -> None:
    """Build every stage, look at the last one and try it out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to work; the base is kept in it")
    folder = (parser.parse_args().folder or Path(tempfile.mkdtemp(prefix="rehearse-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    context, built = make_context(folder), dict[str, Root]()
    stages = read_stages()
    for stage in stages:
        built[stage.name] = build(stage, built, folder, context)
    image = built[stages[-1].name]
    report(image)
    with tempfile.TemporaryDirectory(prefix="volume-") as volume:
        try_out(image, stages[-1], Path(volume))
    say("done")


if __name__ == "__main__":
    main()
