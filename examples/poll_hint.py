#!/usr/bin/env python3
"""An inference loop that lets the network set its pace: the original project's client.

Asks the hint server before every token and sleeps as long as it says. Runs with `requests` if it is installed and with
the standard library otherwise. If the server does not answer, the loop goes on at its last rate and says so.

    python3 examples/poll_hint.py --url http://127.0.0.1:9000 --tokens 50
"""

import argparse
import json
import os
import sys
import time

try:
    import requests

    def get_json(url, timeout, headers):
        answer = requests.get(url, timeout=timeout, headers=headers)
        answer.raise_for_status()
        return answer.json()

except ImportError:
    import urllib.request

    def get_json(url, timeout, headers):
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:9000", help="the hint server (default: %(default)s)")
    parser.add_argument("--text", default="Once upon a time there was a link that carried tokens. ", help="what to print")
    parser.add_argument("--tokens", type=int, default=50, help="how many tokens to print (default: %(default)s)")
    parser.add_argument("--token-file", metavar="FILE", help="the server's --auth-token-file, if it asks for a token")
    arguments = parser.parse_args()
    headers = {}
    if arguments.token_file:
        try:
            with open(arguments.token_file, encoding="ascii") as file:
                headers["Authorization"] = "Bearer " + file.readline().strip()
        except (OSError, ValueError) as error:
            parser.error(f"--token-file {arguments.token_file}: cannot be read: {error}")

    due = time.monotonic()
    words = arguments.text.split() or ["token"]
    sleep_seconds = 0.05
    reachable = True
    for index in range(arguments.tokens):
        try:
            hint = get_json(arguments.url, 1.0, headers)
            while hint.get("hold"):
                time.sleep(0.1)
                hint = get_json(arguments.url, 1.0, headers)
            sleep_seconds = float(hint["sleep_seconds"])
            reachable = True
        except (OSError, ValueError, KeyError) as error:
            if reachable:
                print(f"\n[no hint, going on at {1 / sleep_seconds:.1f} tokens/s: {error}]", file=sys.stderr)
            reachable = False
        # From token to token, so that the time it takes to ask is part of the sleep. What is late is not made up for.
        due = max(due + sleep_seconds, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0.0))
        print(words[index % len(words)], end=" ", flush=True)
    print()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print()
    except BrokenPipeError:
        # Nobody reads any more, and the interpreter would complain of that when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
