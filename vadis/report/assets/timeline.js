// A timeline: what leads when, drawn as bars as high as their scores; time and scores on hover and by the keyboard.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 1000, HEIGHT = 100; // of the drawing, stretched to the place it has
const MOST_BARS = 300;
const TICKS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200];

const endOf = (video) => (video.pieces ? video.pieces[video.pieces.length - 1][END] : 0);

function pieceAt(video, time) {
  let low = 0, high = video.pieces.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (video.pieces[middle][END] <= time) low = middle + 1; else high = middle;
  }
  return low;
}

// Neighbours under one leading label, as [start, end, label, mean score].
function stretches(video) {
  const merged = [];
  for (const piece of video.pieces ?? []) {
    if (piece.length === FIRST) continue;
    const last = merged[merged.length - 1], length = piece[END] - piece[START];
    if (last && last[2] === piece[FIRST] && Math.abs(last[1] - piece[START]) < 0.02) {
      const before = last[1] - last[0];
      last[3] = (last[3] * before + piece[FIRST + 1] * length) / (before + length || 1);
      last[1] = piece[END];
    } else merged.push([piece[START], piece[END], piece[FIRST], piece[FIRST + 1]]);
  }
  return merged;
}

// The pieces as at most MOST_BARS bars: where several fall together, the one that leads longest stands for them.
function bars(video) {
  const pieces = video.pieces, count = Math.ceil(pieces.length / MOST_BARS);
  if (count === 1) return pieces;
  const joined = [];
  for (let first = 0; first < pieces.length; first += count) {
    const group = pieces.slice(first, first + count), led = new Map();
    for (const piece of group) led.set(piece[FIRST], (led.get(piece[FIRST]) ?? 0) + piece[END] - piece[START]);
    const label = [...led].sort((a, b) => b[1] - a[1])[0][0];
    const ours = group.filter((piece) => piece[FIRST] === label);
    const score = ours.reduce((sum, piece) => sum + (piece[FIRST + 1] ?? 0), 0) / ours.length;
    joined.push([group[0][START], group[group.length - 1][END], ...(label === undefined ? [] : [label, score])]);
  }
  return joined;
}

function drawing(video, meant) {
  const end = endOf(video), svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const bar of bars(video)) {
    if (bar.length === FIRST) continue;
    const left = (bar[START] / end) * WIDTH, right = (bar[END] / end) * WIDTH, height = 12 + 0.88 * bar[FIRST + 1] / 10;
    const rect = document.createElementNS(SVG, "rect");
    rect.setAttribute("x", left.toFixed(2));
    rect.setAttribute("width", Math.max(0.5, right - left - Math.min(2, (right - left) / 6)).toFixed(2));
    rect.setAttribute("y", (HEIGHT - height).toFixed(2));
    rect.setAttribute("height", height.toFixed(2));
    rect.setAttribute("fill", COLOURS[bar[FIRST]]);
    if (meant && !meant.has(bar[FIRST])) rect.setAttribute("class", "faint");
    svg.append(rect);
  }
  return svg;
}

function ticks(end) {
  const line = make("div", "ticks"), apart = TICKS.find((tick) => end / tick <= 8) ?? 86400;
  line.setAttribute("aria-hidden", "true");
  for (let tick = 0; tick <= end; tick += apart) {
    const mark = make("span", "", clock(tick)), share = (tick / end) * 100;
    if (share > 94) mark.style.right = "0"; else mark.style.left = `${share}%`;
    line.append(mark);
  }
  return line;
}

const spanOf = (piece) => `${clock(piece[START], true)}–${clock(piece[END], true)}`;

function inWords(piece) {
  const named = [];
  for (let i = FIRST; i < piece.length; i += 2) named.push(`${DATA.labels[piece[i]]} ${percent(piece[i + 1])}`);
  return `${spanOf(piece)}: ${named.join(", ") || "no label"}`;
}

function chip(label) {
  const square = make("span", "chip");
  square.style.background = COLOURS[label];
  return square;
}

const TIP = byId("tip");

function showTip(video, piece, x, above) {
  const table = make("table");
  for (let i = FIRST; i < piece.length; i += 2) {
    const row = table.insertRow(), name = row.insertCell();
    name.append(chip(piece[i]), " ", make("bdi", "", DATA.labels[piece[i]]));
    const number = row.insertCell();
    number.className = "number";
    number.textContent = percent(piece[i + 1]);
  }
  const joined = video.joined ? ` (mean of ${video.joined} segments)` : "";
  TIP.replaceChildren(make("b", "", spanOf(piece) + joined), piece.length > FIRST ? table : make("div", "", "no label"));
  TIP.hidden = false;
  const box = TIP.getBoundingClientRect();
  TIP.style.left = `${Math.max(4, Math.min(x - box.width / 2, innerWidth - box.width - 4))}px`;
  TIP.style.top = `${above.top - box.height - 8 > 0 ? above.top - box.height - 8 : above.bottom + 8}px`;
}

const hideTip = () => { TIP.hidden = true; };

// The timeline of a video as an element; ``go(seconds)`` is what a click or Enter does.
function timeline(video, go, meant) {
  const end = endOf(video), whole = make("div"), line = make("div", "timeline"), cursor = make("div", "cursor");
  cursor.hidden = true;
  line.tabIndex = 0;
  line.setAttribute("role", "slider");
  line.setAttribute("aria-label", `Timeline of ${video.path}; arrows move, Enter plays`);
  line.setAttribute("aria-valuemin", "0");
  line.setAttribute("aria-valuemax", String(end));
  line.append(drawing(video, meant), cursor);
  whole.append(line, ticks(end));
  let at = 0;

  const timeAt = (event) => {
    const box = line.getBoundingClientRect();
    return Math.max(video.pieces[0][START], Math.min(end - 0.01, ((event.clientX - box.left) / box.width) * end));
  };
  const show = (time) => {
    at = pieceAt(video, time);
    const box = line.getBoundingClientRect(), piece = video.pieces[at];
    cursor.hidden = false;
    cursor.style.left = `${(time / end) * 100}%`;
    line.setAttribute("aria-valuenow", String(time));
    line.setAttribute("aria-valuetext", inWords(piece));
    showTip(video, piece, box.left + (time / end) * box.width, box);
  };
  const leave = () => { cursor.hidden = true; hideTip(); };
  const middle = (index) => (video.pieces[index][START] + video.pieces[index][END]) / 2;
  const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity };

  line.setAttribute("aria-valuenow", "0");
  line.setAttribute("aria-valuetext", inWords(video.pieces[0]));
  line.addEventListener("pointermove", (event) => show(timeAt(event)));
  line.addEventListener("pointerleave", leave);
  line.addEventListener("click", (event) => { leave(); go(timeAt(event)); });
  line.addEventListener("focus", () => { if (line.matches(":focus-visible")) show(middle(at)); });
  line.addEventListener("blur", leave);
  line.addEventListener("keydown", (event) => {
    if (event.key in steps) show(middle(Math.max(0, Math.min(video.pieces.length - 1, at + steps[event.key]))));
    else if (event.key === "Enter" || event.key === " ") { leave(); go(video.pieces[at][START]); }
    else if (event.key === "Escape") { leave(); return; }
    else return;
    event.preventDefault();
  });
  whole.follow = (time) => { cursor.hidden = false; cursor.style.left = `${Math.min(100, (time / end) * 100)}%`; };
  return whole;
}
