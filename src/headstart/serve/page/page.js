"use strict";
// The page at /: photos go to v1/predict and v1/explain beside it. Every text is set as text, never as HTML.

const TOP = 5;
const AT_ONCE = 2; // photos on their way at a time; the others wait here rather than in the server's queue
const TRIES = 5; // when the server is busy
const byId = (id) => document.getElementById(id);
const waiting = [];
let running = 0;
let token = sessionStorage.getItem("headstart-token");
let afterToken = null;

class Problem extends Error {}

async function ask(path, options = {}) {
  for (let attempt = 1; ; attempt++) {
    const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch {
      throw new Problem("The server cannot be reached.");
    }
    if ((response.status === 429 || response.status === 503) && attempt < TRIES) {
      const seconds = Math.min(10, Number(response.headers.get("Retry-After")) || 1);
      await new Promise((done) => setTimeout(done, 1000 * seconds));
      continue;
    }
    if (response.status === 401) {
      await askForToken();
      continue;
    }
    const answer = await response.json().catch(() => ({ error: `The server answered ${response.status}.` }));
    if (!response.ok) throw new Problem(sentence(answer.error));
    return answer;
  }
}

function askForToken() {
  if (afterToken === null) {
    let done;
    const given = new Promise((resolve) => { done = resolve; });
    afterToken = { given, done };
    byId("token-form").hidden = false;
    say(token ? "That was not the server's token." : "", Boolean(token));
    byId("token").focus();
  }
  return afterToken.given;
}

function say(text, wrong = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("wrong", wrong);
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (text.endsWith(".") ? "" : ".");
const percent = (share) => (share > 0 && share < 0.005 ? "under 1 %" : `${Math.round(100 * share)} %`);
const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value)).toString();

function add(files) {
  const photos = [...files].filter((file) => file.size > 0 || file.type);
  const before = byId("results").firstElementChild; // newest first, but those that came together in their own order
  for (const file of photos) waiting.push(newResult(file, before));
  if (photos.length > 0) say(photos.length === 1 ? "Looking at the photo…" : `Looking at ${photos.length} photos…`);
  next();
}

function newResult(file, before) {
  const item = byId("result").content.cloneNode(true).firstElementChild;
  const seen = item.querySelector(".seen");
  const url = URL.createObjectURL(file);
  seen.src = url;
  seen.alt = `Your photo ${file.name}`;
  seen.addEventListener("error", () => { item.classList.add("unseen"); }); // a kind of photo that this browser does not show
  item.querySelector(".answer").textContent = "…";
  item.querySelector(".file").textContent = file.name;
  item.querySelector(".where").hidden = true;
  const result = { file, item, model: byId("model").value, gone: false };
  item.querySelector(".remove").addEventListener("click", () => {
    result.gone = true;
    const after = item.nextElementSibling || item.previousElementSibling;
    item.remove();
    URL.revokeObjectURL(url);
    (after ? after.querySelector(".remove") : byId("pick")).focus();
  });
  item.querySelector(".where").addEventListener("click", () => toggleHeat(result));
  byId("results").insertBefore(item, before);
  return result;
}

async function next() {
  while (running < AT_ONCE && waiting.length > 0) {
    const result = waiting.shift();
    if (result.gone) continue;
    running++;
    answer(result).finally(() => { running--; next(); });
  }
}

async function answer(result) {
  try {
    const found = await ask(`v1/predict?${query({ model: result.model, top: TOP })}`, {
      method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: result.file,
    });
    show(result, found.predictions[0]);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    result.item.classList.add("wrong");
    result.item.querySelector(".answer").textContent = error.message;
    say(`${result.file.name}: ${error.message}`, true);
  }
}

function show(result, found) {
  const { item } = result;
  const title = item.querySelector(".answer");
  const unknown = found.known === false;
  title.textContent = unknown ? "None of these " : `${found.label} `;
  const sure = document.createElement("span");
  sure.className = "sure";
  sure.textContent = unknown ? "" : percent(found.probability);
  title.append(sure);
  item.classList.toggle("unknown", unknown);
  const note = item.querySelector(".note");
  note.hidden = !unknown;
  note.textContent = unknown ? `It looks like nothing that this model knows. The nearest is ${found.label}.` : "";
  item.querySelector(".bars").replaceChildren(...found.top.map(bar));
  const set = item.querySelector(".set");
  set.hidden = unknown || found.labels.length < 2;
  set.textContent = `It may well be one of: ${found.labels.join(", ")}.`;
  const where = item.querySelector(".where");
  where.hidden = false;
  where.setAttribute("aria-label", `Show where it looked in ${result.file.name}`);
  say(`${result.file.name}: ${unknown ? "none of these" : `${found.label}, ${percent(found.probability)}`}.`);
}

function bar({ label, probability }) {
  const row = document.createElement("li");
  const name = document.createElement("bdi");
  name.textContent = label;
  const value = document.createElement("span");
  value.className = "value";
  value.textContent = percent(probability);
  const track = document.createElement("div");
  track.className = "track";
  track.setAttribute("aria-hidden", "true"); // the number says it
  const fill = document.createElement("div");
  fill.className = "fill";
  fill.style.width = `${100 * probability}%`;
  track.append(fill);
  row.append(name, value, track);
  return row;
}

