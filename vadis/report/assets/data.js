// What the page knows: the data block, colours of labels, words for numbers, and which videos are wanted.

const DATA = JSON.parse(document.getElementById("data").textContent);
const STATUSES = [["ok", "labelled"], ["partial", "partial"], ["error", "not labelled"], ["skipped", "skipped"]];
const START = 0, END = 1, LABEL = 2, SCORE = 3; // of a piece of a timeline
const UNCLEAR = DATA.labels.indexOf(DATA.unclear); // the label that says that none is clear

const byId = (id) => document.getElementById(id);

// An element with text in it; text is never markup.
function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function clock(seconds, tenths) {
  const all = tenths ? Math.round(seconds * 10) : Math.round(seconds) * 10;
  const whole = Math.floor(all / 10), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  const two = (n) => String(n).padStart(2, "0");
  const text = hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
  return tenths ? `${text}.${all % 10}` : text;
}

// "1:30", "90" or "1:02:03" in seconds; null for nothing, NaN for what is no time.
function seconds(text) {
  if (!text.trim()) return null;
  if (!/^\s*\d+(:[0-5]?\d){0,2}(\.\d+)?\s*$/.test(text)) return NaN;
  return text.split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
}

const length = (seconds) => (seconds < 59.95 ? `${seconds.toFixed(seconds < 0.95 ? 2 : 1)} s` : clock(seconds));

function duration(total) {
  if (total >= 5400) return `${(total / 3600).toFixed(1)} hours`;
  return total >= 90 ? `${Math.round(total / 60)} minutes` : `${Math.round(total)} seconds`;
}

// As in the terminal: a half goes to the even neighbour.
function percent(score) {
  const exact = 100 * score, whole = Math.round(exact);
  return score > 0 && score < 0.005 ? "<1 %" : `${whole - exact === 0.5 && whole % 2 ? whole - 1 : whole} %`;
}

const named = (label, score) => (label === UNCLEAR ? DATA.labels[label] : `${DATA.labels[label]} ${percent(score)}`);
const counted = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many || one + "s"}`;

// Sums over all videos: for how long and in how many each label leads the timeline, and its highest score in every video.
const LEADS = DATA.labels.map(() => ({ seconds: 0, videos: 0 }));
for (const video of DATA.videos) {
  video.best = new Map();
  for (const [start, end, label, score] of video.pieces ?? []) {
    video.best.set(label, Math.max(score, video.best.get(label) ?? 0));
    LEADS[label].seconds += end - start;
  }
  for (const label of video.best.keys()) LEADS[label].videos += 1;
  video.text = `${video.path} ${[...(video.labels ?? []).map(([label]) => label), ...video.best.keys()].map((label) => DATA.labels[label]).join(" ")}`.toLowerCase();
}

const RANKED = DATA.labels.map((_, label) => label).sort((a, b) => LEADS[b].seconds - LEADS[a].seconds || a - b);

// Okabe and Ito's colours for the labels that lead longest, then hues a golden angle apart.
const FEW = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a200"];
const COLOURS = [];
RANKED.filter((label) => label !== UNCLEAR).forEach((label, rank) => {
  const turn = rank - FEW.length;
  COLOURS[label] = FEW[rank] ?? `hsl(${Math.round(turn * 137.508 + 20) % 360} ${45 + (turn % 3) * 12}% ${[52, 64, 42][turn % 3]}%)`;
});

if (UNCLEAR >= 0) COLOURS[UNCLEAR] = "var(--unclear)";

const lower = DATA.labels.map((name) => name.toLowerCase());

// The labels that a text means: that of this very name, or all whose names have it in them; null for any.
function labelsMeant(text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return null;
  const exact = lower.indexOf(wanted);
  return new Set(exact >= 0 ? [exact] : lower.flatMap((name, label) => (name.includes(wanted) ? [label] : [])));
}

// The highest score that one of the labels meant has in the video's timeline; of any label, if none is meant.
function scoreOf(video, meant) {
  let best = -1;
  for (const [label, score] of video.best) if (meant?.has(label) ?? label !== UNCLEAR) best = Math.max(best, score);
  return best;
}

const ORDERS = {
  given: null,
  path: (a, b) => a.video.path.localeCompare(b.video.path, "en", { numeric: true }),
  score: (a, b) => b.score - a.score,
  unsure: (a, b) => (a.score < 0) - (b.score < 0) || a.score - b.score,
  longest: (a, b) => (b.video.seconds ?? -1) - (a.video.seconds ?? -1),
  shortest: (a, b) => (a.video.seconds ?? Infinity) - (b.video.seconds ?? Infinity),
};

function wantedVideos(wish) {
  const words = wish.words.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [];
  for (const video of DATA.videos) {
    if (!wish.statuses.has(video.status) || !words.every((word) => video.text.includes(word))) continue;
    if (wish.reason && video.error?.[0] !== wish.reason) continue;
    if (wish.shortest > 0 && !(video.seconds >= wish.shortest)) continue;
    if (wish.longest !== null && !Number.isNaN(wish.longest) && !(video.seconds <= wish.longest)) continue;
    const score = scoreOf(video, wish.meant);
    if ((wish.meant || wish.score > 0) && score < Math.max(0, wish.score)) continue;
    found.push({ video, score });
  }
  const order = ORDERS[wish.order];
  if (order) found.sort(order);
  return found.map(({ video }) => video);
}
