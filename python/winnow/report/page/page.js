"use strict";
(() => {
  const tip = document.getElementById("tip");
  const root = document.documentElement;

  // ---- tooltips: the pointer or the arrow keys choose a mark --------------------------------------------------------
  function showTip(words, box) {
    tip.textContent = words;
    tip.hidden = false;
    const own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - own.width / 2), innerWidth - own.width - 8);
    const above = box.top - own.height - 10;
    tip.style.left = left + "px";
    tip.style.top = (above > 4 ? above : box.bottom + 12) + "px";
  }
  function hideTip() {
    tip.hidden = true;
    for (const mark of document.querySelectorAll(".mark.at")) mark.classList.remove("at");
    for (const cursor of document.querySelectorAll(".cursor")) cursor.remove();
  }
  function chooseMark(mark) {
    hideTip();
    mark.classList.add("at");
    showTip(mark.dataset.tip, mark.getBoundingClientRect());
  }
  document.addEventListener("pointermove", event => {
    const mark = event.target.closest && event.target.closest("[data-tip]");
    if (mark) return chooseMark(mark);
    const picture = event.target.closest && event.target.closest("image.matrix");
    if (picture) return matrixOf(picture).point(picture, event);
    if (event.pointerType === "mouse") hideTip();
  });
  document.addEventListener("pointerdown", event => {
    if (!event.target.closest(".chart")) hideTip();
  });
  document.addEventListener("scroll", () => { if (!document.activeElement.matches(".chart")) hideTip(); }, {passive: true});
  document.addEventListener("focusout", hideTip);
  document.addEventListener("keydown", event => {
    if (event.key === "Escape") return hideTip();
    const chart = event.target.closest && event.target.closest(".chart");
    if (!chart || !event.key.startsWith("Arrow")) return;
    event.preventDefault();
    const picture = chart.querySelector("image.matrix");
    if (picture) return matrixOf(picture).step(picture, event.key);
    const marks = [...chart.querySelectorAll("[data-tip]")];
    if (!marks.length) return;
    const at = marks.findIndex(mark => mark.classList.contains("at"));
    const move = event.key === "ArrowRight" || event.key === "ArrowDown" ? 1 : -1;
    chooseMark(marks[at < 0 ? (move > 0 ? 0 : marks.length - 1) : (at + move + marks.length) % marks.length]);
  });

  // ---- heat maps: values are in the page, colours from the scheme ---------------------------------------------------
  function decode(text) {
    const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
    return new Float32Array(bytes.buffer);
  }
  function short(value) {
    if (!Number.isFinite(value)) return "n/a";
    const size = Math.abs(value);
    const text = value === 0 ? "0" : size >= 1e-4 && size < 1e5 ? String(Number(value.toPrecision(3))) : value.toExponential(2);
    return (value > 0 ? "+" : "") + text.replace("-", "\u2212");
  }
  let isPrinting = false;  // its colours are the light ones, and beforeprint still sees those of the screen
  class Matrix {
    constructor(figure, spec) {
      Object.assign(this, {figure, spec, sheet: 0, order: 0, row: 0, column: -1});
      this.values = spec.sheets.map(() => null);
      this.paint();
    }
    get rows() { return this.spec.orders[this.order].rows; }
    get columns() { return this.spec.sheets[this.sheet].n_cols || this.spec.cols.length; }
    value(row, column) {
      if (!this.values[this.sheet]) this.values[this.sheet] = decode(this.spec.sheets[this.sheet].data);
      return column < this.columns ? this.values[this.sheet][this.rows[row] * this.columns + column] : NaN;
    }
    colours() {
      const stops = getComputedStyle(root).getPropertyValue(isPrinting ? "--diverging-light" : "--diverging").trim().replace(/"/g, "").split(",")
        .map(stop => [1, 3, 5].map(i => parseInt(stop.slice(i, i + 2), 16)));
      const table = [];
      for (let i = 0; i <= 254; ++i) {
        const place = i / 254 * (stops.length - 1), low = Math.min(Math.floor(place), stops.length - 2);
        table.push(stops[low].map((c, k) => Math.round(c + (stops[low + 1][k] - c) * (place - low))));
      }
      return table;
    }
    paint() {
      const {threshold, largest, cols} = this.spec, n = this.rows.length, table = this.colours();
      const canvas = document.createElement("canvas");
      const repeat = this.spec.repeat;  // of a column, so that columns do not blend where rows must
      canvas.width = cols.length * repeat;
      canvas.height = n;
      const context = canvas.getContext("2d"), picture = context.createImageData(cols.length * repeat, n);
      const whole = Math.log1p(largest / threshold);
      for (let r = 0; r < n; ++r) {
        for (let c = 0; c < cols.length; ++c) {
          const value = this.value(r, c), at = 4 * repeat * (r * cols.length + c);
          if (!Number.isFinite(value)) continue;
          const share = Math.sign(value) * Math.min(1, Math.log1p(Math.abs(value) / threshold) / whole);
          const colour = table[Math.round(127 + 127 * share)];
          for (let k = 0; k < repeat; ++k) picture.data.set([...colour, 255], at + 4 * k);
        }
      }
      context.putImageData(picture, 0, 0);
      const url = canvas.toDataURL();
      const order = this.spec.orders[this.order];
      for (const image of this.figure.querySelectorAll("image.matrix")) image.setAttribute("href", url);
      for (const text of this.figure.querySelectorAll(".row-axis")) text.textContent = order.axis;
      for (const text of this.figure.querySelectorAll(".row-tick")) text.textContent = order.ticks[text.dataset.slot][1];
    }
    point(picture, event) {
      const box = picture.getBoundingClientRect();
      const clamp = (x, n) => Math.min(n - 1, Math.max(0, Math.floor(x * n)));
      this.choose(picture, clamp((event.clientY - box.top) / box.height, this.rows.length),
                  clamp((event.clientX - box.left) / box.width, this.spec.cols.length));
    }
    step(picture, key) {
      const move = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[key];
      if (this.column < 0) return this.choose(picture, 0, 0);
      const within = (x, n) => Math.min(n - 1, Math.max(0, x));
      this.choose(picture, within(this.row + move[0], this.rows.length),
                  within(this.column + move[1], this.spec.cols.length));
    }
    choose(picture, row, column) {
      hideTip();
      Object.assign(this, {row, column});
      const {cols, col_word, what, unit} = this.spec, sheet = this.spec.sheets[this.sheet];
      const word = sheet.texts && column < sheet.texts.length ? ` ${JSON.stringify(sheet.texts[column])}` : "";
      const at = this.rows[row], value = this.value(row, column);
      const [x, y, width, height] = ["x", "y", "width", "height"].map(name => Number(picture.getAttribute(name)));
      const cursor = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const place = {x: x + column * width / cols.length, y: y + row * height / this.rows.length,
                     width: Math.max(2, width / cols.length), height: Math.max(2, height / this.rows.length)};
      for (const [name, number] of Object.entries(place)) cursor.setAttribute(name, number);
      cursor.setAttribute("class", "cursor");
      picture.parentNode.appendChild(cursor);
      showTip(`${sheet.rows[at]}\n${col_word} ${cols[column]}${word}: ${what} ${short(value)}${Number.isFinite(value) ? " " + unit : ""}\n${sheet.notes[at]}`,
              cursor.getBoundingClientRect());
    }
  }
  const matrices = new Map();
  const matrixOf = picture => matrices.get(picture.dataset.matrix);
  for (const data of document.querySelectorAll("script.matrix-data")) {
    const spec = JSON.parse(data.textContent);
    matrices.set(spec.id, new Matrix(data.parentNode, spec));
  }
  const repaint = () => { for (const matrix of matrices.values()) matrix.paint(); };

  // ---- switches -----------------------------------------------------------------------------------------------------
  function press(button) {
    for (const other of button.parentNode.children) other.setAttribute("aria-pressed", String(other === button));
  }
  function toCsv(table) {
    const quote = text => /[",\n\r]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
    return [...table.rows].map(row => [...row.cells].map(
      cell => quote("v" in cell.dataset ? cell.dataset.v : cell.textContent)).join(",")).join("\n") + "\n";
  }
  async function copy(button) {
    const words = button.dataset.copy === "csv" ? toCsv(button.closest(".data").querySelector("table")) : button.dataset.copy;
    const label = button.textContent;
    try {
      if (!navigator.clipboard) throw new Error("no clipboard");
      await navigator.clipboard.writeText(words);
      button.textContent = "Copied";
    } catch (error) {  // a page from file:// may not reach the clipboard in this way
      const area = document.createElement("textarea");
      area.value = words;
      document.body.appendChild(area);
      area.select();
      button.textContent = document.execCommand("copy") ? "Copied" : "Copying is not allowed here";
      area.remove();
    }
    setTimeout(() => { button.textContent = label; }, 1500);
  }
  document.addEventListener("click", event => {
    const button = event.target.closest && event.target.closest("button");
    if (!button) return;
    const figure = button.closest(".figure");
    if (button.dataset.copy !== undefined) copy(button);
    if (button.dataset.show !== undefined) {
      press(button);
      for (const variant of figure.querySelectorAll(".variant")) variant.hidden = variant.dataset.variant !== button.dataset.show;
    }
    if (button.dataset.order !== undefined) {
      press(button);
      const matrix = matrixOf(figure.querySelector("image.matrix"));
      matrix.order = Number(button.dataset.order);
      matrix.paint();
    }
  });
  document.addEventListener("change", event => {
    if (!event.target.matches || !event.target.matches("select[data-sheet]")) return;
    const matrix = matrixOf(event.target.closest(".figure").querySelector("image.matrix"));
    matrix.sheet = Number(event.target.value);
    matrix.paint();
  });

  // ---- light and dark; paper is light ------------------------------------------------------------------------------
  const system = matchMedia("(prefers-color-scheme: dark)");
  document.getElementById("theme").addEventListener("click", () => {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
    root.dataset.theme = isDark ? "light" : "dark";
    repaint();
  });
  system.addEventListener("change", repaint);
  addEventListener("beforeprint", () => { isPrinting = true; repaint(); });
  addEventListener("afterprint", () => { isPrinting = false; repaint(); });
})();
