"""Lints, renders and validates the Helm chart, with Helm and Kubernetes' schemas.

chart.py FOLDER NETDIAG. One line for each set of values; exits 1 with the reasons if something is wrong. What has no schema (the
Prometheus operator's kinds) is said, not passed over. The binary is asked whether it understands what containers are to do.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml
from helm import helm
from kubernetes_validate.utils import all_versions
from packaging.version import Version

# What the example of a sidecar needs; what the chart needs it says itself.
OLDEST_OF_SIDECAR = "1.29"
# The first that waits before it stops a container without a program for that.
FIRST_WITH_SLEEP = Version("1.30")
# Kinds of the Prometheus operator's.
NO_SCHEMA = {"ServiceMonitor", "PodMonitor"}
# Of what becomes a label or a name in DNS.
LONGEST_NAME = 63

ENGINE = {"upstreams": ["http://engine:8000"]}
OPEN = {"auth": {"disabled": True}}
REFUSED = {
    "nobody said who may ask": ({"gateway": ENGINE}, "auth.existingSecret"),
    "no engine": (OPEN, "gateway.upstreams"),
    "an engine that is no URL": (
        {**OPEN, "gateway": {"upstreams": ["vllm:8000"]}},
        "upstreams",
    ),
    "an engine with what its requests bring": (
        {**OPEN, "gateway": {"upstreams": ["http://vllm:8000/base/v1/"]}},
        "leave that out",
    ),
    "an engine with a password": (
        {**OPEN, "gateway": {"upstreams": ["http://user:secret@vllm:8000"]}},
        "upstreams",
    ),
    "a value that there is not": ({**OPEN, "gatway": ENGINE}, "gatway"),
    "more streams than there may be": (
        {**OPEN, "gateway": {**ENGINE, "maxStreams": 1000001}},
        "maxStreams",
    ),
    "a Prometheus that is shut out": (
        {**OPEN, "gateway": ENGINE, "serviceMonitor": {"enabled": True}},
        "networkPolicy.operators",
    ),
    "hints that nobody may ask for": (
        {**OPEN, "gateway": {**ENGINE, "hints": {"enabled": True}}},
        "networkPolicy.engines",
    ),
}


def main(folder: Path, netdiag: str) -> None:
    sets = {
        "a gateway without token": {**OPEN, "gateway": ENGINE},
        "an engine below a path": {**OPEN, "gateway": {"upstreams": ["http://v1:8000/base/"]}},
        "a gateway on IPv6": {**OPEN, "gateway": {**ENGINE, "ipv6": True}},
        "a gateway that ends at once": {**OPEN, "gateway": {**ENGINE, "preStopSeconds": 0}},
        "the agent alone": {"auth": {"existingSecret": "s"}, "gateway": {"enabled": False}},
        "an agent on IPv6 nodes": {
            "auth": {"existingSecret": "s"},
            "gateway": {"enabled": False},
            "agent": {"ipv6": True},
        },
        "everything": yaml.safe_load((folder / "examples/full.yaml").read_text()),
    }
    wrong = []
    oldest = yaml.safe_load((folder / "Chart.yaml").read_text())["kubeVersion"]
    versions = versions_from(oldest.removeprefix(">=").removesuffix("-0"))
    for name, values in sets.items():
        is_ipv6 = values.get("agent", {}).get("ipv6", False)
        # A whole one: a shorter one and a port behind it would be another address.
        address = "2001:db8:1:2:3:4:5:6" if is_ipv6 else "192.0.2.1"
        rendered = {}
        for version in versions:
            release = ["--kube-version", version]
            told = run_helm("lint", [folder, "--strict", *release], values)
            if told.returncode != 0:
                wrong.append(f"{name}: Kubernetes {version}: lint: {told.stdout}{told.stderr}")
            # The longest name that a release may have.
            told = run_helm("template", ["r" * 53, folder, *release], values)
            if told.returncode != 0:
                wrong.append(f"{name}: Kubernetes {version}: {told.stderr.strip()}")
                continue
            rendered[version] = [d for d in yaml.safe_load_all(told.stdout) if d]
            ends_well(f"{name}: Kubernetes {version}", rendered[version], values, version, wrong)
            reaches_what_is_named(f"{name}: Kubernetes {version}", rendered[version], values, wrong)
        check(name, rendered, netdiag, wrong, address)
    sidecar = list(yaml.safe_load_all((folder / "examples/sidecar.yaml").read_text()))
    sidecars = {version: sidecar for version in versions_from(OLDEST_OF_SIDECAR)}
    check("the sidecar's example", sidecars, netdiag, wrong)
    for name, (values, why) in REFUSED.items():
        told = run_helm("template", ["r", folder], values)
        if told.returncode == 0:
            wrong.append(f"{name}: not refused")
        elif why not in told.stderr:
            wrong.append(f"{name}: refused, but without a word of {why}: {told.stderr.strip()}")
    print(f"refused as they should be: {', '.join(REFUSED)}")
    for line in wrong:
        print(f"chart: error: {line}", file=sys.stderr)
    sys.exit(bool(wrong))


def run_helm(command: str, arguments: list, values: dict) -> subprocess.CompletedProcess:
    """Runs a command of Helm's on these values, without anything that somebody has set up for it here."""
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        line = [helm(), command, *arguments, "--values", file]
        return subprocess.run(line, capture_output=True, text=True, env={"HOME": home})


