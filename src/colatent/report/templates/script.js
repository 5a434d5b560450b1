"use strict";
// Show and hide series on the whole page: conditions have the same key in all figures.
for (const box of document.querySelectorAll("input[data-toggle]")) {
  box.addEventListener("change", () => {
    const key = box.dataset.toggle;
    for (const other of document.querySelectorAll("input[data-toggle]")) {
      if (other.dataset.toggle === key) other.checked = box.checked;
    }
    for (const drawn of document.querySelectorAll("[data-series]")) {
      if (drawn.dataset.series === key) drawn.classList.toggle("off", !box.checked);
    }
  });
}

// Read values off lines: under the pointer, or with the arrow keys where a figure has the focus.
const readout = document.getElementById("readout");

function panels(svg) {
  return [...svg.querySelectorAll("[data-limits]")].map((patch) => {
    const [x0, x1, y0, y1] = patch.dataset.limits.split(" ").map(Number);
    const box = patch.getBBox();
    const lines = [...patch.parentNode.querySelectorAll("[data-label]:not(.off) > path")];
    return { patch, x0, x1, y0, y1, box, lines };
  });
}

// Height of a drawn path at x, in the figure's units, or null beside it.
function heightAt(path, x) {
  const points = path.getAttribute("d").match(/-?[\d.]+(?:e-?\d+)?/g).map(Number);
  for (let i = 0; i + 3 < points.length; i += 2) {
    const [ax, ay, bx, by] = points.slice(i, i + 4);
    if (Math.min(ax, bx) <= x && x <= Math.max(ax, bx)) {
      return ax === bx ? ay : ay + ((x - ax) / (bx - ax)) * (by - ay);
    }
  }
  return null;
}

function pick(panel, x) {
  const { box, patch } = panel;
  const value = panel.x0 + ((x - box.x) / box.width) * (panel.x1 - panel.x0);
  const found = [];
  for (const path of panel.lines) {
    const y = heightAt(path, x);
    if (y === null || y < box.y || y > box.y + box.height) continue;
    const height = panel.y1 + ((y - box.y) / box.height) * (panel.y0 - panel.y1);
    found.push(`${path.parentNode.dataset.label}: ${height.toPrecision(3)} ${patch.dataset.y}`.trim());
  }
  return [`${value.toPrecision(3)} ${patch.dataset.x}`.trim(), ...found];
}

function show(svg, panel, x) {
  svg.querySelectorAll(".crosshair").forEach((line) => line.remove());
  // the same place on all panels that share the axis
  for (const other of panels(svg)) {
    if (other.x0 !== panel.x0 || other.x1 !== panel.x1) continue;
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const at = other.box.x + ((x - panel.box.x) / panel.box.width) * other.box.width;
    const place = { x1: at, x2: at, y1: other.box.y, y2: other.box.y + other.box.height };
    for (const [name, number] of Object.entries(place)) line.setAttribute(name, number);
    line.setAttribute("class", "crosshair");
    svg.append(line);
  }
  readout.replaceChildren(...pick(panel, x).map((text) => {
    const row = document.createElement("div");
    row.textContent = text;
    return row;
  }));
  readout.hidden = false;
}

function hide(svg) {
  svg.querySelectorAll(".crosshair").forEach((line) => line.remove());
  readout.hidden = true;
}

for (const svg of document.querySelectorAll("figure svg")) {
  if (!svg.querySelector("[data-limits]")) continue;
  let current = null; // panel's position and x, for the keyboard
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("pointermove", (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const all = panels(svg);
    const i = all.findIndex(({ box }) => point.x >= box.x && point.x <= box.x + box.width
      && point.y >= box.y && point.y <= box.y + box.height);
    if (i < 0) return hide(svg);
    current = { i, x: point.x };
    show(svg, all[i], point.x);
  });
  svg.addEventListener("pointerleave", () => hide(svg));
  svg.addEventListener("blur", () => hide(svg));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Escape") return hide(svg);
    if (!step) return;
    event.preventDefault();
    const all = panels(svg);
    const i = current ? Math.min(Math.max(current.i + step[0], 0), all.length - 1) : 0;
    const { box } = all[i];
    const x = current && current.i === i ? current.x + (step[1] * box.width) / 50 : box.x + box.width / 2;
    current = { i, x: Math.min(Math.max(x, box.x), box.x + box.width) };
    show(svg, all[i], current.x);
  });
}