async function toggleHeat(result) {
  const { item, file } = result;
  const [button, heat, seen, words] = [".where", ".heat", ".seen", ".heat-words"].map((name) => item.querySelector(name));
  if (button.getAttribute("aria-pressed") === "true") {
    setHeat(false);
    return;
  }
  if (button.getAttribute("aria-busy") === "true") return;
  if (!heat.src) {
    button.setAttribute("aria-busy", "true"); // not disabled: that would take the keyboard's focus away
    say("Hiding parts of the photo, one after the other…");
    try {
      const found = await ask(`v1/explain?${query({ model: result.model })}`, {
        method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file,
      });
      heat.src = `data:image/png;base64,${found.png}`;
      heat.alt = `The photo in grey; in colour, the places that speak for ${found.label}`;
      words.textContent = found.found
        ? `Bright places speak for ${found.label}: ${percent(found.probability)}, and ${percent(found.probability_hidden)} with the whole photo hidden.`
        : `No place in the photo speaks for ${found.label}.`;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      say(error.message, true);
      return;
    } finally {
      button.removeAttribute("aria-busy");
    }
  }
  setHeat(true);
  say(words.textContent);

  function setHeat(on) {
    button.setAttribute("aria-pressed", String(on));
    heat.hidden = !on;
    seen.hidden = on;
    words.hidden = !on;
  }
}

async function openWebcam() {
  try {
    byId("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    say("The webcam is not there, or the browser may not use it.", true);
    return;
  }
  byId("viewfinder").hidden = false;
  await byId("video").play();
  byId("snap").focus();
}

function closeWebcam() {
  const stream = byId("video").srcObject;
  if (stream) for (const track of stream.getTracks()) track.stop();
  byId("video").srcObject = null;
  byId("viewfinder").hidden = true;
  byId("webcam").focus();
}

function snap() {
  const video = byId("video");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  const name = `webcam ${new Date().toLocaleTimeString()}`;
  canvas.toBlob((blob) => add([new File([blob], name, { type: blob.type })]), "image/jpeg", 0.92);
}

async function showModel() {
  const model = await ask(`v1/model?${query({ model: byId("model").value })}`);
  const facts = [
    ["Labels", model.labels.length], ["Input", `${model.preprocessing.input_px} px`], ["Backbone", model.provenance.backbone?.name],
    ["Trained", model.provenance.finished?.slice(0, 10)], ["Licence of the backbone's weights", model.licence], ["Version", model.version],
  ];
  byId("facts").replaceChildren(...facts.filter(([, value]) => value).map(([name, value]) => {
    const row = document.createElement("div");
    const [term, meaning] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    meaning.textContent = value;
    row.append(term, meaning);
    return row;
  }));
  byId("labels").replaceChildren(...model.labels.map(({ name }) => {
    const row = document.createElement("li");
    row.textContent = name;
    return row;
  }));
  byId("card-part").hidden = !model.card;
  byId("card").textContent = model.card ? model.card.replace(/^---\n[\s\S]*?\n---\n/, "").trim() : "";
  byId("about").hidden = false;
}

async function start() {
  const { models } = await ask("v1/models");
  const several = models.length > 1;
  const choice = byId("model");
  choice.replaceChildren(...models.map(({ name }) => new Option(name, name)));
  choice.hidden = !several;
  document.querySelector("label[for=model]").hidden = !several;
  byId("model-name").textContent = several ? "" : models[0].name;
  document.title = `${models[0].name} · headstart`;
  await showModel();
}

function failed(error) {
  say(error instanceof Problem ? error.message : "The page failed; reload it.", true);
  if (!(error instanceof Problem)) throw error;
}

byId("pick").addEventListener("click", () => byId("files").click());
byId("capture").addEventListener("click", () => byId("camera").click());
for (const input of [byId("files"), byId("camera")]) {
  input.addEventListener("change", () => { add(input.files); input.value = ""; });
}
byId("webcam").addEventListener("click", openWebcam);
byId("snap").addEventListener("click", snap);
byId("stop").addEventListener("click", closeWebcam);
byId("model").addEventListener("change", () => showModel().catch(failed));
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  sessionStorage.setItem("headstart-token", token);
  byId("token-form").hidden = true;
  say("");
  const { done } = afterToken;
  afterToken = null;
  done();
});
document.addEventListener("paste", (event) => add(event.clipboardData.files));
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    byId("drop").classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (kind === "dragleave" && event.relatedTarget !== null) return;
    byId("drop").classList.remove("over");
  });
}
document.addEventListener("drop", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  add(event.dataTransfer.files);
});

const phone = matchMedia("(pointer: coarse) and (hover: none)").matches;
byId("capture").hidden = !phone;
byId("webcam").hidden = phone || !window.isSecureContext || !navigator.mediaDevices?.getUserMedia;
start().catch(failed);
