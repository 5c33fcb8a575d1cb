// A timeline: what leads when, drawn as bars as high as their scores; time and scores on hover and by the keyboard.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 1000, HEIGHT = 100; // of the drawing, stretched to the place it has
const MOST_BARS = 1000; // the longest pieces: a screen has hardly more pixels
const TICKS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200];

// The piece at a time, or the next one where no label is told there.
function pieceAt(video, time) {
  let low = 0, high = video.pieces.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (video.pieces[middle][END] <= time) low = middle + 1; else high = middle;
  }
  return low;
}

// How far along its timeline a time is, from 0 to 1; of a part of a file the timeline begins where the part does.
const shareAt = (video, time) => (time - (video.begin ?? 0)) / (video.end - (video.begin ?? 0));

function drawing(video, meant) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const [from, to, label, score] of [...video.pieces].sort((a, b) => b[END] - b[START] - (a[END] - a[START])).slice(0, MOST_BARS)) {
    const left = shareAt(video, from) * WIDTH, right = shareAt(video, to) * WIDTH, height = label === UNCLEAR ? 12 : 12 + 88 * score;
    const rect = document.createElementNS(SVG, "rect");
    rect.setAttribute("x", left.toFixed(2));
    rect.setAttribute("width", Math.max(0.5, right - left - Math.min(2, (right - left) / 6)).toFixed(2));
    rect.setAttribute("y", (HEIGHT - height).toFixed(2));
    rect.setAttribute("height", height.toFixed(2));
    rect.style.fill = COLOURS[label];
    if (meant && !meant.has(label)) rect.setAttribute("class", "faint");
    svg.append(rect);
  }
  return svg;
}

function ticks(video) {
  const begin = video.begin ?? 0, line = make("div", "ticks");
  const apart = TICKS.find((tick) => (video.end - begin) / tick <= 8) ?? 86400;
  line.setAttribute("aria-hidden", "true");
  for (let tick = Math.ceil(begin / apart) * apart; tick <= video.end; tick += apart) {
    const mark = make("span", "", clock(tick)), share = shareAt(video, tick) * 100;
    if (share > 94) mark.style.right = "0"; else mark.style.left = `${share}%`;
    line.append(mark);
  }
  return line;
}

const spanOf = (piece) => `${clock(piece[START], true)}–${clock(piece[END], true)}`;

const inWords = (piece) => `${spanOf(piece)}: ${named(piece[LABEL], piece[SCORE])}`;

function chip(label) {
  const square = make("span", "chip");
  square.style.background = COLOURS[label];
  return square;
}

const TIP = byId("tip");

function showTip(piece, x, above) {
  const name = make("div");
  name.append(chip(piece[LABEL]), " ", make("bdi", "", DATA.labels[piece[LABEL]]), piece[LABEL] === UNCLEAR ? "" : ` ${percent(piece[SCORE])}`);
  TIP.replaceChildren(make("b", "", spanOf(piece)), name);
  TIP.hidden = false;
  const box = TIP.getBoundingClientRect();
  TIP.style.left = `${Math.max(4, Math.min(x - box.width / 2, innerWidth - box.width - 4))}px`;
  TIP.style.top = `${above.top - box.height - 8 > 0 ? above.top - box.height - 8 : above.bottom + 8}px`;
}

const hideTip = () => { TIP.hidden = true; };

// The timeline of a video as an element; ``go(seconds)`` is what a click or Enter does.
function timeline(video, go, meant) {
  const begin = video.begin ?? 0, end = video.end, whole = make("div"), line = make("div", "timeline"), cursor = make("div", "cursor");
  cursor.hidden = true;
  line.tabIndex = 0;
  line.setAttribute("role", "slider");
  line.setAttribute("aria-label", `Timeline of ${video.path}; arrows move, Enter plays`);
  line.setAttribute("aria-valuemin", String(begin));
  line.setAttribute("aria-valuemax", String(end));
  line.append(drawing(video, meant), cursor);
  whole.append(line, ticks(video));
  let at = 0;

  const timeAt = (event) => {
    const box = line.getBoundingClientRect();
    return Math.max(begin, Math.min(end - 0.01, begin + ((event.clientX - box.left) / box.width) * (end - begin)));
  };
  const show = (time) => {
    at = pieceAt(video, time);
    const box = line.getBoundingClientRect(), piece = video.pieces[at];
    if (time < piece[START] || time > piece[END]) { leave(); return; }
    cursor.hidden = false;
    cursor.style.left = `${shareAt(video, time) * 100}%`;
    line.setAttribute("aria-valuenow", String(time));
    line.setAttribute("aria-valuetext", inWords(piece));
    showTip(piece, box.left + shareAt(video, time) * box.width, box);
  };
  const leave = () => { cursor.hidden = true; hideTip(); };
  const middle = (index) => (video.pieces[index][START] + video.pieces[index][END]) / 2;
  const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity };

  line.setAttribute("aria-valuenow", String(begin));
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
  whole.follow = (time) => { cursor.hidden = false; cursor.style.left = `${Math.max(0, Math.min(100, shareAt(video, time) * 100))}%`; };
  return whole;
}
