// The page of groups: searches while the user types, shows a group's metrics in place, and deletes after a confirmation.
// Everything else works without this script.
"use strict";

const root = document.documentElement.dataset.root;
const list = document.getElementById("list");
const form = document.getElementById("find");
const search = document.getElementById("search");
const dialog = document.getElementById("confirm");
const isHub = ["hub", "relay"].includes(document.documentElement.dataset.role);
const groupsTab = isHub || new URLSearchParams(location.search).has("tab") ? "?tab=groups" : location.pathname;
document.documentElement.classList.add("scripted");

function say(text) {
  const message = document.getElementById("message");
  message.textContent = text;
  message.hidden = !text;
}

async function fetched(url, options) {
  const response = await fetch(url, options);
  const text = await response.text();
  if (!response.ok) {
    throw new Error(text.trim().slice(0, 500) || response.status + " " + response.statusText);
  }
  return text;
}

// The server has escaped all pushed texts, and a parsed document runs no scripts.
function parsed(html) {
  return new DOMParser().parseFromString(html, "text/html");
}

// Search: one request at a time, always for the latest query.
let pending = null;
let running = null;

function query() {
  const parameters = new URLSearchParams();
  if (search.value.trim()) {
    parameters.set("q", search.value);
  }
  if (document.getElementById("failing").checked) {
    parameters.set("failing", "1");
  }
  for (const id of ["older", "sort"]) {
    const choice = document.getElementById(id);
    if (choice.selectedIndex > 0) {
      parameters.set(id, choice.value);
    }
  }
  return parameters;
}

function find(parameters = query()) {
  pending = parameters;
  running ??= answer().finally(() => {
    running = null;
  });
  return running;
}

async function answer() {
  while (pending) {
    const parameters = pending;
    pending = null;
    const address = parameters.size ? "?" + parameters : groupsTab;
    parameters.set("part", "list");
    try {
      const page = parsed(await fetched("?" + parameters));
      list.replaceChildren(...page.body.childNodes);
      history.replaceState(null, "", address);
      say("");
    } catch (error) {
      say("Cannot search: " + error.message);
    }
  }
}

form?.addEventListener("input", () => find());
form?.addEventListener("submit", (event) => {
  event.preventDefault();
  find().then(() => list.querySelector("summary")?.focus());
});

// The page stays as new as the node: it is loaded again every few seconds while somebody looks at it. A part in which the
// reader has the focus or has selected text stays as it is, and so do opened groups.
const REFRESH_MS = 4000;
const fresh = document.getElementById("fresh");
let freshTime = new Date();

// Rows of edges may have the focus: it returns to them.
function isInUse(element) {
  const at = document.activeElement;
  const selection = document.getSelection();
  const isTyped = element.contains(at) && !at.matches(".edge > details > summary");
  return isTyped || (selection?.type === "Range" && selection.intersectsNode(element));
}

// Opened rows stay open, with what they show. The details of edges are loaded again.
function keepOpened(before, after) {
  const rows = new Map();
  for (const row of after.querySelectorAll("[data-row]")) {
    rows.set(row.dataset.row, row);
  }
  for (const details of before.querySelectorAll("[data-row] > details[open]")) {
    const before = details.parentElement;
    const row = rows.get(before.dataset.row);
    const fresh = row?.querySelector("details");
    if (fresh && before.matches(".edge")) {
      details.querySelector("summary").replaceWith(fresh.querySelector("summary"));
    }
    fresh?.replaceWith(details);
    if (fresh && before.matches(".edge")) {
      load(details).catch(() => {});
    }
  }
}

// The row that has the focus has it again after its part was replaced.
function withFocus(part, replace) {
  const row = part.contains(document.activeElement) ? document.activeElement.closest("[data-row]")?.dataset.row : null;
  replace();
  if (row) {
    document.querySelector(`[data-row="${CSS.escape(row)}"] > details > summary`)?.focus({ preventScroll: true });
  }
}

function put(before, after) {
  const scrolled = before.querySelector(".wide")?.scrollLeft;
  withFocus(before, () => {
    keepOpened(before, after);
    before.replaceWith(after);
  });
  if (scrolled) {
    after.querySelector(".wide")?.scrollTo({ left: scrolled });
  }
}

