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
const press = key => root.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
const wheel = deltaY => root.querySelector(".vpanels").dispatchEvent(new WheelEvent("wheel", {deltaY, bubbles: true, cancelable: true}));
const pointer = (type, n, x, y, more) => {
  const canvas = canvases()[n], box = canvas.getBoundingClientRect(), place = {clientX: box.left + x * box.width, clientY: box.top + y * box.height};
  canvas.setPointerCapture = () => {};
  canvas.dispatchEvent(new PointerEvent(type, {...place, bubbles: true, ...more}));
};
