// Score over time on a canvas: zones on either side of the two thresholds, a dot a window, the average as a line.

const SHOWN_SECONDS = 60; // the last minute; a recording is shown whole
const FIRST_SECONDS = 10; // so that the first windows do not fill the width
const LEAST_REACH = 3; // of the axis on either side of the thresholds
const ROOM = 0.14; // of the axis above and below all scores, for the names of the zones
const MARGIN = { left: 40, right: 10, top: 8, bottom: 36 };
const TICK_PIXELS = 70;
const STEPS = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];

export class ScoreChart {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.reset(null, "score", null);
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /**
   * Empties the chart.
   * @param {{enter: number, exit: number} | null} rules thresholds, in the unit of the axis
   * @param {string} unit what the axis shows
   * @param {number | null} seconds of the whole recording; null for a microphone
   */
  reset(rules, unit, seconds) {
    Object.assign(this, { rules, unit, seconds, words: [], now: 0 });
    this.draw();
  }

  /** Adds word of a window; times are samples at 16 kHz. */
  add(word) {
    this.words.push({ ...word, at: word.end / 16000, from: word.start / 16000 });
    this.now = Math.max(this.now, word.end / 16000);
    if (!this.seconds && this.words[0].at < this.now - 2 * SHOWN_SECONDS) this.words.shift(); // hours may be heard
    this.request();
  }

  /** Moves the time on. */
  reach(seconds) {
    this.now = Math.max(this.now, seconds);
    this.request();
  }

