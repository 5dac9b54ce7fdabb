// The search page: type-ahead over /offsets, the article beside it. Titles and text come from a
// dump and are only ever made into text nodes.
"use strict";

const PREFIX_MIN = 3;
const LIMIT = 50;
const PAUSE_MS = 120; // between the last key and the question

const byId = (id) => document.getElementById(id);
const input = byId("query");
const list = byId("results");
const statusLine = byId("status");
const article = byId("article");

let found = []; // [title, first byte, last byte], as the list shows them
let chosen = -1;
let timer = 0;
let asking = new AbortController(); // the question for titles that is on its way
let opening = new AbortController(); // that for an article

// ---- elements ----

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function say(text, bad = false) {
  statusLine.textContent = text;
  statusLine.classList.toggle("bad", bad);
}

function size(bytes) {
  return bytes < 1000 ? `${bytes} B` : `${(bytes / 1000).toLocaleString("en", { maximumFractionDigits: 1 })} kB`;
}

// ---- the list ----

function clearList() {
  found = [];
  chosen = -1;
  list.replaceChildren();
  input.setAttribute("aria-expanded", "false");
  input.removeAttribute("aria-activedescendant");
}

function titleWithMark(title, typed) {
  const matches = title.toLowerCase().startsWith(typed.toLowerCase());
  if (!matches) return element("span", {}, title);
  return element("span", {}, element("mark", {}, title.slice(0, typed.length)), title.slice(typed.length));
}

function showList(answer, typed) {
  clearList();
  found = answer;
  answer.forEach(([title, first, last], index) => {
    const item = element("li", { role: "option", id: `result-${index}`, "aria-selected": "false", dir: "auto" });
    item.append(titleWithMark(title, typed), element("small", {}, size(last + 1 - first)));
    item.addEventListener("click", () => { choose(index); go(title); });
    list.append(item);
  });
  input.setAttribute("aria-expanded", String(answer.length > 0));
  if (answer.length === 0) say(`No title begins with “${typed}”.`);
  else if (answer.length === LIMIT) say(`The first ${LIMIT} titles. Type on for fewer.`);
  else say(answer.length === 1 ? "1 title" : `${answer.length} titles`);
}

function choose(index) {
  list.children[chosen]?.setAttribute("aria-selected", "false");
  chosen = index;
  const item = list.children[chosen];
  if (item === undefined) {
    input.removeAttribute("aria-activedescendant");
    return;
  }
  item.setAttribute("aria-selected", "true");
  input.setAttribute("aria-activedescendant", item.id);
  item.scrollIntoView({ block: "nearest" });
}

async function ask() {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const typed = input.value.trimStart();
  const length = [...typed].length;
  if (length < PREFIX_MIN) {
    clearList();
    say(length === 0 ? "" : "Three characters at least; Enter opens a title as it is.");
    return;
  }
  try {
    const answer = await fetch(`/offsets/${encodeURIComponent(typed)}?case=any&limit=${LIMIT}`, { signal });
    if (!answer.ok) throw new Error(`the server says ${answer.status}`);
    const titles = await answer.json();
    if (!signal.aborted) showList(titles, typed);
  } catch (error) {
    if (signal.aborted) return;
    clearList();
    say(`Cannot search: ${reason(error)}.`, true);
  }
}

function reason(error) {
  return error instanceof TypeError ? "the server does not answer" : error.message;
}

// ---- the article ----

function go(title) {
  const hash = `#${encodeURIComponent(title)}`;
  if (location.hash === hash) open();
  else location.hash = hash; // which opens it
}

function titleOfHash() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return location.hash.slice(1);
  }
}

function blank(heading, text, ...more) {
  article.replaceChildren(element("div", { class: "blank" }, element("strong", {}, heading), text, ...more));
}

async function open() {
  opening.abort();
  opening = new AbortController();
  const { signal } = opening;
  const title = titleOfHash();
  document.title = title ? `${title} – Wiki search` : "Wiki search";
  if (title === "") {
    article.setAttribute("aria-busy", "false");
    blank("Search the wiki", "Type the beginning of a title: it need not be in the right case.");
    return;
  }
  article.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(`/wiki/${encodeURIComponent(title)}`, { signal });
    const text = answer.ok ? await answer.text() : "";
    if (signal.aborted) return;
    if (answer.ok) showPage(text, title);
    else if (answer.status === 404 || answer.status === 400) blank("No such page", `There is no page “${title}”.`);
    else throw new Error(`the server says ${answer.status}`);
  } catch (error) {
    if (signal.aborted) return;
    const again = element("button", { type: "button" }, "Try again");
    again.addEventListener("click", open);
    blank("The page cannot be shown", `${reason(error)}.`, element("br"), again);
  }
  article.setAttribute("aria-busy", "false");
}