function refreshed(page) {
  const main = document.getElementById("main");
  const groups = list?.closest("section") ?? null;
  const hasList = (part) => part.querySelector("#list") !== null;
  const parts = (of) => Array.from(of.getElementById("main").children).filter((part) => !hasList(part));
  const name = (part) => part.getAttribute("aria-labelledby") ?? part.id;
  const now = parts(page).map((part) => document.adoptNode(part));
  const old = new Map(parts(document).map((part) => [name(part), part]));
  for (const part of now) {
    const before = old.get(name(part));
    old.delete(name(part));
    if (!before) {
      main.insertBefore(part, groups);
    } else if (!isInUse(before)) {
      put(before, part);
    }
  }
  for (const part of old.values()) {
    if (!isInUse(part)) {
      part.remove();
    }
  }
  completed(main);
  if (list && !isInUse(list)) {
    const after = document.adoptNode(page.getElementById("list"));
    keepOpened(list, after);
    // A screen reader would read a new status aloud each time.
    const [count, next] = [list, after].map((part) => part.querySelector("#count"));
    if (count?.innerHTML === next?.innerHTML && count?.dataset.total === next?.dataset.total) {
      next?.replaceWith(count);
    }
    list.replaceChildren(...after.childNodes);
  }
}

async function refresh() {
  const address = location.href;
  try {
    const page = parsed(await fetched(address, { cache: "no-store" }));
    freshTime = new Date();
    // Meanwhile a search may have begun, or a question may be open.
    if (!running && !dialog.open && location.href === address) {
      refreshed(page);
    }
    fresh.textContent = "as of " + freshTime.toLocaleTimeString();
    fresh.className = "js";
  } catch (error) {
    fresh.textContent = "no answer since " + freshTime.toLocaleTimeString();
    fresh.className = "js bad";
  }
  fresh.hidden = false;
}

async function refreshAlways() {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, REFRESH_MS));
    if (document.visibilityState === "visible" && !running && !dialog.open) {
      await refresh();
    }
  }
}

if (document.querySelector("main > section")) {
  refreshAlways();
}

// Page links load only the list.
list?.addEventListener("click", (event) => {
  const link = event.target.closest(".pager a");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    find(new URL(link.href).searchParams).then(() => document.getElementById("count").focus());
  }
});

// The server cannot know under which scheme and name a proxy shows it.
function completed(element) {
  for (const base of element.querySelectorAll("[data-base]")) {
    base.textContent = new URL(root + "./", document.baseURI).href;
  }
  return element;
}

completed(document);

// A group's metrics are a page of their own. Its content replaces the link to it.
async function load(group) {
  group.dataset.source ??= group.querySelector(":scope > p > a").href;
  const article = parsed(await fetched(group.dataset.source)).querySelector("article");
  group.lastElementChild.replaceWith(completed(document.adoptNode(article)));
}

document.getElementById("main").addEventListener("toggle", (event) => {
  const group = event.target;
  if (group.open && group.parentElement.matches(".group") && !group.querySelector("article")) {
    load(group).catch((error) => say("Cannot load this: " + error.message));
  }
}, true);

document.addEventListener("keydown", (event) => {
  const at = document.activeElement;
  if (dialog.open || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  if (event.key === "/" && search && !at.matches("input:not([type=checkbox])")) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && (at === search || at.matches("summary"))) {
    const stops = [search, ...document.querySelectorAll("#list summary")].filter((stop) => stop?.checkVisibility());
    const next = stops[stops.indexOf(at) + (event.key === "ArrowDown" ? 1 : -1)];
    if (next) {
      event.preventDefault();
      next.focus();
    }
  }
});

// Asks for confirmation; Escape and Cancel mean no. The `close` event of a dialog arrives after it is closed, when the next
// question may be open. So a new question first answers the one before, and an event that finds the dialog open is ignored.
let answerQuestion = () => {};

function confirmed(title, text, what) {
  answerQuestion(dialog.returnValue === "delete");
  dialog.querySelector("button[value=delete]").textContent = title.split(" ")[0];
  document.getElementById("confirm-title").textContent = title;
  document.getElementById("confirm-text").textContent = text;
  document.getElementById("confirm-what").replaceChildren(...what);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    answerQuestion = resolve;
  });
}

