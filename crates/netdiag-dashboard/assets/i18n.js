// The language in use and its messages. Text in index.html is found by its key, so that switching needs no reload and no element is
// made anew.
//
// Invariant: an unknown key fails loudly, an unknown word of the server is shown as it is, and the language is always one of LANGUAGES.

import { MESSAGES, REASONS } from "./messages.js";

export const LANGUAGES = ["en", "zh"];

// The first of the reader's languages that is spoken here.
export function preferred(languages) {
  const known = languages.map((language) => language.toLowerCase().split("-")[0]);
  return known.find((language) => LANGUAGES.includes(language)) ?? "en";
}

export function message(language, key, values) {
  const texts = MESSAGES[key];
  if (!texts) throw new Error(`no message ${key}`);
  const text = texts[LANGUAGES.indexOf(language)];
  return values ? text.replace(/\{(\w+)\}/g, (_, name) => String(values[name])) : text;
}

// The kinds of places in the markup that hold a message.
const PLACES = [
  ["i18n", "data-i18n", (element, text) => (element.textContent = text)],
  ["i18nLabel", "data-i18n-label", (element, text) => element.setAttribute("aria-label", text)],
  ["i18nTitle", "data-i18n-title", (element, text) => (element.title = text)],
  ["i18nPlaceholder", "data-i18n-placeholder", (element, text) => (element.placeholder = text)],
];

export function translate(root, language) {
  for (const [key, attribute, set] of PLACES) {
    for (const element of root.querySelectorAll(`[${attribute}]`)) set(element, message(language, element.dataset[key]));
  }
}

let current = "en";

export const language = () => current;

export function speak(wanted) {
  current = wanted;
}

// The message in the language in use.
export const t = (key, values) => message(current, key, values);

// A word of the server's, translated if it is one of those in a group of messages. A server of another version may have more.
export const word = (group, raw) => (MESSAGES[`${group}.${raw}`] ? t(`${group}.${raw}`) : String(raw));

const MARKS = { ", ": "，", "; ": "；", ": ": "：" };

const PHRASES = REASONS.map(([english, chinese]) => {
  const pattern = english.replace(/[.*+?^$()|[\]\\/]/g, "\\$&").replace(/\{(\w+)\}/g, "(?<$1>.+)");
  return { pattern: new RegExp(`^${pattern}$`), chinese };
});

// A sentence of the server's in a language: parts to be read one after the other, those that stayed English marked with `lang`.
export function reasonIn(language, text) {
  if (!text) return [];
  if (language === "en") return [{ text, lang: "en" }];
  const parts = [];
  let mark = "";
  for (const piece of text.split(/([,;:] )/)) {
    if (Object.hasOwn(MARKS, piece)) {
      mark = piece;
      continue;
    }
    const known = phraseIn(piece);
    const last = parts.at(-1);
    if (known !== null) parts.push({ text: (MARKS[mark] ?? "") + known });
    else if (last?.lang === "en") last.text += mark + piece;
    else {
      if (last) last.text += MARKS[mark] ?? "";
      parts.push({ text: piece, lang: "en" });
    }
    mark = "";
  }
  return parts;
}

function phraseIn(english) {
  for (const { pattern, chinese } of PHRASES) {
    const found = pattern.exec(english);
    if (found) return chinese.replace(/\{(\w+)\}/g, (_, name) => found.groups[name]);
  }
  return null;
}

export const reason = (text) => reasonIn(current, text);

// What went wrong with a question to the server, as parts: a sentence of this page's, or the server's own words.
export const failure = (error) => (error.kind ? [{ text: t(`error.${error.kind}`) }] : [{ text: error.message, lang: "en" }]);