function showPage(xml, asked) {
  const parsed = new DOMParser().parseFromString(xml, "application/xml");
  if (parsed.querySelector("parsererror")) throw new Error("its XML is damaged");
  const textOf = (name) => parsed.querySelector(name)?.textContent ?? "";
  const title = textOf("page > title") || asked;
  const shown = [element("h2", { dir: "auto" }, title)];
  const edited = new Date(textOf("revision > timestamp"));
  const user = textOf("contributor > username") || textOf("contributor > ip");
  const source = element("a", { href: `/wiki/${encodeURIComponent(title)}` }, "XML");
  const about = element("p", { class: "about" });
  if (!Number.isNaN(edited.getTime())) {
    about.append(`Edited ${edited.toLocaleDateString("en", { dateStyle: "long" })}`);
    if (user) about.append(` by ${user}`);
    about.append(" · ");
  }
  about.append(`${size(new TextEncoder().encode(xml).length)} · `, source);
  shown.push(about);
  const target = parsed.querySelector("page > redirect")?.getAttribute("title");
  if (target) shown.push(element("p", { class: "redirect", dir: "auto" }, "Redirects to ", link(target, target)));
  else shown.push(...blocks(textOf("revision > text")));
  article.replaceChildren(...shown);
  article.scrollTop = 0;
}

// ---- wikitext, so far as a reader needs it; the rest is shown as it is ----

const INLINE = /'''(.+?)'''|''(.+?)''|\[\[([^[\]|]+)(?:\|([^[\]]*))?\]\]|\[(https?:\/\/[^\s\]]+)(?:\s+([^\]]*))?\]|(\{\{[^{}]*\}\}|<\/?[a-z][^<>]*>)/gis;
const DROPPED = /<!--.*?-->|<ref[^<>]*\/>|<ref[^<>]*>.*?<\/ref>/gs;

function link(target, text) {
  return element("a", { href: `#${encodeURIComponent(target.replaceAll("_", " ").trim())}` }, text);
}

const ENTITY = /&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|([a-z]+));/gi;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", ndash: "\u2013", mdash: "\u2014" };

// Last of all, so that what it gives is text and nothing else.
function unescape(text) {
  return text.replace(ENTITY, (whole, decimal, hex, name) => {
    if (name !== undefined) return Object.hasOwn(ENTITIES, name) ? ENTITIES[name] : whole;
    const code = decimal === undefined ? parseInt(hex, 16) : Number(decimal);
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}

function inline(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    parts.push(unescape(text.slice(end, match.index)));
    end = match.index + match[0].length;
    const [whole, bold, italic, target, label, url, caption] = match;
    if (bold !== undefined) parts.push(element("strong", {}, ...inline(bold)));
    else if (italic !== undefined) parts.push(element("em", {}, ...inline(italic)));
    else if (target !== undefined) parts.push(link(target.split("#")[0] || target, unescape(label || target)));
    else if (url !== undefined) parts.push(element("a", { href: url, rel: "noreferrer" }, unescape(caption || url)));
    else parts.push(element("code", {}, whole));
  }
  parts.push(unescape(text.slice(end)));
  return parts;
}

function block(text) {
  const heading = /^(={2,5})\s*(.+?)\s*\1$/.exec(text);
  if (heading) return element(`h${Math.min(heading[1].length + 1, 6)}`, { dir: "auto" }, ...inline(heading[2]));
  const lines = text.split("\n");
  if (lines.every((line) => /^[*#]/.test(line))) {
    return element("ul", { dir: "auto" }, ...lines.map((line) => element("li", {}, ...inline(line.replace(/^[*#:;]+\s*/, "")))));
  }
  if (/^(\{\{|\{\||<(pre|gallery|\/))|^ {2}/.test(text)) return element("pre", {}, text);
  return element("p", { dir: "auto" }, ...inline(text));
}

function blocks(wikitext) {
  // A heading ends with its line, whatever else ends with an empty one.
  const text = wikitext.replace(DROPPED, "").replace(/^=.*=$/gm, "\n$&\n");
  const parts = text.split(/\n{2,}/).map((part) => part.replace(/^\n+|\s+$/g, "")).filter(Boolean);
  return parts.length ? parts.map(block) : [element("p", { class: "about" }, "This page is empty.")];
}

// ---- keys ----

input.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(ask, PAUSE_MS);
});

input.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "ArrowDown" && found.length) choose(Math.min(chosen + 1, found.length - 1));
  else if (event.key === "ArrowUp" && found.length) choose(Math.max(chosen - 1, -1));
  else if (event.key === "Escape") {
    input.value = "";
    clearTimeout(timer);
    ask();
  } else return;
  event.preventDefault();
});

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const title = found[chosen]?.[0] ?? input.value.trim();
  if (title) go(title);
});

document.addEventListener("keydown", (event) => {
  const free = !event.ctrlKey && !event.metaKey && !event.altKey;
  if (event.key === "/" && free && document.activeElement !== input) {
    event.preventDefault();
    input.focus();
    input.select();
  }
});

window.addEventListener("hashchange", open);
open();
