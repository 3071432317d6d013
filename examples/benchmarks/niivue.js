"use strict";
// What niivue.py puts into a page: hands for our viewer or for NiiVue's, and one measurement that uses either and ends in a line of the
// console. Times count until a pixel of every picture was read back: only then has all been painted.
const bytes = text => Uint8Array.from(atob(text.trim()), c => c.charCodeAt(0));

async function ours() {
  const root = document.querySelector(".viewer");
  while (!root.classList.contains("live")) await new Promise(r => setTimeout(r, 5));
  const viewer = root.viewer, contexts = viewer.panels.map(p => p.canvas.getContext("2d"));
  return {
    slices: viewer.info.shape[0], overlays: viewer.overlays, renderer: "canvas",
    go: k => viewer.go(k),
    overlay: (i, on) => viewer.toggle(i, on),
    contrast: v => { viewer.light.contrast = v; viewer.draw(); },
    finish: () => contexts.forEach(c => c.getImageData(0, 0, 1, 1)),
    picture: n => contexts[n].getImageData(0, 0, contexts[n].canvas.width, contexts[n].canvas.height),
  };
}

// One picture: an image with all overlays, on a canvas of two pixels by two a voxel.
async function picture(image, overlays) {
  const header = new DataView(image.buffer), [width, height] = [42, 44].map(at => 2 * header.getInt16(at, true));
  const canvas = document.body.appendChild(Object.assign(document.createElement("canvas"), {width, height}));
  const nv = new niivue.Niivue({isNearestInterpolation: true, isResizeCanvas: false, crosshairWidth: 0, isOrientationTextVisible: false,
    isRadiologicalConvention: true, dragAndDropEnabled: false, sliceType: 0, loadingText: "", forceDevicePixelRatio: 1});
  await nv.attachToCanvas(canvas, false);
  for (const {buffer, name, kind} of [image, ...overlays]) {
    const colours = kind === "heat" ? "hot" : "gray", opacity = kind === "image" ? 1 : 0.6;
    const volume = await niivue.NVImage.new(buffer.slice(0), `${name}.nii`, colours, opacity, null, 0, 255);
    if (kind === "labels") volume.setColormapLabel({R: [0, 214, 44, 31, 255, 148], G: [0, 39, 160, 119, 187, 103],
      B: [0, 40, 44, 180, 51, 189], A: [0, 255, 255, 255, 255, 255], I: [0, 1, 2, 3, 4, 5]});
    nv.volumes.push(volume);  // addVolume would paint all of them anew after each
  }
  nv.back = nv.volumes[0]; nv.overlays = nv.volumes.slice(1);
  nv.updateGLVolume();
  return nv;
}

async function theirs() {
  const layers = await Promise.all([...document.querySelectorAll("script[data-kind]")].map(async ({textContent, dataset}) => ({...dataset,
    buffer: await new Response(new Blob([bytes(textContent)]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer()})));
  const overlays = layers.filter(l => l.kind !== "image"), nvs = [], slices = new DataView(layers[0].buffer).getInt16(46, true);
  for (const image of layers.filter(l => l.kind === "image")) nvs.push(await picture(image, overlays));
  for (const nv of nvs) nv.broadcastTo(nvs.filter(other => other !== nv), {"2d": true, "3d": true});
  const read = (nv, width, height) => {
    const data = new Uint8Array(4 * width * height), {gl} = nv;
    nv.drawScene(); gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, data);
    return {width, height, data, upwards: true};
  };
  return {
    slices, overlays: overlays.map((_, n) => n + 1),
    renderer: nvs[0].gl.getParameter(nvs[0].gl.getExtension("WEBGL_debug_renderer_info").UNMASKED_RENDERER_WEBGL),
    go: k => nvs.forEach(nv => { nv.scene.crosshairPos[2] = (k + 0.5) / slices; }),
    overlay: (i, on) => nvs.forEach(nv => nv.setOpacity(i, on ? 0.6 : 0)),
    contrast: v => nvs.forEach(nv => { nv.volumes[0].cal_max = 255 - v; nv.updateGLVolume(); }),
    finish: () => nvs.forEach(nv => read(nv, 1, 1)),
    picture: n => read(nvs[n], nvs[n].canvas.width, nvs[n].canvas.height),
  };
}

// How many pixels of a picture are not the grey value of the voxel they lie in; ``truth``: the slice's voxels, row after row.
function differing({width, height, data, upwards}, truth, rows, columns) {
  let count = 0;
  for (let y = 0, at = 0; y < height; y++) for (let x = 0; x < width; x++, at += 4) {
    const row = Math.floor(((upwards ? height - 1 - y : y) + 0.5) * rows / height), column = Math.floor((x + 0.5) * columns / width);
    if ([0, 1, 2].some(k => data[at + k] !== truth[row * columns + column])) count++;
  }
  return count;
}

async function measure({rows, columns, truth}) {
  const hand = await (document.querySelector(".viewer") ? ours() : theirs()), middle = hand.slices >> 1;
  hand.finish();
  const found = {renderer: hand.renderer, shown: performance.now()};
  const timed = change => { const start = performance.now(); change(); hand.finish(); return performance.now() - start; };
  found.slice = Array.from({length: 10}, (_, n) => timed(() => hand.go(middle - 9 + n)));
  found.contrast = [40, 20, 0].map(v => timed(() => hand.contrast(v)));
  found.overlay = hand.overlays.map(i => timed(() => hand.overlay(i, false)));
  found.differing = truth.reduce((sum, text, n) => sum + differing(hand.picture(n), bytes(text), rows, columns), 0);
  found.overlay.push(...hand.overlays.map(i => timed(() => hand.overlay(i, true))));
  return found;
}

addEventListener("load", () => measure(TOLD).catch(error => ({error: String(error.stack)})).then(found => console.log(`FOUND${JSON.stringify(found)}END`)));
