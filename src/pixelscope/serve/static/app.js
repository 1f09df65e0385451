// What a page needs beside htmx: the canvas, dropped files, sliders that say their value. No inline script anywhere.
"use strict";

document.querySelectorAll("[data-submits]").forEach((select) => {
  select.addEventListener("change", () => select.form.submit());
});

document.addEventListener("input", (event) => {
  const slider = event.target;
  if (slider.matches(".sliders input[type=range]")) {
    slider.parentElement.querySelector("output").value = Number(slider.value).toFixed(2);
  }
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-random]");
  if (button) {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
    htmx.ajax("GET", `${button.dataset.random}?seed=${seed}`, { target: "#steer", swap: "outerHTML" });
  }
});

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
      input.dispatchEvent(new Event("change", { bubbles: true }));
    }
  });
});

const form = document.getElementById("adapt");
if (form) {
  const go = () => htmx.trigger(form, "go");
  const drawing = document.getElementById("drawing");
  const file = document.getElementById("image");
  const picks = () => form.querySelectorAll("input[name=example]");
  const only = (kept) => {
    if (kept !== "drawing") drawing.value = "";
    if (kept !== "image") file.value = "";
    if (kept !== "example") picks().forEach((pick) => { pick.checked = false; });
  };

  file.addEventListener("change", () => { only("image"); go(); });
  picks().forEach((pick) => pick.addEventListener("change", () => { only("example"); go(); }));
  ["walk", "seed"].forEach((name) => document.getElementById(name).addEventListener("change", () => {
    if (drawing.value || file.value || form.querySelector("input[name=example]:checked")) go();
  }));

  const canvas = document.getElementById("canvas");
  const pen = canvas.getContext("2d");
  const said = document.getElementById("pen");
  let last = null;
  let down = false;
  let place = { x: 128, y: 128 };

  const clear = () => {
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    drawing.value = "";
  };
  const stroke = (from, to) => {
    pen.strokeStyle = "#fff";
    pen.lineWidth = 20;
    pen.lineCap = "round";
    pen.lineJoin = "round";
    pen.beginPath();
    pen.moveTo(from.x, from.y);
    pen.lineTo(to.x, to.y);
    pen.stroke();
  };
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) * canvas.width / box.width, y: (event.clientY - box.top) * canvas.height / box.height };
  };
  const done = () => {
    only("drawing");
    drawing.value = canvas.toDataURL("image/png");
    go();
  };

  clear();
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = at(event);
    stroke(last, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (last) {
      const next = at(event);
      stroke(last, next);
      last = next;
    }
  });
  ["pointerup", "pointercancel"].forEach((name) => canvas.addEventListener(name, () => {
    if (last) { last = null; done(); }
  }));
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-8, 0], ArrowRight: [8, 0], ArrowUp: [0, -8], ArrowDown: [0, 8] };
    if (event.key === " ") {
      event.preventDefault();
      down = !down;
      said.textContent = down ? "The pen is down." : "The pen is up.";
      if (down) stroke(place, place); else done();
    } else if (moves[event.key]) {
      event.preventDefault();
      const [x, y] = moves[event.key];
      const next = { x: Math.min(248, Math.max(8, place.x + x)), y: Math.min(248, Math.max(8, place.y + y)) };
      if (down) stroke(place, next);
      place = next;
      if (!down) said.textContent = `The pen is at ${Math.round(place.x / 2.56)}, ${Math.round(place.y / 2.56)} of 100.`;
    }
  });
  document.getElementById("clear").addEventListener("click", clear);
}
