#!/usr/bin/env python3
"""Paces a loop by the hints that a node pushes over the message bus.

    python3 -m venv venv && venv/bin/pip install nats-py
    netdiag up --bus nats://127.0.0.1:4222 --node gpu-1
    venv/bin/python examples/subscribe.py nats://127.0.0.1:4222 gpu-1

A hint holds for its `ttl_seconds`; without another one by then, nothing is known any more and nothing is slowed down. A node's name is
its host's, with `-` for dots; `netdiag watch` shows who speaks.
"""

import asyncio
import json
import sys
import time

import nats

# How long a server, and then a first hint, is waited for: nodes speak ten times a second, and at least once in one.
PATIENCE = 2.0


class Pace:
    """The newest hint of one scope."""

    def __init__(self):
        self.hint, self.until = None, 0.0
        self.heard = asyncio.Event()

    def hear(self, hint, age=0.0):
        # Messages of a node are ordered by its session, then by their sequence.
        last, order = self.hint, (hint["session"], hint["sequence"])
        if last is None or time.monotonic() > self.until or order > (last["session"], last["sequence"]):
            self.hint, self.until = hint, time.monotonic() + hint["ttl_seconds"] - age
            self.heard.set()

    def now(self):
        """The hint that holds, if one does."""
        return self.hint if time.monotonic() < self.until else None

    async def wait(self):
        """Waits for as long as a token should take; returns the hint by which it did."""
        while (hint := self.now()) and hint["hold"]:
            await asyncio.sleep(0.05)
        # Without a hint others have a turn all the same, or none would ever be heard.
        await asyncio.sleep(hint["sleep_seconds"] if hint else 0)
        return hint


async def told(error):
    """A connection that fails is tried again; a line says why."""
    print(f"nats: {error}", file=sys.stderr)


async def main(url, node, tokens):
    try:
        bus = await asyncio.wait_for(nats.connect(url, name="subscribe.py", error_cb=told), PATIENCE)
    except asyncio.TimeoutError:
        sys.exit(f"no NATS server answers at {url}: start one, or give another URL")
    pace = Pace()

    async def heard(message):
        pace.hear(json.loads(message.data))

    await bus.subscribe(f"netdiag.v1.hint.{node}.host", cb=heard)
    try:
        # What was said last, until the next hint comes.
        values = await bus.jetstream().key_value("netdiag_v1_hints")
        last = json.loads((await values.get(f"{node}.host")).value)
        # Only of what was kept the age is told by clocks.
        pace.hear(last, age=max(0.0, time.time() - last["time"]))
    except nats.errors.Error:
        pass
    try:
        await asyncio.wait_for(pace.heard.wait(), PATIENCE)
    except asyncio.TimeoutError:
        print(f"no hint from {node}, going on without; `netdiag watch --bus {url}` shows who speaks", file=sys.stderr)
    for token in range(tokens):
        hint = await pace.wait()
        rate = f"{hint['current_tps']:.1f} tok/s {hint['state']}" if hint else "no hint"
        print(f"token {token} ({rate})", flush=True)
    try:
        await bus.drain()
    except nats.errors.Error:
        # It is away, so there is nothing to wait for.
        pass


if __name__ == "__main__":
    url, node, tokens = [*sys.argv[1:], "100"][:3] if len(sys.argv) in (3, 4) else ("", "", "")
    if not tokens.isdecimal():
        sys.exit(f"usage: {sys.argv[0]} URL NODE [TOKENS], such as nats://127.0.0.1:4222 gpu-1 100")
    asyncio.run(main(url, node, int(tokens)))
