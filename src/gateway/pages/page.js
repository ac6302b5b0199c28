// The page of groups: loads a group's metrics when it is opened, searches, and deletes after asking.
"use strict";

const root = document.documentElement.dataset.root;
const list = document.getElementById("list");
const search = document.getElementById("search");
const count = document.getElementById("count");
// What is searched, read off the page when it is first needed.
let groups = null;

function say(text) {
  const message = document.getElementById("message");
  if (message) {
    message.textContent = text;
    message.hidden = !text;
  } else if (text) {
    alert(text);
  }
}

async function load(group) {
  // The link is there until what it leads to takes its place.
  group.dataset.source ??= group.querySelector(":scope > p > a").href;
  const response = await fetch(group.dataset.source);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const article = page.querySelector("article");
  if (!response.ok || !article) {
    throw new Error(page.body.textContent.trim() || response.statusText);
  }
  group.lastElementChild.replaceWith(document.adoptNode(article));
}

list?.addEventListener("toggle", (event) => {
  const group = event.target;
  if (group.open) {
    load(group).catch((error) => say("Cannot load this group: " + error.message));
  }
}, true);

function filter() {
  groups ??= Array.from(list.children, (node) => ({ node, text: node.firstElementChild.textContent.toLowerCase() }));
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const { node, text } of groups) {
    const hidden = !words.every((word) => text.includes(word));
    if (node.hidden !== hidden) {
      node.hidden = hidden;
    }
    shown += hidden ? 0 : 1;
  }
  count.textContent = words.length ? shown + " of " + groups.length : groups.length;
}

let pending = 0;
search?.addEventListener("input", () => {
  cancelAnimationFrame(pending);
  pending = requestAnimationFrame(filter);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && search && !/^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName)) {
    event.preventDefault();
    search.focus();
  }
});
if (search?.value) {
  filter();
}

async function request(method, path) {
  const response = await fetch(root + path, { method });
  if (!response.ok) {
    throw new Error((await response.text()).trim() || response.statusText);
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  try {
    if (button?.id === "wipe" && confirm("Delete all groups? Nothing brings them back.")) {
      await request("PUT", "api/v1/admin/wipe");
      location.reload();
    } else if (button?.dataset.delete && confirm("Delete this group? Nothing brings it back.")) {
      await request("DELETE", "metrics/" + button.dataset.delete);
      location.assign(root + "./");
    }
  } catch (error) {
    say("Not deleted: " + error.message);
  }
});
