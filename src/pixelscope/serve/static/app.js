// Parts of a page that change without a reload, and the canvas. The pages have no inline script.
"use strict";

// Parts: a form or button with data-into="#part" fetches HTML into that part; with data-replace, in place of it.

function showProblem(part, text) {
  const note = document.createElement("p");
  note.className = "note problem";
  note.role = "alert";
  note.textContent = text;
  part.replaceChildren(note);
}

function show(part, html, replace) {
  const focused = document.activeElement.id;
  if (replace) part.outerHTML = html; else part.innerHTML = html;
  if (!focused || document.activeElement !== document.body) return;
  (document.getElementById(focused) ?? document.getElementById(part.id)).focus();
}

// Fetches `address` and shows it; `sender` is discarded if it has left the page meanwhile.
async function load(address, sender, options = {}) {
  let response, text;
  try {
    response = await fetch(address, { ...options, headers: { "X-Fragment": "1" } });
    text = await response.text();
  } catch {
    response = null;
  }
  const part = document.querySelector(sender.dataset.into);
  if (!part || !sender.isConnected) return;
  const html = response?.headers.get("content-type")?.startsWith("text/html");
  if (html) show(part, text, response.ok && "replace" in sender.dataset);
  else if (response) showProblem(part, text);
  else if (!sender.dataset.poll) showProblem(part, "The app does not answer; start it again with pixelscope serve.");
}

function send(form) {
  const values = new FormData(form);
  if (form.method === "post") return load(form.action, form, { method: "POST", body: values });
  return load(`${form.action}?${new URLSearchParams(values)}`, form);
}

// Sends a form once at a time; of the changes meanwhile, only the last is sent.
const pending = new WeakMap();
async function submit(form) {
  if (pending.has(form)) { pending.set(form, true); return; }
  do {
    pending.set(form, false);
    await send(form);
  } while (pending.get(form));
  pending.delete(form);
}

document.addEventListener("submit", (event) => {
  if (!event.target.dataset.into) return;
  event.preventDefault();
  submit(event.target);
});

document.addEventListener("input", (event) => {
  const input = event.target;
  const output = input.type === "range" ? document.querySelector(`output[for="${input.id}"]`) : null;
  if (output) output.value = Number(input.value).toFixed(2);
  if ("reloads" in input.dataset) input.form.submit();
  else if (input.closest("[data-live]")) submit(input.form);
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-load]");
  if (!button) return;
  const values = new URLSearchParams(new FormData(button.form));
  if ("seed" in button.dataset) values.set("seed", crypto.getRandomValues(new Uint32Array(1))[0] >>> 1);
  load(`${button.dataset.load}?${values}`, button);
});

async function poll() {
  const part = document.querySelector("[data-poll]");
  if (!part) return;
  await load(part.dataset.poll, part);
  setTimeout(poll, 2000);
}
setTimeout(poll, 2000);

document.querySelectorAll("[data-drop]").forEach((zone) => {
  const input = zone.querySelector("input[type=file]");
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer.files.length) {
      input.files = event.dataTransfer.files;
      input.dispatchEvent(new Event("input", { bubbles: true }));
    }
  });
});

const form = document.getElementById("adapt");
if (form) {
  const drawing = document.getElementById("drawing");
  const file = document.getElementById("image");
  const examples = form.querySelectorAll("input[name=example]");

  // Keeps one of the three inputs and empties the others.
  const keepOnly = (kept) => {
    if (kept !== "drawing") drawing.value = "";
    if (kept !== "image") file.value = "";
    if (kept !== "example") examples.forEach((example) => { example.checked = false; });
  };

  form.addEventListener("input", (event) => {
    const name = event.target.name;
    if (name === "image" || name === "example") keepOnly(name);
    if (drawing.value || file.value || form.querySelector("input[name=example]:checked")) submit(form);
  });

  const canvas = document.getElementById("canvas");
  const context = canvas.getContext("2d");
  const status = document.getElementById("pen");
  let last = null;
  let down = false;
  let place = { x: 128, y: 128 };

  const clear = () => {
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    drawing.value = "";
  };
  const stroke = (from, to) => {
    context.strokeStyle = "#fff";
    context.lineWidth = 20;
    context.lineCap = "round";
    context.lineJoin = "round";
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y);
    context.stroke();
  };
  const position = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) * canvas.width / box.width, y: (event.clientY - box.top) * canvas.height / box.height };
  };
  const finish = () => {
    keepOnly("drawing");
    drawing.value = canvas.toDataURL("image/png");
    submit(form);
  };

  clear();
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = position(event);
    stroke(last, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const next = position(event);
    stroke(last, next);
    last = next;
  });
  ["pointerup", "pointercancel"].forEach((name) => canvas.addEventListener(name, () => {
    if (last) { last = null; finish(); }
  }));
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-8, 0], ArrowRight: [8, 0], ArrowUp: [0, -8], ArrowDown: [0, 8] };
    if (event.key === " ") {
      event.preventDefault();
      down = !down;
      status.textContent = down ? "The pen is down." : "The pen is up.";
      if (down) stroke(place, place); else finish();
    } else if (moves[event.key]) {
      event.preventDefault();
      const [x, y] = moves[event.key];
      const next = { x: Math.min(248, Math.max(8, place.x + x)), y: Math.min(248, Math.max(8, place.y + y)) };
      if (down) stroke(place, next);
      place = next;
      if (!down) status.textContent = `The pen is at ${Math.round(place.x / 2.56)}, ${Math.round(place.y / 2.56)} of 100.`;
    }
  });
  document.getElementById("clear").addEventListener("click", clear);
}
