"""Asks an engine by the `openai` package, in all the ways that it has: python.py URL MODEL TOOLS

One line of JSON for each answer: how it was asked for, and all of it that is the same in every run. With TOOLS `forced` a call of a tool
is asked for, with `offered` a tool is only there.
"""

import asyncio
import json
import sys

from openai import AsyncOpenAI, OpenAI

URL, MODEL, TOOLS = sys.argv[1:]
MESSAGES = [{"role": "user", "content": "Tell me about the wire."}]
ASK = {"model": MODEL, "temperature": 0, "seed": 7, "max_tokens": 90}
CHAT = {**ASK, "messages": MESSAGES}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
        },
    },
}


class Answer:
    """What a stream comes to."""

    def __init__(self):
        self.text, self.finish, self.usage, self.calls = "", None, None, {}

    def take(self, chunk):
        if chunk.usage:
            self.usage = chunk.usage.total_tokens
        for choice in chunk.choices:
            self.finish = choice.finish_reason or self.finish
            delta = getattr(choice, "delta", None)
            if delta is None:
                self.text += choice.text
                continue
            self.text += delta.content or ""
            for call in delta.tool_calls or []:
                name, arguments = self.calls.get(call.index, ("", ""))
                function = call.function
                self.calls[call.index] = (name or function.name or "", arguments + (function.arguments or ""))

    def value(self):
        return {"text": self.text, "finish": self.finish, "usage": self.usage, "calls": list(self.calls.values())}


def tell(how, value):
    print(json.dumps({"how": how, "answer": value}), flush=True)


def streamed(stream):
    answer = Answer()
    for chunk in stream:
        answer.take(chunk)
    return answer.value()


def sync(client):
    whole = client.chat.completions.create(**CHAT)
    tell("sync, whole", {"text": whole.choices[0].message.content, "usage": whole.usage.total_tokens})
    tell("sync, streamed", streamed(client.chat.completions.create(**CHAT, stream=True)))
    tell("sync, completions", streamed(client.completions.create(**ASK, prompt="Once upon a time", stream=True)))
    choice = {"type": "function", "function": {"name": "weather"}} if TOOLS == "forced" else "auto"
    tell("sync, tools", streamed(client.chat.completions.create(**CHAT, tools=[WEATHER], tool_choice=choice, stream=True)))


async def asynchronous(client):
    answer = Answer()
    async for chunk in await client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}):
        answer.take(chunk)
    tell("async, streamed with usage", answer.value())
    # Several at once, as servers of others do.
    ask = {**CHAT, "max_tokens": 20}
    answers = await asyncio.gather(*[client.chat.completions.create(**{**ask, "seed": seed}) for seed in range(4)])
    tell("async, four at once", [answer.choices[0].message.content for answer in answers])


sync(OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0))
asyncio.run(asynchronous(AsyncOpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)))
