// The contrast of every visible text below `root`, WCAG 2.2: [text, ratio, color, background], the least first.
(root) => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((value) => value / 255);
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const behind = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) layers.push(rgba(getComputedStyle(one).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [1, 1, 1, 1]);
  };
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = (color) => 0.2126 * linear(color[0]) + 0.7152 * linear(color[1]) + 0.0722 * linear(color[2]);
  const ratio = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const found = [];
  const add = (element, text, color) => {
    const back = behind(element);
    let opacity = 1;
    for (let one = element; one; one = one.parentElement) opacity *= Number(getComputedStyle(one).opacity);
    const ink = rgba(color);
    ink[3] *= opacity;
    found.push([text.trim().slice(0, 40), ratio(over(ink, back), back), color, back.map((v) => Math.round(v * 255)).join()]);
  };
  const walk = document.createTreeWalker(document.querySelector(root), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || element.closest("style") || !element.checkVisibility()) continue;
    add(element, walk.currentNode.data, getComputedStyle(element).color);
  }
  for (const element of document.querySelectorAll(`${root} .fa-turn`)) {
    add(element, getComputedStyle(element, "::before").content, getComputedStyle(element, "::before").color);
  }
  for (const element of document.querySelectorAll(`${root} textarea, ${root} input[placeholder]`)) {
    add(element, element.placeholder, getComputedStyle(element, "::placeholder").color);
  }
  return found.sort((a, b) => a[1] - b[1]);
}
