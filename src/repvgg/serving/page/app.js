// The page of `repvgg serve`: sends a picture to /predict, and shows what each network says.

const SIDE = 640; // pixels of a camera's picture that are sent; networks take fewer

const element = (id) => document.getElementById(id);
const [drop, input, picture, video, camera] = ["drop", "file", "picture", "video", "camera"].map(element);

let asked = 0; // requests so far; only the last one's answer is shown
let stream = null; // the camera's, while it is on

async function classify(content, name) {
  const request = (asked += 1);
  const form = new FormData();
  form.append("file", content, name);
  try {
    const response = await fetch("predict", { method: "POST", body: form });
    const answer = await response.json();
    if (request !== asked) return;
    if (response.ok) show(answer);
    else fail(answer.error);
  } catch {
    if (request === asked) fail("The server does not answer. Is it still running?");
  }
}

function show(answer) {
  say("");
  element("answers").replaceChildren(...answer.models.map(card));
  element("time").textContent =
    `${answer.width} x ${answer.height} pixels, answered in ${milliseconds(answer.milliseconds)}`;
}

function card({ model, classes, milliseconds: time, batch }) {
  const section = create("section");
  const together = batch > 1 ? ` for ${batch} pictures` : "";
  section.append(create("h2", model), create("p", milliseconds(time) + together));
  const list = create("ol");
  for (const { class: name, probability } of classes) {
    const item = create("li");
    item.dataset.probability = probability;
    item.style.setProperty("--part", `${100 * probability}%`);
    item.append(create("span", name), create("span", `${(100 * probability).toFixed(1)} %`));
    list.append(item);
  }
  section.append(list);
  return section;
}

function create(tag, text = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

function milliseconds(value) {
  return `${value.toFixed(value < 10 ? 1 : 0)} ms`;
}

function say(text, wrong = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", wrong);
}

function fail(message) {
  element("answers").replaceChildren();
  element("time").textContent = "";
  say(message, true);
}

function choose(file) {
  stop();
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(file);
  picture.hidden = false;
  video.hidden = true;
  drop.classList.add("filled");
  say("…");
  classify(file, file.name || "picture");
}

// What the browser itself cannot show (a TIFF) the server may still read.
picture.addEventListener("error", () => {
  picture.hidden = true;
  drop.classList.remove("filled");
});

input.addEventListener("change", () => {
  if (input.files.length) choose(input.files[0]);
  input.value = ""; // the same file may be chosen again
});
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
for (const end of ["dragleave", "drop"]) drop.addEventListener(end, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) choose(file);
});

async function watch() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    fail(`The camera cannot be used: ${error.message}`);
    return;
  }
  const own = stream;
  picture.hidden = true;
  video.hidden = false;
  video.srcObject = own;
  drop.classList.add("filled");
  pressed(true);
  await video.play();
  while (stream === own) await classify(await frame(), "camera.jpg");
}

function frame() {
  const scale = Math.min(1, SIDE / Math.max(video.videoWidth, video.videoHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(scale * video.videoWidth);
  canvas.height = Math.round(scale * video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}

// The last picture of the camera stays, with the last answer.
function stop() {
  if (!stream) return;
  video.pause();
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  pressed(false);
}

function pressed(on) {
  camera.setAttribute("aria-pressed", on);
  camera.textContent = on ? "Stop the camera" : "Use the camera";
}

camera.addEventListener("click", () => (stream ? stop() : watch()));
if (!navigator.mediaDevices) {
  camera.disabled = true;
  camera.textContent = "The camera needs https, or this machine’s own address";
}

const models = await (await fetch("models")).json();
element("about").textContent = models
  .map(({ name, classes, image_size }) => `${name}: ${classes.length} classes, ${image_size} pixels`)
  .join("; ");
