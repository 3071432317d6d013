"use strict";
// The slice viewer: canvases only, no WebGL and no library. Voxels lie in <script type="text/plain"> as base64 of gzip, canonical
// (slice to Superior, row to Posterior, column to Left). Where a browser cannot unpack them the still pictures stay.
(() => {
  const PLANES = ["axial", "coronal", "sagittal"], COLOURS = [[214, 39, 40], [44, 160, 44], [31, 119, 180], [255, 187, 51], [148, 103, 189]];
  const node = (tag, properties = {}, ...children) => { const n = Object.assign(document.createElement(tag), properties); n.append(...children); return n; };

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text.trim()), c => c.charCodeAt(0));
    return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
  }

  function heat(v) { return [Math.min(255, 3 * v), Math.min(255, Math.max(0, 3 * v - 255)), Math.max(0, 3 * v - 510)]; }

  class Viewer {
    constructor(root) {
      this.root = root;
      this.cases = JSON.parse(root.querySelector("script[type='application/json']").textContent);
      this.plane = 0; this.opacity = 0.6; this.off = new Set(); this.alone = -1;
    }

    async open(number) {
      this.number = number; this.info = this.cases[number];
      const texts = [...this.root.querySelectorAll(`script[data-case='${number}']`)];
      this.voxels = await Promise.all(texts.map(t => unpack(t.textContent)));
      this.at = this.info.shape.map(n => n >> 1);
      this.images = this.info.layers.map((l, i) => i).filter(i => this.info.layers[i].kind === "image");
      this.overlays = this.info.layers.map((l, i) => i).filter(i => this.info.layers[i].kind !== "image");
      this.alone = -1;
      this.build(); this.draw();
    }

    build() {
      const pick = node("select", {className: "vcase", ariaLabel: "case", hidden: this.cases.length < 2, onchange: e => this.open(+e.target.value)},
        ...this.cases.map((c, i) => node("option", {value: i, textContent: c.name, selected: i === this.number})));
      this.planes = PLANES.map((name, i) => node("button", {type: "button", textContent: name, onclick: () => { this.plane = i; this.draw(); }}));
      this.slider = node("input", {type: "range", min: 0, ariaLabel: "slice", oninput: e => this.go(+e.target.value)});
      this.told = node("output", {className: "vtold"});
      const toggles = this.overlays.map((i, n) => node("label", {},
        node("input", {type: "checkbox", checked: !this.off.has(this.info.layers[i].name), onchange: e => this.toggle(i, e.target.checked)}),
        ` ${n + 1} ${this.info.layers[i].name}`));
      const opacity = node("input", {type: "range", min: 0, max: 100, value: 100 * this.opacity, ariaLabel: "opacity of overlays",
        oninput: e => { this.opacity = e.target.value / 100; this.draw(); }});
      this.panels = this.images.map(i => {
        const canvas = node("canvas");
        canvas.addEventListener("pointerdown", e => { this.point(canvas, e); canvas.setPointerCapture(e.pointerId); this.drag = e.clientY; });
        canvas.addEventListener("pointermove", e => this.move(canvas, e));
        const figure = node("figure", {}, canvas, node("figcaption", {textContent: this.info.layers[i].name}));
        return {figure, canvas, caption: figure.lastChild, layer: i};
      });
      const small = this.info.shrunk > 1 ? ` Shown at 1/${this.info.shrunk} of the resolution in each slice, to keep the file small.` : "";
      const help = node("p", {className: "vhelp", textContent: "Wheel, ↑ ↓ (Page: ten) or a finger up and down: slices. A, C, S: plane. 1–9: overlays. F: one "
        + "picture at a time, in turn. Click: place. The patient's right is on the left; values are of 8 bits." + small});
      const stage = node("div", {className: "vpanels"}, ...this.panels.map(p => p.figure));
      stage.addEventListener("wheel", e => { e.preventDefault(); this.go(this.at[this.plane] + Math.sign(e.deltaY)); }, {passive: false});
      this.root.querySelector(".vstage").replaceChildren(
        node("div", {className: "vbar"}, pick, ...this.planes, this.slider, this.told), node("div", {className: "vbar"}, ...toggles,
          ...(toggles.length ? [node("label", {}, "opacity ", opacity)] : [])), stage, help);
    }

    toggle(i, on) { this.off[on ? "delete" : "add"](this.info.layers[i].name); this.draw(); }

    go(k) { this.at[this.plane] = Math.max(0, Math.min(this.info.shape[this.plane] - 1, k)); this.draw(); }

    // Rows and columns of the picture, and the axes they run along; coronal and sagittal pictures have Superior at the top.
    size() {
      const [s, p, l] = this.info.shape;
      return [[p, l, 1, 2], [s, l, 0, 2], [s, p, 0, 1]][this.plane];
    }

    voxel(row, column) {
      const [rows, , down, right] = this.size(), place = [...this.at];
      place[down] = down === 0 ? rows - 1 - row : row; place[right] = column;
      return place;
    }

    index([s, p, l]) { return (s * this.info.shape[1] + p) * this.info.shape[2] + l; }

    point(canvas, e) {
      const box = canvas.getBoundingClientRect(), clamp = (v, n) => Math.max(0, Math.min(n - 1, Math.floor(v)));
      this.at = this.voxel(clamp((e.clientY - box.top) / box.height * canvas.height, canvas.height),
        clamp((e.clientX - box.left) / box.width * canvas.width, canvas.width));
      this.draw();
    }

    move(canvas, e) {
      if (!e.buttons) return;
      if (e.pointerType !== "touch") return this.point(canvas, e);
      const steps = Math.trunc((this.drag - e.clientY) / 8);
      if (steps) { this.drag -= 8 * steps; this.go(this.at[this.plane] + steps); }
    }

    key(e) {
      const steps = {ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10}[e.key];
      const plane = "acs".indexOf(e.key.toLowerCase());
      if (steps) this.go(this.at[this.plane] + steps);
      else if (e.key.length === 1 && plane >= 0) { this.plane = plane; this.draw(); }
      else if (e.key >= "1" && e.key <= "9" && this.overlays[e.key - 1] !== undefined) {
        const box = this.root.querySelectorAll("input[type=checkbox]")[e.key - 1];
        box.checked = !box.checked; this.toggle(this.overlays[e.key - 1], box.checked);
      } else if (e.key.toLowerCase() === "f") {
        this.alone = this.alone + 1 < this.panels.length ? this.alone + 1 : -1; this.draw();
      } else return;
      e.preventDefault();
    }

    value(i) {
      const l = this.info.layers[i], v = this.voxels[i][this.index(this.at)];
      return String(l.kind === "labels" ? v : +(l.low + v * (l.high - l.low) / 255).toPrecision(3));
    }

    draw() {
      const [rows, columns, down, right] = this.size(), {shape, spacing, start, layers, shrunk} = this.info;
      const first = this.index(this.voxel(0, 0)), below = this.index(this.voxel(1, 0)) - first, beside = this.index(this.voxel(0, 1)) - first;
      const on = this.overlays.filter(i => !this.off.has(layers[i].name));
      this.panels.forEach(({figure, canvas, caption, layer}, n) => {
        figure.hidden = this.alone >= 0 && this.alone !== n;
        canvas.height = rows; canvas.width = columns;
        canvas.style.aspectRatio = `${columns * spacing[right]} / ${rows * spacing[down]}`;
        const context = canvas.getContext("2d"), picture = context.createImageData(columns, rows), pixels = picture.data;
        for (let r = 0, q = 0; r < rows; r++) for (let c = 0; c < columns; c++, q += 4) {
          const index = first + r * below + c * beside;
          pixels[q] = pixels[q + 1] = pixels[q + 2] = this.voxels[layer][index]; pixels[q + 3] = 255;
          for (const i of on) {
            const v = this.voxels[i][index];
            if (!v) continue;
            const share = this.opacity * (layers[i].kind === "heat" ? v / 255 : 1), paint = layers[i].kind === "heat" ? heat(v) : COLOURS[(v - 1) % 5];
            for (let k = 0; k < 3; k++) pixels[q + k] += share * (paint[k] - pixels[q + k]);
          }
        }
        context.putImageData(picture, 0, 0);
        caption.textContent = `${layers[layer].name}: ${this.value(layer)}`;
      });
      this.planes.forEach((b, i) => b.setAttribute("aria-pressed", i === this.plane));
      this.slider.max = shape[this.plane] - 1; this.slider.value = this.at[this.plane];
      const shown = this.at.map((v, a) => start[a] + v * (a ? shrunk : 1));
      this.told.textContent = `slice ${shown[this.plane]} · voxel ${shown.join(", ")}` + on.map(i => ` · ${layers[i].name} ${this.value(i)}`).join("");
    }
  }

  addEventListener("DOMContentLoaded", () => {
    if (typeof DecompressionStream === "undefined") return;
    for (const root of document.querySelectorAll(".viewer")) {
      const viewer = new Viewer(root);
      root.viewer = viewer;
      root.addEventListener("keydown", e => { if (!/^(SELECT|INPUT)$/.test(e.target.tagName) || /^[1-9acsf]$/i.test(e.key)) viewer.key(e); });
      viewer.open(0).then(() => { root.classList.add("live"); root.tabIndex = 0; }).catch(() => root.querySelector(".vstage").replaceChildren());
    }
  });
})();