def ends_well(name: str, documents: list, values: dict, version: str, wrong: list) -> None:
    """A gateway is told to stop when nobody is led to it any more, and has the time that its streams were promised."""
    for document in documents:
        if document["kind"] != "Deployment":
            continue
        pod = document["spec"]["template"]["spec"]
        gateway = pod["containers"][0]
        wanted = values["gateway"].get("preStopSeconds", 5)
        expected = wanted if Version(version) >= FIRST_WITH_SLEEP else 0
        waits = gateway.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        drain = next(a for a in gateway["args"] if a.startswith("--drain=")).removeprefix("--drain=")
        left = pod["terminationGracePeriodSeconds"] - waits - int(drain)
        if waits != expected or left < 10:
            wrong.append(f"{name}: waits {waits} s before it stops, and has {left} s to spare")


def reaches_what_is_named(name: str, documents: list, values: dict, wrong: list) -> None:
    """A gateway may ask for names, reach engines, and reach what else it is given, in the policy's own words."""
    named = values.get("networkPolicy", {})
    engines = {"to": named["engines"]} if named.get("engines") else {}
    for document in documents:
        if document["kind"] != "NetworkPolicy":
            continue
        _names, *others = document["spec"]["egress"]
        if others != [engines, *named.get("egress", [])]:
            wrong.append(f"{name}: besides names a gateway may reach {others}")


def check(
    name: str,
    rendered: dict,
    netdiag: str,
    wrong: list,
    address: str = "192.0.2.1",
) -> None:
    """Validates what each release of Kubernetes is given, refusing fields that it does not know, and each command, on a node's
    address."""
    before = len(wrong)
    kinds = without = []
    for version, documents in rendered.items():
        without = sorted({d["kind"] for d in documents if d["kind"] in NO_SCHEMA})
        known = [d for d in documents if d["kind"] not in NO_SCHEMA]
        kinds = [d["kind"] for d in known]
        for document in known:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except Exception as error:  # whatever its validator says
                where = f"{document['kind']} {document['metadata']['name']}"
                why = getattr(error, "message", error)
                wrong.append(f"{name}: Kubernetes {version}: {where}: {why}")
        for document in documents:
            called = document["metadata"]["name"]
            if len(called) > LONGEST_NAME:
                wrong.append(f"{name}: {called} has {len(called)} characters")
            # Variables of services that are named netdiag… would be taken for settings of ours.
            pod = document.get("spec", {}).get("template", {}).get("spec")
            if pod and pod.get("enableServiceLinks") is not False:
                wrong.append(f"{name}: {called} is given variables of services")
        for command in commands(documents, address):
            # Flags and values are looked at before it gets to the help.
            told = subprocess.run([netdiag, *command, "--help"], capture_output=True, text=True)
            if told.returncode != 0:
                wrong.append(f"{name}: {' '.join(command)}: {told.stderr.strip()}")
    said = f"; no schema for {', '.join(without)}" if without else ""
    if len(wrong) == before:
        print(f"{name}: {', '.join(kinds)} valid for Kubernetes {', '.join(rendered)}{said}")


def commands(documents: list, address: str):
    """What containers of ours are started with; the kubelet puts a node's address in."""
    for document in documents:
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        for container in pod.get("initContainers", []) + pod.get("containers", []):
            # Another image is the demo engine's.
            if not container["image"].endswith(":demo"):
                yield [word.replace("$(NODE_ADDRESS)", address) for word in container["args"]]


def versions_from(oldest: str) -> list:
    """The oldest and the newest release that there are schemas for, from this one on."""
    chosen = [version for version in all_versions() if Version(version) >= Version(oldest)]
    return [chosen[0], chosen[-1]]


main(Path(sys.argv[1]), sys.argv[2])
