// Classifies a picture with an ONNX file of `repvgg export`. docs/serving.md says how the files come here.

const RUNTIME = new URL("node_modules/onnxruntime-web/dist/", import.meta.url).href;
const MODEL = new URL("model.onnx", import.meta.url).href;
const METADATA = new URL("model.json", import.meta.url).href;
const SHOWN = 5;

// ---- From a picture to the network's input -------------------------------------------------------------------------

/** Decoded pixels of an image file, the way up it was taken, without colour management, as Pillow gives them. */
export async function decode(file) {
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(file, options);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

/** One or three bytes a pixel from RGBA; grey by the weights of ITU-R 601, in 16 bits. */
export function withChannels({ data, width, height }, channels) {
  const pixels = new Uint8Array(width * height * channels);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    const [red, green, blue] = [data[from], data[from + 1], data[from + 2]];
    if (channels === 1) {
      pixels[to++] = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16;
    } else {
      pixels[to++] = red;
      pixels[to++] = green;
      pixels[to++] = blue;
    }
  }
  return { data: pixels, width, height, channels };
}

/**
 * Resizes as Pillow's BILINEAR does, to the bit: a triangle that widens with the factor, so that every source pixel
 * counts; one axis after the other, each rounded to 8 bits. (A canvas's own resize differs by browser and setting.)
 */
export function resize(image, width, height) {
  // Since Pillow 13 rows come first where there are many more of them to lose.
  const fewerRows = image.height - height;
  if (fewerRows > Math.max(0, 2 * (image.width - width))) return resizeColumns(resizeRows(image, height), width);
  return resizeRows(resizeColumns(image, width), height);
}

const BITS = 22;

/** For each of `size` places: the first source pixel that counts, and the weights from there on, in 22 bits. */
function weights(sourceSize, size) {
  const scale = sourceSize / size;
  const reach = Math.max(scale, 1);
  return Array.from({ length: size }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(sourceSize, Math.trunc(centre + reach + 0.5));
    const triangle = [];
    for (let source = first; source < end; source++) {
      triangle.push(Math.max(0, 1 - Math.abs((source - centre + 0.5) * (1 / reach))));
    }
    const sum = triangle.reduce((total, weight) => total + weight, 0);
    return { first, parts: triangle.map((weight) => Math.trunc(0.5 + (weight / sum) * 2 ** BITS)) };
  });
}

function resizeColumns({ data, width, height, channels }, newWidth) {
  const result = new Uint8Array(newWidth * height * channels);
  const columns = weights(width, newWidth);
  for (let row = 0, to = 0; row < height; row++) {
    for (const { first, parts } of columns) {
      for (let channel = 0; channel < channels; channel++) {
        const source = (row * width + first) * channels + channel;
        let sum = 2 ** (BITS - 1);
        for (let part = 0; part < parts.length; part++) sum += parts[part] * data[source + part * channels];
        result[to++] = sum >> BITS;
      }
    }
  }
  return { data: result, width: newWidth, height, channels };
}

function resizeRows({ data, width, height, channels }, newHeight) {
  const stride = width * channels;
  const result = new Uint8Array(newHeight * stride);
  weights(height, newHeight).forEach(({ first, parts }, row) => {
    for (let column = 0; column < stride; column++) {
      let sum = 2 ** (BITS - 1);
      for (let part = 0; part < parts.length; part++) sum += parts[part] * data[(first + part) * stride + column];
      result[row * stride + column] = sum >> BITS;
    }
  });
  return { data: result, width, height: newHeight, channels };
}

