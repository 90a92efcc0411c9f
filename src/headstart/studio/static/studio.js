// What the pages cannot do without a script: photos and folders that are dropped, and times in the reader's own words.
"use strict";

const AT_ONCE = 3; // uploads beside each other

function tell(text) {
  const told = document.getElementById("told");
  if (told) told.textContent = text;
}

async function send(url, file, method = "PUT") {
  const answer = await fetch(url, { method, body: file, headers: { "Content-Type": "application/octet-stream" } });
  if (answer.ok) return null;
  const text = await answer.text();
  try { return JSON.parse(text).reason ?? text; } catch { return text; }
}

// Send photos to one class and say how it goes; `place` is where.
async function upload(files, url, place) {
  const refused = [];
  let done = 0;
  const bar = document.createElement("progress");
  bar.max = files.length;
  bar.value = 0;
  bar.setAttribute("aria-label", "Adding photos");
  place.replaceChildren(bar);
  const waiting = [...files];
  const work = async () => {
    for (let file = waiting.shift(); file; file = waiting.shift()) {
      let reason;
      try { reason = await send(`${url}?name=${encodeURIComponent(file.name)}`, file); } catch { reason = "the studio does not answer"; }
      if (reason) refused.push([file.name, reason]);
      bar.value = ++done;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  const card = url.replace(/\/photos$/, "");
  await htmx.ajax("GET", card, { target: `[data-card="${card}"]`, swap: "outerHTML" }).catch(() => {});
  const n = files.length - refused.length;
  const after = document.querySelector(`[data-card="${card}"] .upload`) ?? place;
  report(after, n, refused);
  return n;
}

function report(place, n, refused) {
  const words = `${n} ${n === 1 ? "photo" : "photos"} added${refused.length ? `, ${refused.length} not` : ""}.`;
  place.replaceChildren(document.createTextNode(words));
  if (!refused.length) return;
  const list = document.createElement("ul");
  for (const [name, reason] of refused.slice(0, 20)) {
    const item = document.createElement("li");
    item.textContent = `${name}: ${reason}`;
    list.append(item);
  }
  place.append(list);
}

// Dropped things as [folder name or "", file]: of a folder, every file in it, however deep.
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ["", file]);
  const found = [];
  const read = (reader) => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
  const file = (entry) => new Promise((resolve, reject) => entry.file(resolve, reject));
  const walk = async (entry, folder) => {
    if (entry.name.startsWith(".")) return;
    if (entry.isFile) { found.push([folder, await file(entry)]); return; }
    const reader = entry.createReader();
    const inside = [];
    for (let some = await read(reader); some.length; some = await read(reader)) inside.push(...some);
    const holdsPhotos = inside.some((each) => each.isFile && !each.name.startsWith("."));
    for (const each of inside) await walk(each, folder || (holdsPhotos ? entry.name : ""));
  };
  for (const entry of entries) await walk(entry, "");
  return found;
}

// Folders dropped anywhere on the page: each becomes a class.
async function addFolders(files, url) {
  const byFolder = new Map();
  for (const [folder, file] of files) byFolder.set(folder, [...(byFolder.get(folder) ?? []), file]);
  const place = document.getElementById("folders");
  const loose = byFolder.get("") ?? [];
  byFolder.delete("");
  if (loose.length && !byFolder.size) {
    place.textContent = "Drop photos onto a class, or a folder of them onto the page.";
    return;
  }
  for (const [folder, photos] of byFolder) {
    const answer = await fetch(url, { method: "POST", body: new URLSearchParams({ name: folder }), headers: { Accept: "application/json" } });
    const made = await answer.json();
    if (!answer.ok) { place.textContent = `${folder}: ${made.reason}`; continue; }
    place.textContent = `Adding ${folder}…`;
    const status = document.createElement("div");
    place.append(status);
    await upload(photos, `${url}/${made.id}/photos`, status);
  }
  location.reload();
}

async function tryPhoto(file, zone) {
  const place = document.getElementById("tried");
  place.replaceChildren(Object.assign(document.createElement("p"), { className: "fine", textContent: "Looking…" }));
  try {
    const answer = await fetch(zone.dataset.try, { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream", "HX-Request": "true" } });
    const text = await answer.text();
    if (answer.ok) place.innerHTML = text; // made by the studio's own templates, which escape
    else place.textContent = text;
  } catch { place.textContent = "The studio does not answer."; }
}

const zoneOf = (event) => event.target.closest?.("[data-drop], [data-try]") ?? null;

document.addEventListener("dragover", (event) => {
  if (![...event.dataTransfer.types].includes("Files")) return;
  event.preventDefault();
  document.querySelectorAll(".over").forEach((each) => each.classList.remove("over"));
  (zoneOf(event) ?? document.querySelector("[data-folders]"))?.classList.add("over");
});
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.querySelectorAll(".over").forEach((each) => each.classList.remove("over")); });
document.addEventListener("drop", async (event) => {
  if (![...event.dataTransfer.types].includes("Files")) return;
  event.preventDefault();
  document.querySelectorAll(".over").forEach((each) => each.classList.remove("over"));
  const zone = zoneOf(event);
  const files = await dropped(event.dataTransfer);
  if (!files.length) return;
  const folders = document.querySelector("[data-folders]");
  if (zone?.dataset.try) tryPhoto(files[0][1], zone);
  else if (zone && !(folders && files.some(([folder]) => folder))) upload(files.map(([, file]) => file), zone.dataset.drop, zone.querySelector(".upload"));
  else if (folders) addFolders(files, folders.dataset.folders);
});

document.addEventListener("change", (event) => {
  const input = event.target;
  if (input.type !== "file" || !input.files.length) return;
  if (input.dataset.upload) upload(input.files, input.dataset.upload, input.closest(".class").querySelector(".upload"));
  if ("tryInput" in input.dataset) tryPhoto(input.files[0], input.closest("[data-try]"));
});

document.addEventListener("paste", (event) => {
  const zone = document.querySelector("[data-try]");
  const file = event.clipboardData?.files[0];
  if (zone && file) tryPhoto(file, zone);
});

// A browser has six connections to a host for all its tabs, and each tab would hold one for its events: only a tab that is seen does.
let events = null;
let paused = false;
function pause() {
  paused = true;
  events.close();
}
htmx.createEventSource = (url) => {
  events = new EventSource(url);
  if (document.hidden) pause();
  return events;
};
document.addEventListener("visibilitychange", () => {
  if (events && document.hidden) pause();
  if (!paused || document.hidden) return;
  paused = false;
  events.onerror(new Event("error")); // as after a lost connection: the extension makes another one, for all that listens
  const content = document.querySelector("#content[hx-trigger]"); // a job that ended meanwhile was not heard
  if (content) htmx.trigger(content, "sse:finished");
});

// Times as people here write them.
function times(root) {
  for (const time of root.querySelectorAll("time[data-when]")) {
    const at = new Date(time.dateTime);
    if (!isNaN(at)) time.textContent = at.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  }
}
times(document);
document.addEventListener("htmx:afterSettle", (event) => times(event.target));
document.addEventListener("htmx:responseError", (event) => {
  tell(event.detail.xhr.responseText || "That did not work.");
  const told = document.getElementById("told"); // to be seen, too, until something else is told
  if (!told) return;
  told.className = "problem";
  told.scrollIntoView({ block: "nearest" });
});
