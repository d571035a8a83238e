"""Lints, renders and validates the Helm chart, with Helm's own engine (helm-python-sdk) and Kubernetes' schemas.

chart.py FOLDER NETDIAG. One line for each set of values; exits 1 with the reasons if something is wrong. What has no schema (the
Prometheus operator's kinds) is said, not passed over. The binary is asked whether it understands what containers are to do.
"""

import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import yaml
from helm_python import HelmError
from helm_python.chart import Chart, lint
from kubernetes_validate.utils import all_versions
from packaging.version import Version

# What the example of a sidecar needs; the chart itself asks for less.
OLDEST = Version("1.29")
# Kinds of the Prometheus operator's.
NO_SCHEMA = {"ServiceMonitor", "PodMonitor"}

ENGINE = {"upstreams": ["http://engine:8000"]}
REFUSED = {
    "nobody said who may ask": ({"gateway": ENGINE}, "auth.existingSecret"),
    "no engine": ({"auth": {"disabled": True}}, "gateway.upstreams"),
    "an engine that is no URL": (
        {"auth": {"disabled": True}, "gateway": {"upstreams": ["vllm:8000"]}},
        "upstreams",
    ),
    "a value that there is not": ({"auth": {"disabled": True}, "gatway": ENGINE}, "gatway"),
}


def main(folder: Path, netdiag: str) -> None:
    chart = Chart.load(folder)
    sets = {
        "a gateway without token": {"auth": {"disabled": True}, "gateway": ENGINE},
        "the agent alone": {"auth": {"existingSecret": "s"}, "gateway": {"enabled": False}},
        "an agent on IPv6 nodes": {
            "auth": {"existingSecret": "s"},
            "gateway": {"enabled": False},
            "agent": {"ipv6": True},
        },
        "everything": yaml.safe_load((folder / "examples/full.yaml").read_text()),
    }
    wrong = []
    versions = supported_versions()
    for name, values in sets.items():
        for message in lint(folder, values, strict=True)["messages"]:
            # An icon is recommended, and would be fetched from somewhere.
            if "icon is recommended" not in message["error"]:
                wrong.append(f"{name}: lint: {message['error']}")
        chart.validate_schema(values)
        rendered = chart.render(values, name="r", namespace="n")
        documents = [
            document
            for path, text in rendered.items()
            if path.endswith(".yaml")
            for document in yaml.safe_load_all(text)
            if document
        ]
        is_ipv6 = values.get("agent", {}).get("ipv6", False)
        # A whole one: a shorter one and a port behind it would be another address.
        address = "2001:db8:1:2:3:4:5:6" if is_ipv6 else "192.0.2.1"
        check(name, documents, versions, netdiag, wrong, address)
    sidecar = list(yaml.safe_load_all((folder / "examples/sidecar.yaml").read_text()))
    check("the sidecar's example", sidecar, versions, netdiag, wrong)
    for name, (values, why) in REFUSED.items():
        try:
            chart.validate_schema(values)
            chart.render(values, name="r", namespace="n")
        except HelmError as error:
            if why not in str(error):
                wrong.append(f"{name}: refused, but without a word of {why}: {error}")
        else:
            wrong.append(f"{name}: not refused")
    print(f"refused as they should be: {', '.join(REFUSED)}")
    for line in wrong:
        print(f"chart: error: {line}", file=sys.stderr)
    sys.exit(bool(wrong))


def check(
    name: str,
    documents: list,
    versions: list,
    netdiag: str,
    wrong: list,
    address: str = "192.0.2.1",
) -> None:
    """Validates each document against each release, refusing fields that it does not know, and each command, on a node's address."""
    before = len(wrong)
    without = sorted({d["kind"] for d in documents if d["kind"] in NO_SCHEMA})
    known = [d for d in documents if d["kind"] not in NO_SCHEMA]
    for version in versions:
        for document in known:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except Exception as error:  # whatever its validator says
                where = f"{document['kind']} {document['metadata']['name']}"
                why = getattr(error, "message", error)
                wrong.append(f"{name}: Kubernetes {version}: {where}: {why}")
    kinds = ", ".join(d["kind"] for d in known)
    for command in commands(documents, address):
        # Flags and values are looked at before it gets to the help.
        told = subprocess.run([netdiag, *command, "--help"], capture_output=True, text=True)
        if told.returncode != 0:
            wrong.append(f"{name}: {' '.join(command)}: {told.stderr.strip()}")
    said = f"; no schema for {', '.join(without)}" if without else ""
    if len(wrong) == before:
        print(f"{name}: {kinds} valid for Kubernetes {', '.join(versions)}{said}")


def commands(documents: list, address: str):
    """What containers of ours are started with; the kubelet puts a node's address in."""
    for document in documents:
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        for container in pod.get("initContainers", []) + pod.get("containers", []):
            # Another image is the demo engine's.
            if not container["image"].endswith(":demo"):
                yield [word.replace("$(NODE_ADDRESS)", address) for word in container["args"]]


def supported_versions() -> list:
    """The oldest and the newest release that there are schemas for, from OLDEST on."""
    chosen = [version for version in all_versions() if Version(version) >= OLDEST]
    return [chosen[0], chosen[-1]]


main(Path(sys.argv[1]), sys.argv[2])