/** Python's `round`: a half goes to the even neighbour. */
function round(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** The centre of the picture, its shorter side resized, as the network was trained to see it: (crop, crop, channels). */
export function prepare(decoded, { crop, resize: shorter, mean }) {
  const image = withChannels(decoded, mean.length);
  const scale = shorter / Math.min(image.width, image.height);
  const [width, height] = [image.width, image.height].map((side) => Math.max(crop, round(side * scale)));
  const resized = resize(image, width, height);
  const [left, top] = [round((width - crop) / 2), round((height - crop) / 2)];
  const stride = crop * image.channels;
  const pixels = new Uint8Array(crop * stride);
  for (let row = 0; row < crop; row++) {
    const start = ((top + row) * width + left) * image.channels;
    pixels.set(resized.data.subarray(start, start + stride), row * stride);
  }
  return pixels;
}

// ---- The network ---------------------------------------------------------------------------------------------------

/** Loads runtime and network; the result maps decoded pixels to the probabilities of all classes. */
export async function loadClassifier() {
  const answer = await fetch(METADATA);
  if (!answer.ok) throw new Error("There is no model.json beside this page. prepare.py puts it here, with the network.");
  const metadata = await answer.json();
  const ort = await import(`${RUNTIME}ort.wasm.min.mjs`);
  ort.env.wasm.wasmPaths = RUNTIME;
  // More than one thread needs the server's leave: the two headers of cross-origin isolation.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? 0 : 1;
  const session = await ort.InferenceSession.create(MODEL, { executionProviders: ["wasm"] });

  return async (decoded) => {
    const pixels = prepare(decoded, metadata.preprocessing);
    const outputs = await session.run({ images: asTensor(ort, pixels, metadata) });
    const scores = Array.from(outputs[session.outputNames[0]].data);
    const probabilities = metadata.output === "logits" ? softmax(scores) : scores;
    return probabilities.map((probability, place) => ({ name: metadata.class_names?.[place] ?? `${place}`, probability }));
  };
}

function asTensor(ort, pixels, { input, preprocessing: { crop, mean, std } }) {
  const channels = mean.length;
  if (input === "uint8") return new ort.Tensor("uint8", pixels, [1, crop, crop, channels]);
  // Written without --with-preprocessing: normalized, and channels first. Each step is rounded to float32, as NumPy does:
  // INT8 rounds to whole numbers next, and a value halfway between two goes another way for the last bit.
  const f = Math.fround;
  const values = new Float32Array(pixels.length);
  pixels.forEach((pixel, place) => {
    const channel = place % channels;
    const normalized = f(f(f(pixel / 255) - f(mean[channel])) / f(std[channel]));
    values[channel * crop * crop + (place - channel) / channels] = normalized;
  });
  return new ort.Tensor("float32", values, [1, channels, crop, crop]);
}

function softmax(logits) {
  const largest = logits.reduce((first, second) => Math.max(first, second));
  const powers = logits.map((logit) => Math.exp(logit - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

// ---- The page ------------------------------------------------------------------------------------------------------

const element = (id) => document.getElementById(id);

function say(text, isError = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", isError);
}

function showPicture(decoded) {
  const canvas = element("picture");
  [canvas.width, canvas.height] = [decoded.width, decoded.height];
  canvas.getContext("2d").putImageData(decoded, 0, 0);
  canvas.style.imageRendering = decoded.width < 100 ? "pixelated" : "auto";
  canvas.hidden = false;
  element("drop").classList.add("filled");
}

function showClasses(classes) {
  const best = [...classes].sort((first, second) => second.probability - first.probability).slice(0, SHOWN);
  element("classes").replaceChildren(
    ...best.map(({ name, probability }) => {
      const item = document.createElement("li");
      item.style.setProperty("--part", `${100 * probability}%`);
      item.dataset.probability = probability;
      const [label, number] = [document.createElement("span"), document.createElement("span")];
      label.textContent = name;
      number.textContent = `${(100 * probability).toFixed(1)} %`;
      item.append(label, number);
      return item;
    }),
  );
}

async function start() {
  const classify = await loadClassifier();
  say("");
  const input = element("file");
  const drop = element("drop");

  async function classifyFile(file) {
    if (!file) return;
    say("Looking…");
    element("classes").replaceChildren();
    element("time").textContent = "";
    let decoded;
    try {
      decoded = await decode(file);
    } catch {
      say(`“${file.name}” is not a picture that this browser can read.`, true);
      return;
    }
    showPicture(decoded);
    const begin = performance.now();
    const classes = await classify(decoded);
    const milliseconds = performance.now() - begin;
    showClasses(classes);
    element("time").textContent = `${milliseconds.toFixed(0)} ms in this browser`;
    say("");
  }

  async function classifySafely(file) {
    if (input.disabled) return; // One picture after the other.
    input.disabled = true;
    await classifyFile(file).catch((error) => say(`${error.message ?? error}`, true));
    input.disabled = false;
  }

  input.addEventListener("change", () => classifySafely(input.files[0]));
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    classifySafely(event.dataTransfer.files[0]);
  });
  input.disabled = false;
}

start().catch((error) => say(`${error.message ?? error}`, true));
