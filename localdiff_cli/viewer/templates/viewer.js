"use strict";
// The slice viewer: canvases only, no WebGL and no library. Voxels lie in <script type="text/plain"> as base64 of gzip, canonical
// (slice to Superior, row to Posterior, column to Left). Where a browser cannot unpack them the still pictures stay.
(() => {
  const PLANES = ["axial", "coronal", "sagittal"], COLOURS = [[214, 39, 40], [44, 160, 44], [31, 119, 180], [255, 187, 51], [148, 103, 189]];
  const CLOSEST = 16, clamp = (v, low, high) => Math.max(low, Math.min(high, v));
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
      this.light = {brightness: 0, contrast: 0}; this.fingers = new Map(); this.marked = false;
    }

    async open(number) {
      this.number = number; this.info = this.cases[number];
      const texts = [...this.root.querySelectorAll(`script[data-case='${number}']`)];
      this.voxels = await Promise.all(texts.map(t => unpack(t.textContent)));
      this.at = this.info.shape.map(n => n >> 1);
      this.images = this.info.layers.map((l, i) => i).filter(i => this.info.layers[i].kind === "image");
      this.overlays = this.info.layers.map((l, i) => i).filter(i => this.info.layers[i].kind !== "image");
      this.alone = -1; this.marked = false;
      this.look = {zoom: 1, x: 0, y: 0};
      this.build(); this.draw();
    }

    build() {
      const pick = node("select", {className: "vcase", ariaLabel: "case", hidden: this.cases.length < 2, onchange: e => this.open(+e.target.value)},
        ...this.cases.map((c, i) => node("option", {value: i, textContent: c.name, selected: i === this.number})));
      this.planes = PLANES.map((name, i) => node("button", {type: "button", textContent: name, onclick: () => this.turn(i)}));
      this.slider = node("input", {type: "range", min: 0, ariaLabel: "slice", oninput: e => this.go(+e.target.value)});
      this.told = node("output", {className: "vtold"});
      const toggles = this.overlays.map((i, n) => node("label", {},
        node("input", {type: "checkbox", checked: !this.off.has(this.info.layers[i].name), onchange: e => this.toggle(i, e.target.checked)}),
        ` ${n + 1} ${this.info.layers[i].name}`));
      const opacity = node("input", {type: "range", min: 0, max: 100, value: 100 * this.opacity, ariaLabel: "opacity of overlays",
        oninput: e => { this.opacity = e.target.value / 100; this.draw(); }});
      this.lamps = Object.keys(this.light).map(name => node("input", {type: "range", min: -100, max: 100, ariaLabel: name,
        oninput: e => { this.light[name] = +e.target.value; this.draw(); }}));
      const lamps = this.lamps.map(lamp => node("label", {}, `${lamp.ariaLabel} `, lamp));
      this.panels = this.images.map(i => this.panel(i));
      const small = this.info.shrunk > 1 ? ` Shown at 1/${this.info.shrunk} of the resolution in each slice, to keep the file small.` : "";
      const help = node("p", {className: "vhelp", textContent: "Wheel, ↑ ↓ (Page: ten) or a finger up and down: slices. A, C, S: plane. 1–9: overlays. F: one "
        + "picture at a time, in turn. Click: place; X: its mark. Ctrl and wheel, + and −, or two fingers: zoom. Shift and drag, or Shift and arrows: "
        + "pan. Right button and drag, or [ ] and { }: brightness and contrast. 0: as at first. The patient's right is on the left; values are of 8 bits." + small});
      const stage = node("div", {className: "vpanels"}, ...this.panels.map(p => p.figure));
      stage.addEventListener("wheel", e => this.wheel(e), {passive: false});
      this.root.querySelector(".vstage").replaceChildren(
        node("div", {className: "vbar"}, pick, ...this.planes, this.slider, this.told), node("div", {className: "vbar"}, ...toggles,
          ...(toggles.length ? [node("label", {}, "opacity ", opacity)] : [])),
        node("div", {className: "vbar"}, ...lamps, node("button", {type: "button", textContent: "reset", onclick: () => this.reset()})), stage, help);
    }

    panel(i) {
      const canvas = node("canvas", {oncontextmenu: e => e.preventDefault()}), mark = node("i", {className: "vmark"});
      canvas.addEventListener("pointerdown", e => this.hold(canvas, e));
      canvas.addEventListener("pointermove", e => this.move(canvas, e));
      for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, e => this.release(e));
      const frame = node("div", {className: "vframe"}, canvas, mark), caption = node("figcaption", {textContent: this.info.layers[i].name});
      return {figure: node("figure", {}, frame, caption), canvas, mark, caption, layer: i};
    }

    toggle(i, on) { this.off[on ? "delete" : "add"](this.info.layers[i].name); this.draw(); }

    go(k) { this.at[this.plane] = clamp(k, 0, this.info.shape[this.plane] - 1); this.draw(); }

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
      const box = canvas.getBoundingClientRect(), inside = (v, n) => clamp(Math.floor(v * n), 0, n - 1);
      this.at = this.voxel(inside((e.clientY - box.top) / box.height, canvas.height), inside((e.clientX - box.left) / box.width, canvas.width));
      this.marked = true;
      this.draw();
    }

    // Where the place lies in the picture, from 0 to 1: across and down.
    spot() {
      const [rows, columns, down, right] = this.size(), row = down === 0 ? rows - 1 - this.at[0] : this.at[down];
      return [(this.at[right] + 0.5) / columns, (row + 0.5) / rows];
    }

    // The part of the picture that is seen: at across and down u it stands at look.x + zoom * u of the frame, and always fills it.
    see(zoom, x, y) {
      zoom = clamp(zoom, 1, CLOSEST);
      this.look = {zoom, x: clamp(x, 1 - zoom, 0), y: clamp(y, 1 - zoom, 0)};
      this.place();
    }

    // Zoom by a factor; what is at across and down (of the frame) stays there.
    zoom(factor, across, down) {
      const {zoom, x, y} = this.look, next = clamp(zoom * factor, 1, CLOSEST);
      this.see(next, across - (across - x) * next / zoom, down - (down - y) * next / zoom);
    }

    pan(across, down) { this.see(this.look.zoom, this.look.x + across, this.look.y + down); }

    centre() { const [u, v] = this.spot(), {zoom} = this.look; this.see(zoom, 0.5 - zoom * u, 0.5 - zoom * v); }

    turn(plane) { this.plane = plane; this.draw(); this.centre(); }

    lighten(name, by) { this.light[name] = clamp(this.light[name] + by, -100, 100); this.draw(); }

    reset() { this.light = {brightness: 0, contrast: 0}; this.marked = false; this.see(1, 0, 0); this.draw(); }

    wheel(e) {
      e.preventDefault();
      const frame = e.target.closest(".vframe");
      if (!e.ctrlKey) return this.go(this.at[this.plane] + Math.sign(e.deltaY));
      if (!frame) return;
      const box = frame.getBoundingClientRect(), turned = clamp(e.deltaY * (e.deltaMode ? 16 : 1), -50, 50);
      this.zoom(Math.exp(-turned / 100), (e.clientX - box.left) / box.width, (e.clientY - box.top) / box.height);
    }

    hold(canvas, e) {
      canvas.setPointerCapture(e.pointerId);
      this.drag = {x: e.clientX, y: e.clientY, as: e.button === 2 ? "light" : e.shiftKey ? "pan" : "place"};
      if (e.pointerType === "touch") this.fingers.set(e.pointerId, {x: e.clientX, y: e.clientY});
      if (this.drag.as === "place" && this.fingers.size < 2) this.point(canvas, e);
    }

    move(canvas, e) {
      if (!e.buttons) return;
      if (e.pointerType === "touch") return this.finger(canvas, e);
      const {as, x, y} = this.drag, box = canvas.parentNode.getBoundingClientRect();
      this.drag = {as, x: e.clientX, y: e.clientY};
      if (as === "light") { this.lighten("contrast", (e.clientX - x) / 2); this.lighten("brightness", (y - e.clientY) / 2); }
      else if (as === "pan") this.pan((e.clientX - x) / box.width, (e.clientY - y) / box.height);
      else this.point(canvas, e);
    }

    finger(canvas, e) {
      const before = this.fingers.get(e.pointerId), now = {x: e.clientX, y: e.clientY};
      this.fingers.set(e.pointerId, now);
      if (this.fingers.size > 1) {
        const still = [...this.fingers].find(([id]) => id !== e.pointerId)[1], box = canvas.parentNode.getBoundingClientRect();
        const apart = at => Math.max(1, Math.hypot(at.x - still.x, at.y - still.y));
        this.pan((now.x - before.x) / 2 / box.width, (now.y - before.y) / 2 / box.height);
        return this.zoom(apart(now) / apart(before), ((now.x + still.x) / 2 - box.left) / box.width, ((now.y + still.y) / 2 - box.top) / box.height);
      }
      const steps = Math.trunc((this.drag.y - e.clientY) / 8);
      if (steps) { this.drag.y -= 8 * steps; this.go(this.at[this.plane] + steps); }
    }

    // A finger that stays after two goes on scrolling from where it is.
    release(e) {
      this.fingers.delete(e.pointerId);
      for (const {x, y} of this.fingers.values()) this.drag = {x, y, as: "place"};
    }

    // Keys that change how a picture looks, not what is shown.
    appearance(key, shift) {
      const [u, v] = this.spot(), {zoom, x, y} = this.look, factor = {"+": 1.25, "=": 1.25, "-": 0.8}[key];
      const way = shift && {ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1]}[key];
      const light = {"[": ["brightness", -5], "]": ["brightness", 5], "{": ["contrast", -5], "}": ["contrast", 5]}[key];
      if (factor) this.zoom(factor, x + zoom * u, y + zoom * v);
      else if (way) this.pan(...way);
      else if (light) this.lighten(...light);
      else if (key === "0") this.reset();
      else if (key.toLowerCase() === "x") { this.marked = !this.marked; this.place(); }
      else return false;
      return true;
    }

    key(e) {
      if (e.metaKey || (e.ctrlKey !== e.altKey && !"[]{}".includes(e.key))) return;  // the browser's own; AltGr is both
      if (this.appearance(e.key, e.shiftKey)) return e.preventDefault();
      const steps = {ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10}[e.key];
      const plane = "acs".indexOf(e.key.toLowerCase());
      if (steps) this.go(this.at[this.plane] + steps);
      else if (e.key.length === 1 && plane >= 0) this.turn(plane);
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

    // Grey values as shown: ``gain`` times steeper around what brightness makes the middle. Both at 0: as stored.
    tones() {
      const gain = 2 ** (this.light.contrast / 25), middle = 0.5 - this.light.brightness / 100;
      return {gain, low: middle - 0.5 / gain, high: middle + 0.5 / gain};
    }

    // What black and white stand for, where that was changed.
    range({low, high}) {
      const seen = this.tones(), real = share => String(+(low + share * (high - low)).toPrecision(3));
      return seen.gain === 1 && seen.low === 0 ? "" : ` · black ${real(seen.low)}, white ${real(seen.high)}`;
    }

    // The pictures in their frames, and the mark of the place in every one.
    place() {
      const [u, v] = this.spot(), {zoom, x, y} = this.look;
      for (const {canvas, mark} of this.panels) {
        canvas.style.transform = `translate(${100 * x}%, ${100 * y}%) scale(${zoom})`;
        mark.hidden = !this.marked;
        mark.style.left = `${100 * (x + zoom * u)}%`; mark.style.top = `${100 * (y + zoom * v)}%`;
      }
    }

    draw() {
      const [rows, columns, down, right] = this.size(), {shape, spacing, start, layers, shrunk} = this.info;
      const first = this.index(this.voxel(0, 0)), below = this.index(this.voxel(1, 0)) - first, beside = this.index(this.voxel(0, 1)) - first;
      const on = this.overlays.filter(i => !this.off.has(layers[i].name)), {gain, low} = this.tones();
      const grey = Uint8ClampedArray.from({length: 256}, (_, v) => gain * (v - 255 * low));
      this.panels.forEach(({figure, canvas, caption, layer}, n) => {
        figure.hidden = this.alone >= 0 && this.alone !== n;
        canvas.height = rows; canvas.width = columns;
        canvas.style.aspectRatio = `${columns * spacing[right]} / ${rows * spacing[down]}`;
        const context = canvas.getContext("2d"), picture = context.createImageData(columns, rows), pixels = picture.data;
        for (let r = 0, q = 0; r < rows; r++) for (let c = 0; c < columns; c++, q += 4) {
          const index = first + r * below + c * beside;
          pixels[q] = pixels[q + 1] = pixels[q + 2] = grey[this.voxels[layer][index]]; pixels[q + 3] = 255;
          for (const i of on) {
            const v = this.voxels[i][index];
            if (!v) continue;
            const share = this.opacity * (layers[i].kind === "heat" ? v / 255 : 1), paint = layers[i].kind === "heat" ? heat(v) : COLOURS[(v - 1) % 5];
            for (let k = 0; k < 3; k++) pixels[q + k] += share * (paint[k] - pixels[q + k]);
          }
        }
        context.putImageData(picture, 0, 0);
        caption.textContent = `${layers[layer].name}: ${this.value(layer)}${this.range(layers[layer])}`;
      });
      this.place();
      this.lamps.forEach(lamp => { lamp.value = this.light[lamp.ariaLabel]; });
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
      root.addEventListener("keydown", e => { if (!/^(SELECT|INPUT)$/.test(e.target.tagName) || /^[0-9acsfx+=\-[\]{}]$/i.test(e.key)) viewer.key(e); });
      viewer.open(0).then(() => { root.classList.add("live"); root.tabIndex = 0; }).catch(() => root.querySelector(".vstage").replaceChildren());
    }
  });
})();
