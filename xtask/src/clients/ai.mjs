// Asks an engine by Vercel's AI SDK: `node ai.mjs URL MODEL TOOLS`, as python.py does.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, streamText, tool } from "ai";

const [url, name, tools] = process.argv.slice(2);
const provider = createOpenAICompatible({ name: "engine", baseURL: `${url}/v1`, apiKey: "none", includeUsage: true });
const ask = { model: provider(name), prompt: "Tell me about the wire.", temperature: 0, seed: 7, maxOutputTokens: 90, maxRetries: 0 };
const weather = tool({
  description: "The weather in a city",
  inputSchema: jsonSchema({ type: "object", properties: { city: { type: "string", maxLength: 12 } }, required: ["city"] }),
});

const tell = (how, answer) => console.log(JSON.stringify({ how, answer }));

async function streamed(more = {}) {
  let failure = null;
  const result = streamText({ ...ask, ...more, onError: ({ error }) => (failure = error) });
  let text = "";
  for await (const delta of result.textStream) text += delta;
  if (failure) throw failure;
  const calls = (await result.toolCalls).map(({ toolName, input }) => [toolName, input]);
  return { text, finish: await result.finishReason, tokens: (await result.usage).outputTokens, calls };
}

const whole = await generateText(ask);
tell("generateText", { text: whole.text, finish: whole.finishReason, tokens: whole.usage.outputTokens });
tell("streamText", await streamed());
const toolChoice = tools === "forced" ? { type: "tool", toolName: "weather" } : "auto";
tell("streamText, tools", await streamed({ tools: { weather }, toolChoice }));