  request() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width) return;
    const density = devicePixelRatio || 1;
    this.canvas.width = Math.round(width * density);
    this.canvas.height = Math.round(height * density);
    const g = this.canvas.getContext("2d");
    g.scale(density, density);
    const style = getComputedStyle(this.canvas);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const area = { x: MARGIN.left, y: MARGIN.top, width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
    const [from, to] = this.span(), [low, high] = this.range();
    const x = (seconds) => area.x + ((seconds - from) / (to - from)) * area.width;
    const y = (value) => area.y + ((high - Math.min(high, Math.max(low, value))) / (high - low)) * area.height;
    g.font = `12px ${style.fontFamily}`;
    this.drawZones(g, area, y, colour);
    this.drawAxes(g, area, { x, y, from, to, low, high }, colour);
    g.save();
    g.beginPath();
    g.rect(area.x, area.y - 6, area.width + 6, area.height + 12);
    g.clip();
    this.drawQuiet(g, area, x, colour);
    this.drawScores(g, x, y, colour);
    g.restore();
  }

  /** Returns the first and last second shown. */
  span() {
    if (this.seconds) return [0, Math.max(1, this.seconds, this.now)];
    const to = Math.max(FIRST_SECONDS, this.now);
    return [Math.max(0, to - SHOWN_SECONDS), to];
  }

  /** Returns the lowest and highest value shown: whole numbers around what was found. */
  range() {
    const { enter, exit } = this.rules ?? { enter: 0, exit: 0 };
    let low = enter - LEAST_REACH, high = exit + LEAST_REACH;
    for (const { status, llr, smoothed } of this.words) {
      if (status !== "scored") continue;
      low = Math.min(low, llr, smoothed);
      high = Math.max(high, llr, smoothed);
    }
    const room = ROOM * (high - low);
    return [Math.floor(low - room), Math.ceil(high + room)];
  }

  drawZones(g, area, y, colour) {
    if (!this.rules) return;
    const { enter, exit } = this.rules;
    g.fillStyle = colour("genuine-wash");
    g.fillRect(area.x, area.y, area.width, y(exit) - area.y);
    g.fillStyle = colour("synthetic-wash");
    g.fillRect(area.x, y(enter), area.width, area.y + area.height - y(enter));
    g.setLineDash([6, 4]);
    g.lineWidth = 1.5;
    for (const [value, name] of [[exit, "genuine"], [enter, "synthetic"]]) {
      g.strokeStyle = colour(name);
      line(g, area.x, y(value), area.x + area.width, y(value));
    }
    g.setLineDash([]);
    g.textAlign = "right";
    g.fillStyle = colour("genuine");
    g.fillText("genuine", area.x + area.width - 6, area.y + 15);
    g.fillStyle = colour("synthetic");
    g.fillText("synthetic", area.x + area.width - 6, area.y + area.height - 7);
  }

  drawAxes(g, area, { x, y, from, to, low, high }, colour) {
    g.strokeStyle = colour("line");
    g.fillStyle = colour("soft");
    g.lineWidth = 1;
    const bottom = area.y + area.height;
    line(g, area.x, bottom, area.x + area.width, bottom);
    g.textAlign = "center";
    const step = STEPS.find((s) => (s / (to - from)) * area.width >= TICK_PIXELS) ?? STEPS.at(-1);
    for (let t = Math.ceil(from / step) * step; t <= to + 1e-9; t += step) {
      line(g, x(t), bottom, x(t), bottom + 4);
      g.textAlign = x(t) > area.x + area.width - 20 ? "right" : "center"; // the last one would be cut
      g.fillText(clock(t, step), x(t), bottom + 17);
    }
    g.textAlign = "center";
    g.fillText("time", area.x + area.width / 2, bottom + 33);
    g.textAlign = "right";
    const rise = STEPS.find((s) => (s / (high - low)) * area.height >= 34) ?? 60;
    for (let v = Math.ceil(low / rise) * rise; v <= high; v += rise) g.fillText(v > 0 ? `+${v}` : String(v).replace("-", "\u2212"), area.x - 8, y(v) + 4);
    g.save();
    g.translate(10, area.y + area.height / 2);
    g.rotate(-Math.PI / 2);
    g.textAlign = "center";
    g.fillText(this.unit, 0, 0);
    g.restore();
  }

  /** Hatches the stretches for which there was no score. */
  drawQuiet(g, area, x, colour) {
    const height = 8, top = area.y + area.height - height;
    g.strokeStyle = colour("soft");
    g.lineWidth = 1;
    for (const word of this.words) {
      if (word.status !== "not enough speech") continue;
      const left = x(word.from), right = x(word.at);
      g.save();
      g.beginPath();
      g.rect(left, top, right - left, height);
      g.clip();
      for (let at = Math.floor(left / 5) * 5 - height; at < right; at += 5) line(g, at, top + height, at + height, top);
      g.restore();
    }
  }

  drawScores(g, x, y, colour) {
    const scored = this.words.filter((word) => word.status === "scored");
    g.lineWidth = 1.5;
    g.strokeStyle = colour("soft");
    for (const word of scored) {
      g.beginPath();
      g.arc(x(word.at), y(word.llr), 3, 0, 2 * Math.PI);
      g.stroke();
    }
    g.lineWidth = 3;
    g.lineJoin = g.lineCap = "round";
    g.strokeStyle = colour("ink");
    g.beginPath();
    let before = null;
    for (const word of scored) {
      if (before?.turn === word.turn) g.lineTo(x(word.at), y(word.smoothed));
      else g.moveTo(x(word.at), y(word.smoothed));
      before = word;
    }
    g.stroke();
    if (!before) return;
    g.fillStyle = colour("ink");
    g.beginPath();
    g.arc(x(before.at), y(before.smoothed), 4.5, 0, 2 * Math.PI);
    g.fill();
  }
}

function line(g, x1, y1, x2, y2) {
  g.beginPath();
  g.moveTo(x1, y1);
  g.lineTo(x2, y2);
  g.stroke();
}

/** Returns seconds as 0:05, with tenths where steps are that small. */
export function clock(seconds, step = 1) {
  const whole = step < 1 ? Math.round(seconds * 10) / 10 : Math.round(seconds);
  const rest = step < 1 ? (whole % 60).toFixed(1).padStart(4, "0") : String(whole % 60).padStart(2, "0");
  return `${Math.floor(whole / 60)}:${rest}`;
}
