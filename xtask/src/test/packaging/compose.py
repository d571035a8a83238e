"""Asks the binary whether it understands the commands of the compose file: compose.py COMPOSE NETDIAG."""

import subprocess
import sys

import yaml


def main(path: str, netdiag: str) -> None:
    with open(path, encoding="utf-8") as file:
        services = yaml.safe_load(file)["services"]
    ours = {name: s["command"] for name, s in services.items() if s["image"] == "netdiag"}
    if not ours:
        sys.exit("compose: error: no service runs netdiag")
    for name, command in ours.items():
        # Flags and values are looked at before it gets to the help.
        told = subprocess.run([netdiag, *command, "--help"], capture_output=True, text=True)
        if told.returncode != 0:
            sys.exit(f"compose: error: service {name}: {told.stderr.strip()}")
    print(f"commands understood: {', '.join(ours)}")


main(sys.argv[1], sys.argv[2])
