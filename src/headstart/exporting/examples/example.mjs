// What is in a photo, with onnxruntime-web. In a browser: example.html. In Node.js:
//
//     npm install onnxruntime-web sharp
//     node example.mjs photo.jpg
//
// bundle.json beside this file says which labels the model has and how a photo is prepared for it.

const RADIUS = { nearest: 0, box: 0.5, bilinear: 1, hamming: 1, bicubic: 2, lanczos: 3 };
const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
const FILTER = {
  box: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0),
  bilinear: (x) => Math.max(0, 1 - Math.abs(x)),
  hamming: (x) => (Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x))),
  bicubic: (x) => {
    const a = -0.5;
    const d = Math.abs(x);
    if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
    return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
  },
  lanczos: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0),
};

// The model, ready to answer. `ort`: the module onnxruntime-web; `bytes`: model.onnx; `about`: bundle.json.
export async function openModel(ort, bytes, about) {
  if (globalThis.crypto?.subtle) {
    // Absent in a browser that did not load this page from https or this machine.
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (found !== about.files["model.onnx"]) throw new Error("model.onnx is not the one that bundle.json was written for");
  }
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  return async (picture) => {
    const px = about.preprocessing.input_px;
    const image = new ort.Tensor("uint8", prepare(picture, about.preprocessing), [1, px, px, 3]);
    const { logits } = await session.run({ image });
    return answer(Array.from(logits.data), about);
  };
}

// Shorter side resized, centre cut out: {width, height, data: RGBA or RGB bytes, channels} -> RGB bytes, px x px.
export function prepare({ width, height, data, channels }, { input_px: px, crop, interpolation }) {
  const resizePx = Math.floor(px / crop);
  const shorter = Math.min(width, height);
  const sides = [width, height].map((side) => {
    const whole = Math.max(resizePx, Math.trunc((resizePx * side) / shorter));
    const scale = side / whole;
    const start = halfToEven((whole - px) / 2) * scale;
    return weights(side, start, Math.min(side, start + px * scale), px, interpolation);
  });
  const rgb = overWhite(data, width * height, channels);
  const narrow = new Uint8ClampedArray(px * height * 3); // rows first, each pass rounded to 8 bits, as Pillow does
  for (let y = 0; y < height; y++)
    for (let x = 0; x < px; x++)
      for (let c = 0; c < 3; c++) narrow[(y * px + x) * 3 + c] = sum(sides[0][x], (i) => rgb[(y * width + i) * 3 + c]);
  const square = new Uint8ClampedArray(px * px * 3);
  for (let y = 0; y < px; y++)
    for (let x = 0; x < px; x++)
      for (let c = 0; c < 3; c++) square[(y * px + x) * 3 + c] = sum(sides[1][y], (i) => narrow[(i * px + x) * 3 + c]);
  return new Uint8Array(square.buffer);
}

// Which pixels of a line make each of the px new ones, and their share: Pillow's antialiased filters.
function weights(side, start, end, px, interpolation) {
  const scale = (end - start) / px;
  if (interpolation === "nearest")
    return Array.from({ length: px }, (_, i) => ({ from: Math.min(side - 1, Math.floor(start + (i + 0.5) * scale)), shares: [1] }));
  const stretch = Math.max(1, scale);
  const reach = RADIUS[interpolation] * stretch;
  return Array.from({ length: px }, (_, i) => {
    const centre = start + (i + 0.5) * scale;
    const from = Math.max(0, Math.trunc(centre - reach + 0.5));
    const to = Math.min(side, Math.trunc(centre + reach + 0.5));
    const raw = Array.from({ length: to - from }, (_, k) => FILTER[interpolation]((k + from - centre + 0.5) / stretch));
    const total = raw.reduce((a, b) => a + b, 0);
    return { from, shares: raw.map((share) => share / total) };
  });
}

const sum = ({ from, shares }, value) => Math.floor(shares.reduce((total, share, k) => total + share * value(from + k), 0.5));

function halfToEven(x) {
  const whole = Math.floor(x);
  return x - whole === 0.5 ? whole + (whole % 2) : Math.round(x);
}

function overWhite(data, n, channels) {
  if (channels === 3) return data;
  const rgb = new Uint8ClampedArray(3 * n);
  for (let i = 0; i < n; i++) {
    const alpha = data[4 * i + 3] / 255;
    for (let c = 0; c < 3; c++) rgb[3 * i + c] = data[4 * i + c] * alpha + 255 * (1 - alpha);
  }
  return rgb;
}

// {top: [{label, probability}, ...], known, labels}: as `headstart predict --format json` has them.
export function answer(logits, about, n = 3) {
  const exps = (values) => {
    const most = Math.max(...values);
    const found = values.map((value) => Math.exp(value - most));
    return { most, found, total: found.reduce((a, b) => a + b, 0) };
  };
  const scaled = exps(logits.map((logit) => logit / about.temperature));
  const probs = scaled.found.map((value) => value / scaled.total);
  const order = probs.map((_, i) => i).sort((a, b) => probs[b] - probs[a] || a - b);
  const own = exps(logits);
  const known = about.none_of_these ? -(own.most + Math.log(own.total)) <= about.none_of_these.threshold : null;
  const possible = order.filter((i, rank) => about.conformal && (rank === 0 || probs[i] >= about.conformal.threshold));
  return {
    top: order.slice(0, n).map((i) => ({ label: about.labels[i].name, probability: probs[i] })),
    known,
    labels: possible.map((i) => about.labels[i].name),
  };
}

export function inWords({ top, known, labels }) {
  const lines = top.map(({ label, probability }, i) => `${i + 1}: ${label} ${probability.toFixed(2)}`);
  if (known === false) return ["none of these; the nearest are", ...lines].join("\n");
  return (labels.length > 1 ? [...lines, `one of ${labels.join(", ")}`] : lines).join("\n");
}

// A browser's picture, upright and in its own colours, as `prepare` takes it.
export async function readBlob(blob) {
  const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { width, height, data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  return { width, height, data, channels: 4 };
}

async function main(photos) {
  const [{ readFile }, ort, { default: sharp }] = await Promise.all([import("node:fs/promises"), import("onnxruntime-web"), import("sharp")]);
  globalThis.crypto ??= (await import("node:crypto")).webcrypto; // before Node.js 20
  const beside = (name) => readFile(new URL(name, import.meta.url));
  const model = await openModel(ort, await beside("model.onnx"), JSON.parse(await beside("bundle.json")));
  for (const photo of photos) {
    const upright = sharp(photo, { ignoreIcc: true }).rotate().toColourspace("srgb").raw();
    const { data, info } = await upright.toBuffer({ resolveWithObject: true });
    console.log(`${photo}\n${inWords(await model({ width: info.width, height: info.height, data, channels: info.channels }))}`);
  }
}

const isNode = typeof process !== "undefined" && process.versions?.node;
if (isNode && import.meta.url === (await import("node:url")).pathToFileURL(process.argv[1] ?? "").href) await main(process.argv.slice(2));
