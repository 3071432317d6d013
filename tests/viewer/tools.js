// What the tests do to a viewer: wait until it lives, press, scroll, point, and read its pixels.
const root = document.querySelector(".viewer");
const settled = async test => { for (let i = 0; i < 200 && !test(); i++) await new Promise(r => setTimeout(r, 20)); };
await settled(() => root.classList.contains("live"));
const canvases = () => [...root.querySelectorAll("canvas")];
const told = () => root.querySelector(".vtold").textContent;
const pixels = n => {
  const c = canvases()[n], d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
  return {rows: c.height, columns: c.width, red: [...d].filter((v, i) => i % 4 === 0), green: [...d].filter((v, i) => i % 4 === 1)};
};
const press = (key, more) => root.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true, ...more}));
const wheel = deltaY => root.querySelector(".vpanels").dispatchEvent(new WheelEvent("wheel", {deltaY, bubbles: true, cancelable: true}));
// Where the pictures' frames are on the screen, and a place in one of them, from 0 to 1 across and down.
const frame = n => root.querySelectorAll(".vframe")[n].getBoundingClientRect();
const on = (n, x, y) => ({clientX: frame(n).left + x * frame(n).width, clientY: frame(n).top + y * frame(n).height});
const seen = n => {
  const box = canvases()[n].getBoundingClientRect(), whole = frame(n);
  return {zoom: box.width / whole.width, x: (box.left - whole.left) / whole.width, y: (box.top - whole.top) / whole.height};
};
const marks = () => [...root.querySelectorAll(".vmark")].map((mark, n) => {
  const box = mark.getBoundingClientRect(), whole = frame(n);
  return {hidden: mark.hidden, x: (box.left + box.width / 2 - whole.left) / whole.width, y: (box.top + box.height / 2 - whole.top) / whole.height};
});
const pointer = (type, n, x, y, more) => {
  const canvas = canvases()[n];
  canvas.setPointerCapture = () => {};
  canvas.dispatchEvent(new PointerEvent(type, {...on(n, x, y), bubbles: true, ...more}));
};
