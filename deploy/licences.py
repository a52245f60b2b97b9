"""Print the packages of an environment with the licences that they name: `make sbom`."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

(site_packages,) = Path(sys.argv[1]).glob("lib/python*/site-packages")
lines = []
for package in importlib.metadata.distributions(path=[str(site_packages)]):
    classifiers = package.metadata.get_all("Classifier") or []
    named = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License ::")]
    expression = package.metadata["License-Expression"] or ", ".join(named)
    licence = expression or package.metadata["License"] or "unknown"
    lines.append(f"{package.name:<32}{package.version:<12}{licence.partition(chr(10))[0]}\n")
sys.stdout.writelines(sorted(lines, key=str.lower))