dialog.addEventListener("close", () => {
  if (!dialog.open) {
    answerQuestion(dialog.returnValue === "delete");
  }
});

async function remove(button) {
  const row = button.closest(".group");
  const labels = (row ?? button.closest("article")).querySelector(".labels").cloneNode(true);
  if (!(await confirmed("Delete this group?", "This deletes all its metrics. It cannot be undone.", [labels]))) {
    return;
  }
  await fetched(root + "metrics/" + button.dataset.delete, { method: "DELETE" });
  if (!row) {
    location.assign(root + "./" + (isHub ? "?tab=groups" : ""));
    return;
  }
  const at = Array.from(row.parentElement.children).indexOf(row);
  await find(new URLSearchParams(location.search));
  const rows = list.querySelectorAll(".group");
  (rows[Math.min(at, rows.length - 1)]?.querySelector("summary") ?? search).focus();
}

// Deletes the groups that a selector matches, after the node has counted them.
async function removeFound(selector) {
  const address = root + "api/v1/groups?" + new URLSearchParams({ "match[]": selector });
  const counted = JSON.parse(await fetched(address + "&dry_run=true", { method: "DELETE" })).data;
  const where = isHub ? ", here and at the edges that sent them" : "";
  const series = counted.series.toLocaleString("en");
  const text = "These " + counted.total.toLocaleString("en") + " groups with " + series + " series are deleted" + where + ". It cannot be undone.";
  const what = document.createElement("code");
  what.textContent = selector;
  if (await confirmed("Delete the groups that were found?", text, [what])) {
    const deleted = JSON.parse(await fetched(address, { method: "DELETE" })).data.deleted;
    await find();
    say(deleted.toLocaleString("en") + (deleted === 1 ? " group was" : " groups were") + " deleted.");
    search.focus();
  }
}

async function wipe() {
  const total = Number(document.getElementById("count").dataset.total);
  const where = isHub ? ", here and at the edges that sent them" : "";
  const text = "All " + total.toLocaleString("en") + " groups are deleted, not only those found" + where + ". It cannot be undone.";
  if (await confirmed("Delete all groups?", text, [])) {
    await fetched(root + "api/v1/admin/wipe", { method: "PUT" });
    search.value = "";
    document.getElementById("failing").checked = false;
    await find();
    search.focus();
  }
}

// Takes an edge off the roll, or out of service. The page is loaded again: its state is in several places.
async function changeEdge(name, title, text, method, path) {
  const label = document.createElement("bdi");
  label.textContent = name;
  if (await confirmed(title, text, [label])) {
    await fetched(root + "api/v1/edges/" + encodeURIComponent(name) + path, { method });
    location.reload();
  }
}

function forget(name) {
  const text = "The hub shows it no more, and no alert waits for it. Its groups stay. It returns when it connects again.";
  return changeEdge(name, "Forget this edge?", text, "DELETE", "");
}

function retire(name) {
  const text = "Its link ends, the hub refuses it from now on, and no alert waits for it. Its groups stay. To undo this, forget the edge.";
  return changeEdge(name, "Retire this edge?", text, "PUT", "/retire");
}

// A page without TLS has no clipboard: then the text is selected.
async function copy(button) {
  const text = button.parentElement.querySelector("pre");
  try {
    await navigator.clipboard.writeText(text.textContent);
    say("Copied.");
  } catch {
    getSelection().selectAllChildren(text);
    say("Selected: copy it with the keyboard.");
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  const failed = (error) => say("Not deleted: " + error.message);
  if (button?.id === "wipe") {
    wipe().catch(failed);
  } else if (button?.dataset.deleteFound) {
    removeFound(button.dataset.deleteFound).catch(failed);
  } else if (button?.dataset.delete) {
    remove(button).catch(failed);
  } else if (button && "copy" in button.dataset) {
    copy(button);
  } else if (button?.dataset.forget) {
    forget(button.dataset.forget).catch((error) => say("Not forgotten: " + error.message));
  } else if (button?.dataset.retire) {
    retire(button.dataset.retire).catch((error) => say("Not retired: " + error.message));
  }
});
